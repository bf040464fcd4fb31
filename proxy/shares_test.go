// Limits that hold over several nodes: what is claimed and when, and that no more is dialed than was granted.

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

var appPool = tenants.PoolScope("app", "app")

// TestOnlyWhatIsGrantedIsDialed: a client waits, nothing happens, and a grant lets it in. Each claim has the number of the last grant.
func TestOnlyWhatIsGrantedIsDialed(t *testing.T) {
	b, book, server := newShares(t, tenants.Pool{Size: 3, MaxServers: 5}, 5, true)
	first, second := b.arrives(transactionMode), b.arrives(transactionMode)
	at := book.await(t, 0, "for two clients", func(c claimed) bool {
		want := []tenants.Demand{{Scope: tenants.ScopeTenant, Limit: 5, Wanted: 2}, {Scope: appPool, Limit: 3, Wanted: 2}}
		return c.tenant == "acme" && c.number == 0 && slices.Equal(c.demands, want)
	})
	b.silent(first, "before the grant")
	number := book.grant(map[string]int{tenants.ScopeTenant: 1})
	at = book.await(t, at, "with the number", func(c claimed) bool { return c.number == number })
	b.silent(first, "with one of two grants")
	if open, _, _ := server.counts(); open != 0 {
		t.Errorf("%d are open", open)
	}
	book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 3})
	b.greeted(first)
	b.greeted(second)
	book.await(t, at, "of one that is idle", func(c claimed) bool {
		return c.of("") == tenants.Demand{Limit: 5, Held: 1} && c.of(appPool) == tenants.Demand{Scope: appPool, Limit: 3, Held: 1}
	})
	opens(t, first)
	if _, err := second.Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
		t.Fatal(err)
	}
	book.await(t, at, "of one in use and one that waits", func(c claimed) bool { return c.of("") == tenants.Demand{Limit: 5, Held: 1, Wanted: 2} })
	b.silent(second, "above the grant")
	book.grant(map[string]int{tenants.ScopeTenant: 2, appPool: 2})
	awaitReady(t, second)
	if _, most, refused := server.counts(); most != 2 || refused != 0 {
		t.Errorf("%d were open, %d were refused", most, refused)
	}
}

// TestGrantsShrink: what is idle is closed at once, what is in use when it is released; and a server is held until it has ended.
func TestGrantsShrink(t *testing.T) {
	b, book, server := newShares(t, tenants.Pool{Size: 3, MaxServers: 3}, 3, true)
	book.grant(map[string]int{tenants.ScopeTenant: 3, appPool: 3})
	clients := []net.Conn{b.client(transactionMode), b.client(transactionMode), b.client(transactionMode)}
	for _, c := range clients {
		opens(t, c)
	}
	held := func(n int) func(c claimed) bool {
		return func(c claimed) bool { return c.of("").Held == n && c.of(appPool).Held == n }
	}
	book.await(t, 0, "of three", held(3))
	server.awaitOpen(t, 3)
	let := server.hold()
	defer let()
	at := book.mark()
	book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 3})
	at = book.await(t, at, "in answer", held(3))
	for _, c := range clients {
		if _, err := c.Write(pgwire.AppendQuery(nil, "commit")); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, c)
	}
	eventually(t, "two are closed here", func() (ok bool) {
		b.tenant.call(func() { ok = b.tenant.books.Servers() == 1 && b.tenant.books.Used() == 3 })
		return ok
	})
	b.settle()
	book.mu.Lock()
	for _, c := range book.claims[at:] {
		if c.of("").Held != 3 {
			t.Errorf("%+v, before they have ended", c)
		}
	}
	book.mu.Unlock()
	let()
	book.await(t, at, "of one", held(1))
}

