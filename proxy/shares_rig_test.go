// What tests of shared limits need: a budget that is filled by hand, and servers that are real sockets, count, and refuse whoever is one too many.

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
	if _, clients := tenants.CutClients(tenant); clients {
		return // see commons_test.go
	}
	b.claims = append(b.claims, claimed{tenant, number, demands})
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) MayDial() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.frozen
}

func (b *book) MaxNodes() int { return 1 }

func (b *book) Away() bool { return false }

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
	limits.MaxClients, limits.ReserveAfter = 1000, time.Second
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
