// What tests of roles have: a server that lists them, and a gate whose logins are tried.

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

	"github.com/postern/postern/proxy/pgwire"
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
	if _, startup, _ := pgwire.ReadPacket(c); !bytes.Contains(startup, []byte("\x00asker\x00")) {
		_, _ = io.Copy(io.Discard, c) // whoever else logs in waits
		return
	}
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

func manyRoles(n int, password string) (all [][]string) {
	for i := range n {
		all = append(all, []string{fmt.Sprint("role", i), password, "NULL", "t", "-1"})
	}
	return all
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
	b.schedule.Doubt(roles.Familiar)
}

const somebody, somebodyElse = "198.51.100.7", "198.51.100.8"
