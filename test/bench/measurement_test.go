// Tests of rows that are measured in a way of their own, and of what they count.

package main

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Rows with the same columns share a table; of a figure that no cell has there is none.
func TestOwnTables(t *testing.T) {
	opts, err := parseOptions([]string{"-rows", "gossip-3,gossip-10,dead-node", "-targets", "postern"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	r := &report{Options: publicOptions(opts)}
	for round := range 3 {
		more := float64(round)
		r.Cells = append(r.Cells,
			cell{round + 1, "gossip-3", postern, figures{gossipBytes: 200 + more, gossipWire: 300 + more, gossipPackets: 2, gossipCPU: 0.5, memberHeap: 100, memberThreads: 24}},
			cell{round + 1, "gossip-10", postern, figures{gossipBytes: 210 + more, gossipWire: 310 + more, gossipPackets: 2, gossipCPU: 0.6, memberHeap: 400, memberThreads: 45}},
			cell{round + 1, "dead-node", postern, figures{foundSuspect: 1 + more, foundGone: 4, foundSilent: 5, storeConns: 7}},
		)
	}
	r.summarize(opts)
	var got [][][]string
	for _, table := range r.tables() {
		got = append(got, append([][]string{table.header}, table.rows...))
	}
	want := [][][]string{{
		{"", "bytes sent a second, each", "with IPv6 and UDP headers", "packets", "ms CPU a second", "heap KiB", "goroutines"},
		{"3 members", "201.00 (200.00-202.00)", "301.00 (300.00-302.00)", "2.00", "0.50", "100", "24.0"},
		{"10 members", "211.00 (210.00-212.00)", "311.00 (310.00-312.00)", "2.00", "0.60", "400", "45.0"},
	}, {
		{"", "suspect after s", "gone after s", "silent in the store after s", "an idle node's transactions in the store, a second", "connections"},
		{"one of three nodes is killed", "2.00 (1.00-3.00)", "4.00 (4.00-4.00)", "5.00 (5.00-5.00)", "-", "7.00"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

// Simulated members know each other, and what they have sent is counted.
func TestSimulated(t *testing.T) {
	r := &rig{dir: t.TempDir()}
	s, err := r.simulate(context.Background(), 2)
	defer s.stop()
	if err != nil {
		t.Fatal(err)
	}
	bytes, packets, err := s.sent()
	if err != nil || packets < 1 || bytes < 20*packets {
		t.Errorf("%v packets of %v bytes, %v", packets, bytes, err)
	}
}