// TestPerNode: such a tenant claims nothing and dials at once; one with a machine says that it is in use.
func TestPerNode(t *testing.T) {
	b, book, server := newShares(t, tenants.Pool{Size: 2, MaxServers: 2, PerNode: true}, 2, true)
	b.client(transactionMode)
	b.settle()
	if book.mark() != 0 {
		t.Errorf("%+v", book.claims)
	}
	// It shares from now on: what is open stays, until the budget has spoken.
	b.change(func(c *tenants.Tenant) { c.Pool.PerNode = false })
	at := book.await(t, 0, "of what is open", func(c claimed) bool { return c.of("").Held == 1 && c.of(appPool).Held == 1 })
	b.tenant.call(b.tenant.sweep)
	b.settle()
	if open, _, _ := server.counts(); open != 1 {
		t.Errorf("%d are open", open)
	}
	book.grant(map[string]int{tenants.ScopeTenant: 2, appPool: 2})
	b.change(func(c *tenants.Tenant) { c.Pool.PerNode = true })
	book.await(t, at, "of nothing", func(c claimed) bool { return len(c.demands) == 0 })

	b.tenant.call(func() {
		conf := *b.tenant.conf
		conf.Machine = &tenants.Machine{}
		b.tenant.conf = &conf
		if got := b.tenant.demands(b.tenant.loop.Now()); !slices.Equal(got, []tenants.Demand{{Scope: tenants.ScopeUse, Held: 1}}) {
			t.Errorf("with a machine: %+v", got)
		}
		b.tenant.conf = b.conf()
	})
}

// TestEveryLimitIsShared: each has a scope, but for those that are none.
func TestEveryLimitIsShared(t *testing.T) {
	b, book, _ := newShares(t, tenants.Pool{Size: 2, Reserve: 1, MaxServers: 9, MaxDatabaseServers: 7}, 9, true)
	b.change(func(c *tenants.Tenant) {
		u := *c.Users["app"]
		u.MaxServers = 5
		c.Users = map[string]*tenants.User{"app": &u}
	})
	for range 4 {
		b.arrives(transactionMode)
	}
	book.await(t, 0, "of all limits", func(c claimed) bool {
		return slices.Equal(c.demands, []tenants.Demand{
			{Scope: "", Limit: 9, Wanted: 3}, {Scope: "database/app", Limit: 7, Wanted: 3}, {Scope: "pool/app/app", Limit: 2, Wanted: 2},
			{Scope: "reserve/pool/app/app", Limit: 1, Wanted: 1}, {Scope: "user/app", Limit: 5, Wanted: 3}})
	})
}

// TestWhoIsLeftWithoutAPortion is told so, with a hint: after query_wait, or soon if nobody knows when that changes.
func TestWhoIsLeftWithoutAPortion(t *testing.T) {
	for name, frozen := range map[string]bool{"others have all": false, "nobody knows": true} {
		t.Run(name, func(t *testing.T) {
			b, book, server := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, true)
			book.frozen = frozen
			if !frozen {
				b.change(func(c *tenants.Tenant) { c.Timeouts.QueryWait = new(time.Second) })
			}
			client := b.arrives(transactionMode)
			typ, body := readMessage(t, client)
			if e := pgwire.ParseError(body); typ != pgwire.ErrorResponse || e.Code != "57P03" || e.Message != errNoShare.Message || e.Hint == "" {
				t.Errorf("%q %+v", typ, e)
			}
			if open, _, _ := server.counts(); open != 0 {
				t.Errorf("%d are open", open)
			}
		})
	}
}

// TestADialAsksOnceItIsConnected whether what was granted holds still: this process may have stood still meanwhile.
func TestADialAsksOnceItIsConnected(t *testing.T) {
	b, book, server := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, true)
	book.frozen = true
	book.grant(map[string]int{tenants.ScopeTenant: 2, appPool: 2})
	client := b.arrives(transactionMode)
	typ, body := readMessage(t, client)
	if e := pgwire.ParseError(body); typ != pgwire.ErrorResponse || e.Code != "57P03" || e.Message != errNoShare.Message {
		t.Errorf("%q %+v", typ, e)
	}
	if _, most, _ := server.counts(); most != 0 {
		t.Errorf("%d logged in", most)
	}
	book.mu.Lock()
	book.frozen = false
	book.mu.Unlock()
	book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 1}) // which ends the pause
	b.client(transactionMode)
}

