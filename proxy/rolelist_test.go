// Tests of asking for roles: what servers may answer, what follows, and what does not.

package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// rolePassword is that of the role that lists roles.
const rolePassword = "c4nary-asker"

// roleServer plays a tenant's server: it logs in who asks, and answers with what it has.
type roleServer struct {
	t      *testing.T
	ln     net.Listener
	asked  atomic.Int32
	answer atomic.Pointer[[]byte]
}

func newRoleServer(t *testing.T) *roleServer {
	t.Helper()
	s := &roleServer{t: t}
	s.start("127.0.0.1:0")
	return s
}

func (s *roleServer) start(address string) {
	s.t.Helper()
	var err error
	if s.ln, err = net.Listen("tcp4", address); err != nil {
		s.t.Fatal(err)
	}
	var all sync.WaitGroup
	ln := s.ln
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(s.t.Context(), func() { c.Close() })()
				s.serve(c)
			})
		}
	})
	s.t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
}

func (s *roleServer) serve(c net.Conn) {
	read := func() []byte {
		var head [pgwire.HeaderSize]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return nil
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		_, _ = io.ReadFull(c, body)
		return body
	}
	v, err := scram.NewVerifier(rolePassword, 16, []byte("pepper"))
	if err != nil {
		panic(err)
	}
	server, err := scram.NewServer(v, true, scram.ChannelBinding{})
	if err != nil {
		panic(err)
	}
	_, _, _ = pgwire.ReadPacket(c)
	_, _ = c.Write(pgwire.AppendSASL(nil, server.Mechanisms()))
	mechanism, initial, err := parseInitial(read())
	if err != nil {
		return
	}
	challenge, err := server.First(mechanism, initial)
	if err != nil {
		return
	}
	_, _ = c.Write(pgwire.AppendSASLContinue(nil, challenge))
	final, _, err := server.Final(read())
	if err != nil {
		return
	}
	_, _ = c.Write(pgwire.AppendReady(pgwire.AppendAuthenticationOk(pgwire.AppendSASLFinal(nil, final)), 'I'))
	if q := read(); string(bytes.TrimSuffix(q, []byte{0})) != roles.Query {
		if len(q) > 0 {
			s.t.Errorf("asked %q", q)
		}
		return
	}
	s.asked.Add(1)
	if answer := s.answer.Load(); answer != nil {
		_, _ = c.Write(*answer)
	}
	_, _ = io.Copy(io.Discard, c)
}

// says has the server answer with bytes from now on.
func (s *roleServer) says(b []byte) { s.answer.Store(&b) }

// lists has it answer with rows.
func (s *roleServer) lists(rows ...[]string) { s.says(roleRows(rows...)) }

func roleRows(rows ...[]string) (b []byte) {
	for _, r := range rows {
		var values [][]byte
		for _, v := range r {
			if v == "NULL" {
				values = append(values, nil)
			} else {
				values = append(values, []byte(v))
			}
		}
		b, _ = (&pgproto3.DataRow{Values: values}).Encode(b)
	}
	b, _ = (&pgproto3.CommandComplete{CommandTag: []byte("SELECT")}).Encode(b)
	return pgwire.AppendReady(b, 'I')
}

// roleRow is one of a role that may log in with a password, which is its verifier's salt as well.
func roleRow(t *testing.T, name, password string) []string {
	t.Helper()
	v, err := scram.NewVerifier(password, 16, []byte("salt of "+password))
	if err != nil {
		t.Fatal(err)
	}
	return []string{name, v.Encode(), "NULL", "t", "-1"}
}

// tenant is one of the server's, with a listed user.
func (s *roleServer) tenant(id string) *tenants.Tenant {
	conf := withPassword(id, 5, "listed")
	at := netip.MustParseAddrPort(s.ln.Addr().String())
	conf.Upstream = tenants.Upstream{Host: at.Addr().String(), Port: at.Port(), TLS: tenants.TLSDisable}
	conf.AuthQuery = &tenants.AuthQuery{User: "asker", Password: tenants.NewSecret(rolePassword)}
	return conf
}

// roleGate is a gate, its door and its log.
type roleGate struct {
	*Gate
	t    *testing.T
	door *Door
	log  *lockedLog
}

