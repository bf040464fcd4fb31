// Places of servers that were closed: they are free when those have ended, and nobody is above a limit meanwhile.

package proxy

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// TestAClosedServerIsThereUntilItHasEnded: a pause is not done before, and of a tenant that has one when the gate ends that is known.
func TestAClosedServerIsThereUntilItHasEnded(t *testing.T) {
	for _, ends := range []bool{true, false} {
		b, book, upstream := newShares(t, tenants.Pool{Size: 1, MaxServers: 1}, 1, true)
		book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 1})
		c := b.client(transactionMode)
		opens(t, c)
		let := upstream.hold()
		if _, err := c.Write(pgwire.AppendQuery(nil, "commit")); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, c)
		if err := b.gate.Pause("acme"); err != nil {
			t.Fatal(err)
		}
		leaving := func() (is bool) {
			b.tenant.call(func() { is = b.tenant.leaving() })
			return is
		}
		eventually(t, "it is closed here", func() (ok bool) {
			b.tenant.call(func() { ok = b.tenant.books.Servers() == 0 })
			return ok
		})
		if !leaving() {
			t.Error("it has not ended, and the pause is done")
		}
		if ends {
			let()
			eventually(t, "the pause is done", func() bool { return !leaving() })
		}
		c.Close()
		b.gate.Close()
		if left := b.gate.Left(); ends == slices.Contains(left, "acme") {
			t.Errorf("it has ended: %v; left are %v", ends, left)
		}
		let()
	}
}

// TestAGateWaitsForItsServersToEnd where other nodes wait for their places: a busy one takes its time.
func TestAGateWaitsForItsServersToEnd(t *testing.T) {
	t.Parallel()
	b, book, upstream := newShares(t, tenants.Pool{Size: 1, MaxServers: 1}, 1, true)
	book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 1})
	c := b.client(transactionMode)
	opens(t, c)
	let := upstream.hold()
	time.AfterFunc(lingerFor+lingerFor/10, let)
	b.gate.Close()
	if left := b.gate.Left(); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// TestWaitCloseWaitsForTheEnd of servers that RECONNECT has closed, and of those that were closed before it, and for no others.
func TestWaitCloseWaitsForTheEnd(t *testing.T) {
	b, _, upstream := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, false)
	for _, reconnects := range []bool{true, false} {
		for _, before := range []bool{true, false} {
			c := b.client(transactionMode)
			opens(t, c)
			let := upstream.hold()
			if _, err := c.Write(pgwire.AppendQuery(nil, "commit")); err != nil {
				t.Fatal(err)
			}
			awaitReady(t, c)
			closing := func() (is bool) {
				b.tenant.call(func() { is = b.tenant.closing() })
				return is
			}
			b.tenant.call(func() {
				for s := range b.tenant.servers {
					if before || !reconnects {
						s.shut("unused")
					}
				}
			})
			if reconnects {
				b.gate.reconnect("acme")
			}
			b.settle()
			if closing() != reconnects {
				t.Errorf("RECONNECT: %v, closed before: %v; it is waited for: %v", reconnects, before, closing())
			}
			let()
			eventually(t, "it has ended", func() (ok bool) {
				b.tenant.call(func() { ok = !b.tenant.closing() && b.tenant.books.Used() == 0 })
				return ok
			})
			c.Close()
		}
	}
}

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
