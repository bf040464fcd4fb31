// Limits that hold over several nodes: what is claimed and when, and that no more is dialed than was granted. The servers are real
// sockets that count, and refuse whoever is one too many.

package proxy

import (
	"bufio"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// book is a budget that a test fills by hand. Like the real one it believes that a gate may use what it was granted until the gate
// has said that it knows better.
type book struct {
	mu      sync.Mutex
	gate    *Gate
	limit   map[string]int // that it grants by itself, by scope
	claims  []claimed
	number  int64
	granted map[string]int
	frozen  bool // nothing may be dialed
	changed chan struct{}
}

type claimed struct {
	tenant  string
	number  int64
	demands []tenants.Demand
}

func (b *book) Claim(tenant string, number int64, demands []tenants.Demand) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claims = append(b.claims, claimed{tenant, number, demands})
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) MayDial() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.frozen
}

// grant says what may be used from now on.
func (b *book) grant(of map[string]int) int64 {
	b.mu.Lock()
	b.number++
	number := b.number
	b.mu.Unlock()
	var list []tenants.Grant
	for _, scope := range slices.Sorted(maps.Keys(of)) {
		list = append(list, tenants.Grant{Scope: scope, Servers: of[scope]})
	}
	b.gate.Granted("acme", number, list)
	return number
}

// await returns the first claim, from the first on or from since on, that is as wanted.
func (b *book) await(t *testing.T, since int, what string, ok func(c claimed) bool) int {
	t.Helper()
	late := time.After(patience)
	for {
		b.mu.Lock()
		all, changed := slices.Clone(b.claims), b.changed
		b.mu.Unlock()
		for i := since; i < len(all); i++ {
			if ok(all[i]) {
				return i + 1
			}
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no claim %s; there are %+v", what, all[min(since, len(all)):])
		}
	}
}

func (b *book) mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.claims)
}

// of returns the demand of a scope; zero: there is none.
func (c claimed) of(scope string) tenants.Demand {
	for _, d := range c.demands {
		if d.Scope == scope {
			return d
		}
	}
	return tenants.Demand{}
}

// counter is a server that lets no more in than it has places. A connection ends slowly: its place is free only when it has ended.
type counter struct {
	t       *testing.T
	ln      net.Listener
	mu      sync.Mutex
	places  int
	open    int
	most    int
	refused int
	end     chan struct{} // closed: who says goodbye is let go
	all     []net.Conn
}

func newCounter(t *testing.T, places int) *counter {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{t: t, ln: ln, places: places}
	c.hold()()
	t.Cleanup(func() {
		ln.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, conn := range c.all {
			conn.Close()
		}
	})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

func (c *counter) port() uint16 { return uint16(c.ln.Addr().(*net.TCPAddr).Port) }

func (c *counter) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(bufio.NewReader(conn), conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	c.mu.Lock()
	c.all = append(c.all, conn)
	if c.open >= c.places {
		c.refused++
		c.mu.Unlock()
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300", Message: "too many connections"})
		_ = backend.Flush()
		return
	}
	c.open++
	c.most = max(c.most, c.open)
	c.mu.Unlock()
	backend.Send(&pgproto3.AuthenticationMD5Password{})
	_ = backend.Flush()
	if err := backend.SetAuthType(pgproto3.AuthTypeMD5Password); err != nil {
		c.t.Error(err)
	}
	if _, err := backend.Receive(); err != nil {
		c.left()
		return
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	_ = backend.Flush()
	for {
		m, err := backend.Receive()
		if _, goodbye := m.(*pgproto3.Terminate); err != nil || goodbye {
			break
		}
		if q, query := m.(*pgproto3.Query); query {
			status := byte('I')
			if q.String == "begin" {
				status = 'T'
			}
			backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			backend.Send(&pgproto3.ReadyForQuery{TxStatus: status})
			_ = backend.Flush()
		}
	}
	c.mu.Lock()
	end := c.end
	c.mu.Unlock()
	<-end
	c.left()
}

// left frees a place. Then the connection ends.
func (c *counter) left() {
	c.mu.Lock()
	c.open--
	c.mu.Unlock()
}

// hold has connections not end, until the returned function is called.
func (c *counter) hold() (let func()) {
	end := make(chan struct{})
	c.mu.Lock()
	c.end = end
	c.mu.Unlock()
	return sync.OnceFunc(func() { close(end) })
}

func (c *counter) counts() (open, most, refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.most, c.refused
}

func (c *counter) awaitOpen(t *testing.T, n int) {
	t.Helper()
	eventually(t, "so many are open", func() bool { open, _, _ := c.counts(); return open == n })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// newShares is a bench whose tenant's server lets so many in. The budget is the test's; none: there is one node.
func newShares(t *testing.T, limits tenants.Pool, places int, budget bool) (*bench, *book, *counter) {
	t.Helper()
	server := newCounter(t, places)
	conf := tenants.New("acme")
	conf.Upstream = tenants.Upstream{Host: "127.0.0.1", Port: server.port(), TLS: tenants.TLSDisable}
	conf.Database = "app"
	conf.Users["app"] = &tenants.User{Name: "app", ServerUser: "app", ServerAuth: tenants.AuthMD5, ServerPassword: tenants.NewSecret("p")}
	limits.MaxClients, limits.ReserveAfter = 100, time.Second
	conf.Pool = limits
	directory, err := tenants.NewDirectory(conf)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Listeners: []Listener{{Name: "a", Network: "tcp4", Address: "127.0.0.1:0"}}, Directory: directory, Log: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), Loops: 1, Timeouts: Timeouts{Login: time.Second, ServerConnect: time.Second},
		Session: tenants.Timeouts{QueryWait: new(patience)}, Limits: Limits{Clients: 1000, Handshakes: 10}}
	b := &book{changed: make(chan struct{})}
	if budget {
		o.Budget = b
	}
	if b.gate, err = New(o); err != nil {
		t.Fatal(err)
	}
	b.gate.freshFor = time.Hour
	if err := b.gate.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.gate.Close)
	return &bench{t: t, gate: b.gate, tenant: b.gate.tenant("acme")}, b, server
}

// change puts another configuration in force.
func (b *bench) change(f func(*tenants.Tenant)) {
	b.t.Helper()
	conf := *b.conf()
	f(&conf)
	if err := b.gate.opts.Directory.Put(&conf); err != nil {
		b.t.Fatal(err)
	}
}

// opens has a client open a transaction, which keeps its server.
func opens(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write(pgwire.AppendQuery(nil, "begin")); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, conn)
}

func awaitReady(t *testing.T, conn net.Conn) {
	t.Helper()
	for {
		switch typ, body := readMessage(t, conn); typ {
		case pgwire.ErrorResponse:
			t.Fatal(pgwire.ParseError(body))
		case pgwire.ReadyForQuery:
			return
		}
	}
}

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