type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newRoleGate(t *testing.T, store RoleStore, all ...*tenants.Tenant) *roleGate {
	t.Helper()
	d, err := tenants.NewDirectory(all...)
	if err != nil {
		t.Fatal(err)
	}
	log := new(lockedLog)
	g, err := New(Options{Directory: d, Log: slog.New(slog.NewTextHandler(log, nil)), Registerer: prometheus.NewRegistry(), Loops: 1, Roles: store,
		Timeouts: Timeouts{Login: 30 * time.Second, ServerConnect: 30 * time.Second}, Limits: Limits{Clients: 1000, Handshakes: 1000}, Session: tenants.Timeouts{QueryWait: new(time.Minute)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		if text := log.String(); strings.Contains(text, "c4nary") || strings.Contains(text, "SCRAM-SHA-256$") {
			t.Errorf("a secret is in the log:\n%s", text)
		}
	})
	return &roleGate{g, t, g.Door(Listener{Name: "d", Mode: "session"}), log}
}

// login tries a password, from an address.
func (g *roleGate) login(from, role, password string) error {
	startup := append([]byte("user\x00"+role+".acme\x00"), 0)
	if strings.Contains(role, ".") {
		startup = append([]byte("user\x00"+role+"\x00"), 0)
	}
	seat, err := g.door.Admit(g.t.Context(), Caller{Client: netip.AddrPortFrom(netip.MustParseAddr(from), 1), Startup: startup, Proof: Password(password)})
	if err == nil {
		seat.Leave()
	}
	return err
}

// wants fails unless a login ends with an SQLSTATE; "": it succeeds.
func (g *roleGate) wants(from, role, password, code string) {
	g.t.Helper()
	err := g.login(from, role, password)
	var e *pgwire.Error
	if got := ""; errors.As(err, &e) {
		if got = e.Code; got != code {
			g.t.Fatalf("%s with %q: %v, want %q", role, password, err, code)
		}
	} else if err != nil || code != "" {
		g.t.Fatalf("%s with %q: %v, want %q", role, password, err, code)
	}
}

const somebody, somebodyElse = "198.51.100.7", "198.51.100.8"

// TestRolesAreListed: with the first login of all, at once, whomever it names; and learned anew from one that fails.
func TestRolesAreListed(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "first"), roleRow(t, "app", "theirs"), roleRow(t, "asker", rolePassword))
	g := newRoleGate(t, nil, s.tenant("acme"))
	if s.asked.Load() != 0 {
		t.Error("asked before anybody came")
	}
	g.wants(somebody, "late", "first", "")
	g.wants(somebody, "app", "listed", "") // who is listed wins
	g.wants(somebody, "app", "theirs", "28P01")
	g.wants(somebody, "asker", rolePassword, "28P01")
	g.wants(somebody, "late", "first", "")
	asked := s.asked.Load()

	s.lists(roleRow(t, "late", "second"), roleRow(t, "young", "pw"))
	g.wants(somebody, "late", "second", "28P01")
	g.wants(somebody, "late", "second", "")
	g.wants(somebody, "late", "first", "28P01")
	g.wants(somebody, "young", "pw", "")
	if n := s.asked.Load() - asked; n < 1 || n > 4 {
		t.Errorf("asked %d times", n)
	}
	if conf, _ := g.conf("acme"); conf.Users["late"] == nil || conf.Users["young"] == nil || conf.Users["asker"] != nil {
		t.Errorf("in force are %v", conf.Users)
	}
	if said, _ := g.opts.Directory.Tenant("acme"); len(said.Users) != 1 {
		t.Error("the directory's own tenant was changed")
	}
	// Without auth_query there are no roles any more, and with it again none that nobody has listed since.
	plain := *s.tenant("acme")
	plain.AuthQuery = nil
	put(t, g.Gate, &plain)
	g.wants(somebody, "young", "pw", "28P01")
	if g.roles.of("acme") != nil {
		t.Error("there is a book for nothing")
	}
}

// TestFailuresThatMayBeRight: what a new list proves right is not held against anybody, and nothing else is forgiven: neither other
// names nor more than there were.
func TestFailuresThatMayBeRight(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "first"), roleRow(t, "boss", "boss"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.wants(somebody, "late", "first", "")
	s.says(nil) // and nothing more, for now
	g.roles.patience.known = time.Millisecond
	const most = netrestrict.DefaultTenantFailures
	for range most {
		if err := g.login(somebody, "late", "second"); err == nil {
			t.Fatal("it is not known yet")
		}
	}
	g.wants(somebody, "late", "second", "53400")
	// Its owner guesses at others meanwhile, and changes his own password again and again.
	for range most {
		_ = g.login(somebodyElse, "boss", "guess")
	}
	g.wants(somebodyElse, "boss", "guess", "53400")
	s.lists(roleRow(t, "late", "second"), roleRow(t, "boss", "boss"))
	g.dropListing("acme")
	soon(t, "the failures are forgiven", func() bool { return g.login(somebody, "late", "second") == nil })
	g.wants(somebodyElse, "boss", "boss", "53400")

	// A failure that was judged by what is not in force any more does not count at all.
	v := &visitor{gate: g.Gate, route: tenants.Route{Tenant: "acme", User: "late"}, peer: proxyproto.Direct(netip.MustParseAddrPort(somebody + ":1"))}
	conf, _ := g.conf("acme")
	old, err := scram.ParseVerifier(roleRow(t, "late", "first")[1])
	if err != nil {
		t.Fatal(err)
	}
	v.trial = trial{conf, old}
	if g.doubted(v) {
		t.Error("a failure by the verifier of before counts")
	}
	v.trial.verifier, _ = scram.ParseVerifier(roleRow(t, "late", "second")[1])
	if !g.doubted(v) {
		t.Error("one by the present verifier does not count")
	}
}

