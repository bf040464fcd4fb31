// Places of servers that were closed: they are free when those have ended, and nobody is above a limit meanwhile.

package proxy

import (
	"net"
	"testing"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// TestAServersPlaceIsFreeWhenItHasEnded, on a single node, too: whoever takes its place does not come too early, and a place that stays
// taken is given up some day.
func TestAServersPlaceIsFreeWhenItHasEnded(t *testing.T) {
	b, _, upstream := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, false)
	for round := range 20 {
		clients := []net.Conn{b.client(transactionMode), b.client(transactionMode)}
		for _, c := range clients {
			opens(t, c)
		}
		let := upstream.hold()
		for _, c := range clients {
			if _, err := c.Write(pgwire.AppendQuery(nil, "commit")); err != nil {
				t.Fatal(err)
			}
			awaitReady(t, c)
		}
		b.tenant.call(func() { b.tenant.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("retired") }) })
		if _, err := clients[0].Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
			t.Fatal(err)
		}
		b.settle()
		let()
		awaitReady(t, clients[0])
		for _, c := range clients {
			c.Close()
		}
		if _, most, refused := upstream.counts(); most > 2 || refused > 0 {
			t.Fatalf("round %d: %d were open, %d were refused", round, most, refused)
		}
	}
	b.tenant.call(func() {
		if err := b.tenant.books.Check(); err != nil {
			t.Error(err)
		}
	})
}