// TestTheLastClaims: a tenant that is removed, one that is forgotten and a gate that drains give everything back.
func TestTheLastClaims(t *testing.T) {
	all := map[string]int{tenants.ScopeTenant: 2, appPool: 2}
	nothing := func(number *int64) func(c claimed) bool {
		return func(c claimed) bool { return len(c.demands) == 0 && c.number == *number }
	}
	t.Run("removed", func(t *testing.T) {
		b, book, server := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, true)
		number := book.grant(all)
		b.client(transactionMode)
		let := server.hold()
		defer let()
		b.gate.opts.Directory.Remove("acme")
		at := book.await(t, 0, "of what has not ended", func(c claimed) bool { return c.of("").Held == 1 && c.of("").Wanted == 0 })
		let()
		book.await(t, at, "of nothing", nothing(&number))
	})
	t.Run("forgotten", func(t *testing.T) {
		b, book, _ := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, true)
		number := book.grant(map[string]int{})
		at := book.await(t, 0, "in answer", nothing(&number))
		b.tenant.lastUse.Store(0)
		b.tenant.call(func() { b.gate.forgetTenant(b.tenant) })
		number = book.grant(all)
		book.await(t, at, "for one that is not there", nothing(&number))
		b.tenant = b.gate.tenant("acme")
		at = book.mark()
		b.arrives(transactionMode)
		book.await(t, at, "of the next one", func(c claimed) bool { return c.number == 0 && c.of("").Wanted == 1 })
	})
	t.Run("drain", func(t *testing.T) {
		b, book, server := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, true)
		number := book.grant(all)
		busy, idle := b.client(transactionMode), b.client(transactionMode)
		opens(t, busy)
		opens(t, idle)
		if _, err := idle.Write(pgwire.AppendQuery(nil, "commit")); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, idle)
		b.tenant.call(b.tenant.drain)
		at := book.await(t, 0, "of the busy one", func(c claimed) bool { return c.of("") == tenants.Demand{Limit: 2, Held: 1, Wanted: 1} })
		server.awaitOpen(t, 1)
		if _, err := busy.Write(pgwire.AppendQuery(nil, "commit")); err != nil {
			t.Fatal(err)
		}
		book.await(t, at, "of nothing", nothing(&number))
	})
}

// TestPortionsSurviveAPanic: the tenant's new books keep to what was granted.
func TestPortionsSurviveAPanic(t *testing.T) {
	b, book, server := newShares(t, tenants.Pool{Size: 2, MaxServers: 2}, 2, true)
	book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 1})
	opens(t, b.client(transactionMode))
	b.tenant.call(func() {
		b.tenant.clients[0].books = pool.Client{}
		b.tenant.verify()
	})
	server.awaitOpen(t, 0)
	opens(t, b.client(transactionMode))
	second := b.client(transactionMode)
	if _, err := second.Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
		t.Fatal(err)
	}
	b.silent(second, "above the grant")
}

// TestWhoWaitsIsNotCountedEachTime: with more clients than servers somebody comes to wait in every transaction, and all is claimed already.
func TestWhoWaitsIsNotCountedEachTime(t *testing.T) {
	b, book, _ := newShares(t, tenants.Pool{Size: 1, MaxServers: 1}, 1, true)
	book.grant(map[string]int{tenants.ScopeTenant: 1, appPool: 1})
	opens(t, b.client(transactionMode))
	second := b.client(transactionMode)
	at := book.mark()
	if _, err := second.Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
		t.Fatal(err)
	}
	b.until("it waits", func() bool { return b.tenant.books.Counts().Waiting == 1 })
	var allocs float64
	b.tenant.call(func() {
		for range 2 { // all that there is to claim is claimed
			b.tenant.shares.pause.Stop()
			b.tenant.claimSoon()
		}
		b.tenant.shares.pause.Stop()
		allocs = testing.AllocsPerRun(100, b.tenant.claimForWaiting)
	})
	if allocs > 0 {
		t.Errorf("%v allocations each time", allocs)
	}
	b.tenant.call(b.tenant.claimAgain)
	for _, c := range book.claims[at:] {
		if c.of("").Wanted > 1 {
			t.Errorf("claims %+v", c)
		}
	}
}
