// Tests of reading pgbench's report, on reports as pgbench prints them.

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const wholeReport = `pgbench (15.20 (Debian 15.20-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 20
query mode: simple
number of clients: 32
number of threads: 2
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 103217
number of failed transactions: 0 (0.000%)
latency average = 1.548 ms
initial connection time = 61.214 ms
tps = 20893.417225 (without initial connection time)
`

const reconnectReport = `pgbench (15.20 (Debian 15.20-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 20
query mode: simple
number of clients: 8
number of threads: 2
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 1663
number of failed transactions: 0 (0.000%)
latency average = 24.110 ms
average connection time = 5.877 ms
tps = 331.812345 (including reconnection times)
`

func TestParsePgbench(t *testing.T) {
	without := func(line string) string {
		var kept strings.Builder
		for l := range strings.Lines(wholeReport) {
			if !strings.HasPrefix(l, line) {
				kept.WriteString(l)
			}
		}
		return kept.String()
	}
	for name, tc := range map[string]struct {
		out     string
		want    pgbenchReport
		wantErr string
	}{
		"whole":          {out: wholeReport, want: pgbenchReport{Transactions: 103217, LatencyMS: 1.548, TPS: 20893.417225}},
		"reconnecting":   {out: reconnectReport, want: pgbenchReport{Transactions: 1663, LatencyMS: 24.11, TPS: 331.812345}},
		"empty":          {out: "", wantErr: `no "number of failed transactions"`},
		"aborted":        {out: wholeReport + "Run was aborted; the above results are incomplete.\n", wantErr: "aborted"},
		"failures":       {out: strings.Replace(wholeReport, "failed transactions: 0", "failed transactions: 3", 1), wantErr: "3 failed transactions"},
		"nothing done":   {out: strings.Replace(wholeReport, "103217", "0", 1), wantErr: "no transaction was processed"},
		"no count":       {out: without("number of transactions"), wantErr: `no "number of transactions"`},
		"no failed line": {out: without("number of failed"), wantErr: `no "number of failed transactions"`},
		"no latency":     {out: without("latency"), wantErr: `no "latency average"`},
		"no tps":         {out: without("tps"), wantErr: `no "tps"`},
		"other language": {out: strings.Replace(wholeReport, "latency average", "latence moyenne", 1), wantErr: `no "latency average"`},
		"count too long": {out: strings.Replace(wholeReport, "103217", "99999999999999999999", 1), wantErr: "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePgbench(tc.out)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}