// TestNobodyIsKnownOfAnOldList: what a server refuses to say for too long counts no more, and a failed login counts as much for a role
// of then as for nobody.
func TestNobodyIsKnownOfAnOldList(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "pw"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.wants(somebody, "late", "pw", "")
	s.says((&pgwire.Error{Severity: "ERROR", Code: "42501", Message: "permission denied"}).Append(nil))
	b := g.roles.of("acme")
	b.mu.Lock()
	b.schedule.End(time.Now().Add(-2*roles.ExpireAfter), roles.Refused)
	b.mu.Unlock()
	for role, from := range map[string]string{"late": somebody, "nobody": somebodyElse} {
		for range netrestrict.DefaultTenantFailures {
			g.wants(from, role, "pw", "28P01")
		}
		g.wants(from, role, "pw", "53400")
	}
}

// dropListing ends the listing under way, and has the next one begin at once.
func (g *roleGate) dropListing(id string) {
	b := g.roles.of(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut != nil {
		b.void = true
		b.cut()
	}
	b.schedule.Doubt()
}

// TestServersThatDoNotList: whatever a server answers, what was known holds, the log says why, and other tenants notice nothing.
func TestServersThatDoNotList(t *testing.T) {
	row := func(changed ...string) []string { return changed }
	good := roleRow(t, "late", "pw")
	for name, answer := range map[string][]byte{
		"an error":            (&pgwire.Error{Severity: "ERROR", Code: "42883", Message: "function postern.login_roles() does not exist"}).Append(nil),
		"garbage":             []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"too many roles":      roleRows(manyRoles(roles.MaxRoles+1, "NULL")...),
		"endless rows":        roleRows(manyRoles(roles.MaxRoles-1, strings.Repeat("y", roles.MaxBytes/roles.MaxRoles))...),
		"a giant value":       roleRows(row("x", strings.Repeat("y", 1<<17), "NULL", "t", "-1")),
		"wrong types":         roleRows(row("x", good[1], "tomorrow", "t", "-1")),
		"a column too few":    roleRows(good[:4]),
		"no columns":          roleRows(row()),
		"the same role twice": roleRows(good, good),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, other := newRoleServer(t), newRoleServer(t)
			s.lists(good)
			other.lists(good)
			globex := other.tenant("globex")
			g := newRoleGate(t, nil, s.tenant("acme"), globex)
			g.wants(somebody, "late", "pw", "")
			s.says(answer)
			g.wants(somebodyElse, "nobody", "pw", "28P01")
			soon(t, "the log says so", func() bool { return strings.Contains(g.log.String(), "the server's roles are not listed") })
			g.wants(somebody, "late", "pw", "")
			g.wants(somebody, "late.globex", "pw", "")
		})
	}
}

func manyRoles(n int, password string) (all [][]string) {
	for i := range n {
		all = append(all, []string{fmt.Sprint("role", i), password, "NULL", "t", "-1"})
	}
	return all
}

// TestServersThatAreSlow: logins wait for so long and no longer, and who is listed goes on.
func TestServersThatAreSlow(t *testing.T) {
	s := newRoleServer(t)
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.roles.patience.first = 50 * time.Millisecond
	g.wants(somebody, "app", "listed", "")
	g.wants(somebody, "late", "pw", "28P01")
	if got := s.asked.Load(); got != 1 {
		t.Errorf("asked %d times at a time", got)
	}
	s.ln.Close()
	g.dropListing("acme")
	g.wants(somebody, "app", "listed", "")
}

// TestOtherServersRoles: while a tenant is asked, it moves. What the old server says then is not taken.
func TestOtherServersRoles(t *testing.T) {
	s, other := newRoleServer(t), newRoleServer(t)
	other.lists(roleRow(t, "theirs", "pw"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	first := make(chan error, 1)
	go func() { first <- g.login(somebody, "theirs", "pw") }()
	soon(t, "the first server is asked", func() bool { return s.asked.Load() == 1 })
	put(t, g.Gate, other.tenant("acme"))
	if err := <-first; err != nil {
		t.Errorf("who has waited meanwhile: %v", err)
	}
	g.wants(somebody, "theirs", "pw", "")
	other.lists()
	put(t, g.Gate, s.tenant("acme"))
	g.wants(somebody, "theirs", "pw", "") // what is known holds until there is something new
	s.lists()
	g.dropListing("acme")
	soon(t, "the roles of before are gone", func() bool { return g.login(somebodyElse, "theirs", "pw") != nil })
}
