// A server that reports parameters without end, which costs a loop that others share.

package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
)

// TestReportsAreBounded: what servers report is kept, compared and told, and each report costs what there is already. A server
// that reports more than any would is given up, before it costs much.
func TestReportsAreBounded(t *testing.T) {
	report := func(i, n int, value string) []byte {
		return pgwire.AppendParameterStatus(nil, pgwire.Param{Name: fmt.Sprint("p", i%n), Value: value})
	}
	for name, c := range map[string]struct {
		first int // parameters of 500 bytes
		n     int
		of    func(i int) []byte
		kept  bool
	}{
		"as many as a client sets":  {10, 2000, func(i int) []byte { return report(0, 1, fmt.Sprint(i)) }, true},
		"a long one":                {10, 1, func(i int) []byte { return report(0, 1, strings.Repeat("x", 15<<10)) }, true},
		"many long ones":            {0, 50, func(i int) []byte { return report(i, 50, strings.Repeat("x", 15<<10)) }, false},
		"more than can be followed": {100, 4000, func(i int) []byte { return report(0, 1, fmt.Sprint(i%2)) }, false},
		"for all who are greeted": {0, 200, func(i int) []byte {
			return pgwire.AppendParameterStatus(nil, pgwire.Param{Name: params.InHotStandby, Value: fmt.Sprint(i % 2)})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(transactionMode)
			if name == "for all who are greeted" {
				b.tenant.loop.Call(func() {
					p := b.tenant.pool(poolKey{"app", "app"})
					for i := range 200 {
						p.sets.Learn(p.sets.Intern([]pgwire.Param{{Name: "work_mem", Value: fmt.Sprint(i)}}),
							p.reports.Intern([]pgwire.Param{{Name: "search_path", Value: strings.Repeat("x", 10<<10)}}))
					}
				})
			}
			query := pgwire.AppendQuery(nil, "select 1")
			if _, err := client.Write(query); err != nil {
				t.Fatal(err)
			}
			expect(t, server, query, "request")
			heard := make(chan struct{})
			go func() {
				defer close(heard)
				_, _ = io.Copy(io.Discard, client)
			}()
			var first, then []byte
			for i := range c.first {
				first = append(first, report(i, c.first, strings.Repeat("x", 500))...)
			}
			for i := range c.n {
				then = append(then, c.of(i)...)
			}
			_, _ = server.Write(first)
			_, _ = server.Write(then) // or it is given up in the middle
			b.settle()
			b.settle()
			kept := false
			b.tenant.loop.Call(func() { kept = b.tenant.pool(poolKey{"app", "app"}).books.Counts() != pool.Counts{} })
			if kept != c.kept {
				t.Errorf("kept: %v, want %v", kept, c.kept)
			}
			client.Close()
			<-heard
		})
	}
}
