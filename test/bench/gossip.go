// The gossip rows: what members of a cluster send each other while nothing happens. They are simulated: all are in this process, on
// loopback, and their rows stand in memory.

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/tenants"
)

const (
	gossipTimes  = 3               // as long as a cell of load: what compares all states comes every 15 s
	gossipWithin = 2 * time.Minute // until all know each other
	gossipSettle = 3 * time.Second // until nothing is new any more
	headerBytes  = 40 + 8          // of a packet: IPv6 and UDP
)

// What a member of the gossip takes, each a second.
const (
	gossipBytes   figure = "gossip_bytes"   // sent, in packets and streams, without headers
	gossipWire    figure = "gossip_wire"    // with those of IPv6 and UDP
	gossipPackets figure = "gossip_packets" // sent
	gossipCPU     figure = "gossip_cpu_ms"
	memberHeap    figure = "member_heap_kib"
	memberThreads figure = "member_goroutines"
)

var gossipColumns = []column{
	{"bytes sent a second, each", gossipBytes, true}, {"with IPv6 and UDP headers", gossipWire, true}, {"packets", gossipPackets, false},
	{"ms CPU a second", gossipCPU, false}, {"heap KiB", memberHeap, false}, {"goroutines", memberThreads, false},
}

// gossipOf measures so many members.
func gossipOf(members int) *measurement {
	return &measurement{columns: gossipColumns, run: func(ctx context.Context, r *rig) (figures, error) { return r.gossipCell(ctx, members) }}
}

// simulated are members of one cluster, and the rows that they would have in a store.
type simulated struct {
	members  []*cluster.Cluster
	counters []*prometheus.Registry
	end      context.CancelFunc
	running  sync.WaitGroup

	mu   sync.Mutex
	rows []tenants.Node
}

func (s *simulated) nodes(context.Context) ([]tenants.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows, nil
}

// stop ends all members at once.
func (s *simulated) stop() {
	if s.end != nil {
		s.end()
	}
	s.running.Wait()
}

// simulate starts members, and waits until each knows all.
func (r *rig) simulate(ctx context.Context, n int) (*simulated, error) {
	s := &simulated{}
	path, err := r.clusterKey()
	if err != nil {
		return s, err
	}
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end = end
	for i := range n {
		counters, boot, name := prometheus.NewRegistry(), rand.Text(), fmt.Sprintf("node-%02d", i)
		c, err := cluster.Open(cluster.Options{Name: name, Boot: boot, Region: "ams", Bind: loopback + ":0", KeyFile: path, MaxNodes: n,
			Nodes: s.nodes, Registerer: counters, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return s, err
		}
		s.mu.Lock()
		s.rows = append(s.rows[:len(s.rows):len(s.rows)], tenants.Node{Name: name, Boot: boot, Seen: time.Now(), Here: c.Here()}) // a list that was given out stays
		s.mu.Unlock()
		s.members, s.counters = append(s.members, c), append(s.counters, counters)
		s.running.Go(func() { c.Run(running) })
		if err := s.await(ctx, c); err != nil { // one after the other: this is about afterwards
			return s, err
		}
	}
	return s, errors.Join(s.await(ctx, s.members...), pause(ctx, gossipSettle))
}

// await waits until some members know all.
func (s *simulated) await(ctx context.Context, some ...*cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, gossipWithin)
	defer cancel()
	for _, c := range some {
		for !s.known(c) {
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("%s does not know all %d members: %w", c.Name(), len(s.members), err)
			}
		}
	}
	return nil
}

// known reports whether a member has heard of all. On a computer without time for them some may be suspects.
func (s *simulated) known(c *cluster.Cluster) bool {
	there := 0
	for _, m := range c.Members() {
		if m.State != cluster.Left {
			there++
		}
	}
	return there == len(s.members)
}

// clusterKey makes a key file of a cluster.
func (r *rig) clusterKey() (string, error) {
	path := filepath.Join(r.dir, "cluster.key")
	var key [32]byte
	_, _ = rand.Read(key[:])
	return path, r.as.write(path, base64.StdEncoding.EncodeToString(key[:])+"\n")
}

// sent adds up what all have sent.
func (s *simulated) sent() (bytes, packets float64, err error) {
	for _, counters := range s.counters {
		families, err := counters.Gather()
		if err != nil {
			return 0, 0, err
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				switch labels := m.GetLabel(); {
				case len(labels) != 1 || labels[0].GetValue() != "out":
				case f.GetName() == "postern_cluster_bytes_total":
					bytes += m.GetCounter().GetValue()
				case f.GetName() == "postern_cluster_packets_total":
					packets += m.GetCounter().GetValue()
				}
			}
		}
	}
	return bytes, packets, nil
}

// gossipCell counts what idle members send.
func (r *rig) gossipCell(ctx context.Context, n int) (figures, error) {
	heap, goroutines := liveObjects(), runtime.NumGoroutine()
	s, err := r.simulate(ctx, n)
	defer s.stop()
	if err != nil {
		return nil, err
	}
	each := func(x float64) float64 { return x / float64(n) }
	f := figures{memberHeap: each(liveObjects()-heap) / 1024, memberThreads: each(float64(runtime.NumGoroutine() - goroutines))}
	bytes, packets, err := s.sent()
	if err != nil {
		return nil, err
	}
	began, used := time.Now(), ownCPU()
	if err := pause(ctx, time.Duration(gossipTimes*r.opts.seconds)*time.Second); err != nil {
		return nil, err
	}
	bytesNow, packetsNow, err := s.sent()
	if err != nil {
		return nil, err
	}
	rate := func(x float64) float64 { return each(x) / time.Since(began).Seconds() }
	f[gossipCPU] = rate(float64((ownCPU() - used).Microseconds()) / 1000)
	f[gossipBytes], f[gossipPackets] = rate(bytesNow-bytes), rate(packetsNow-packets)
	f[gossipWire] = rate(bytesNow - bytes + headerBytes*(packetsNow-packets))
	return f, nil
}

// liveObjects is what is reachable in this process, in bytes.
func liveObjects() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// ownCPU is what this process has run for.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // of oneself it never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
