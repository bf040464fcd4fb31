// The door: the same rules as for connections, told and counted the same, and nothing left of who goes away.

package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// startupOf is the body of a startup message.
func startupOf(t testing.TB, params ...string) []byte {
	t.Helper()
	var list []pgwire.Param
	for i := 0; i < len(params); i += 2 {
		list = append(list, pgwire.Param{Name: params[i], Value: params[i+1]})
	}
	body, err := pgwire.StartupBody(list)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// proveBySCRAM is a client's side of the conversation, up to its last message.
func proveBySCRAM(conn io.ReadWriter, pw string) error {
	say := func(body []byte) error {
		_, err := conn.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(body)), body...))
		return err
	}
	hear := func() ([]byte, error) {
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil, err
		}
		body := make([]byte, int(head[3])<<8|int(head[4])-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			return nil, err
		}
		if head[0] == pgwire.ErrorResponse {
			return nil, pgwire.ParseError(body)
		}
		return body[4:], nil
	}
	if _, err := hear(); err != nil {
		return err
	}
	c := scram.NewClient(scram.Credentials{Password: pw}, scram.ChannelBinding{}, false, scram.ClientOptions{})
	first := append(append([]byte(scram.Mechanism), 0, 0, 0, 0, byte(len(c.First()))), c.First()...)
	if err := say(first); err != nil {
		return err
	}
	challenge, err := hear()
	if err != nil {
		return err
	}
	final, err := c.Final(challenge)
	if err != nil {
		return err
	}
	return say(final)
}

// proof is how a caller comes by, beside a password that it tells.
type proof func(t testing.TB, pw string) Proof

func tells(_ testing.TB, pw string) Proof { return Password(pw) }

func converses(t testing.TB, pw string) Proof {
	ours, theirs := net.Pipe()
	var client sync.WaitGroup
	client.Go(func() { _ = proveBySCRAM(ours, pw) })
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
		client.Wait()
	})
	return SASL(theirs)
}

// visited is what there is to see of a visit.
type visited struct {
	Told      string // severity, SQLSTATE, message, detail, hint
	Refusals  map[string]int
	Logins    string // of tenants: succeeded, failed, aborted; refused, by reason
	Log       string
	Forgotten bool // nothing of the visit is held
}

var volatile = regexp.MustCompile(`^time=\S+ |client=\S+ |\d+ seconds`)

// endOf is what became of one visit, whose end it waits for.
func (d *door) endOf(told string) visited {
	d.t.Helper()
	o := visited{Told: volatile.ReplaceAllString(told, ""), Refusals: d.refusals(), Forgotten: d.rests()}
	d.gate.Close()
	known := slices.SortedFunc(slices.Values(d.gate.runtimeTenants()), func(a, b *tenant) int { return cmp.Compare(a.id, b.id) })
	for _, tt := range known {
		n := &tt.counters
		o.Logins += fmt.Sprintf("%s: %d %d %d; ", tt.id, n.loginsOK.Load(), n.loginsFailed.Load(), n.loginsAborted.Load())
	}
	for _, id := range slices.Sorted(maps.Keys(d.gate.denials.byID)) {
		for r := range d.gate.denials.byID[id].refused {
			o.Logins += fmt.Sprintf("%s: %s %d; ", id, reason(r), d.gate.denials.byID[id].refused[r].Load())
		}
	}
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "client refused") {
			o.Log += volatile.ReplaceAllString(line, "")
		}
	}
	return o
}

// fill has somebody take a place, for as long as the gate is there.
func (d *door) fill(tenant string, at place) {
	conf, _ := d.directory.Tenant(tenant)
	if err := d.gate.reserve(d.gate.tenant(tenant), conf, at); err != nil {
		d.t.Fatal(err)
	}
	d.taken++
}

// rests waits until nobody else has a place, or is about to get one.
func (d *door) rests() bool {
	g := d.gate
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		admitted, underWay := int64(0), len(g.handshakes)+len(g.proofs)
		for _, tt := range g.runtimeTenants() {
			admitted += tt.admitted.Load()
		}
		g.perClient.with(func(m map[netip.Addr]int) { underWay += len(m) })
		if g.clients.Load() == d.taken && admitted == d.taken && underWay == 0 {
			return true
		}
	}
	return false
}

func spellError(e *pgwire.Error) string {
	return fmt.Sprintf("%s %s %s|%s|%s", e.Severity, e.Code, e.Message, e.Detail, e.Hint)
}

// byTCP makes a visit over a connection, and answers with the error that is told.
func (d *door) byTCP(startup []byte, pw string) (told string) {
	d.visit(&Listener{Name: "plain", Mode: "transaction"}, func(conn net.Conn) {
		_, _ = io.WriteString(conn, packet(pgwire.Version30, string(startup)))
		err := proveBySCRAM(conn, pw)
		for err == nil {
			var head [5]byte
			if _, err = io.ReadFull(conn, head[:]); err != nil {
				break
			}
			body := make([]byte, int(head[3])<<8|int(head[4])-4)
			if _, err = io.ReadFull(conn, body); err == nil && head[0] == pgwire.ErrorResponse {
				err = pgwire.ParseError(body)
			}
		}
		var e *pgwire.Error
		if !errors.As(err, &e) {
			d.t.Errorf("told nothing: %v", err)
			return
		}
		told = spellError(e)
	})
	return told
}

// TestDoorAsTCP: whoever comes through the door is told, counted and logged as on a connection, whatever it is refused for.
func TestDoorAsTCP(t *testing.T) {
	type visit struct {
		name    string
		startup []string
		pw      string
		prepare func(*door)
	}
	app := func(tenant string, more ...string) []string {
		return append([]string{"user", "app." + tenant}, more...)
	}
	visits := []visit{
		{"a wrong password", app("acme"), "wrong", nil},
		{"an unknown user", []string{"user", "nobody.acme"}, "right", nil},
		{"an unknown tenant", app("nowhere"), "right", nil},
		{"a tenant that was removed", app("acme"), "right", func(d *door) { d.directory.Remove("acme") }},
		{"a tenant that was not read yet", app("nowhere"), "right", func(d *door) { d.directory.SetFilling(true) }},
		{"no tenant", []string{"user", "app"}, "right", nil},
		{"no user", []string{"user", ".acme"}, "right", nil},
		{"two tenants", []string{"user", "app", "options", "reference=acme -c reference=picky"}, "right", nil},
		{"an option that is none", app("acme", "options", "-x"), "right", nil},
		{"a user twice", app("acme", "user", "app.picky"), "right", nil},
		{"an address that may not", app("picky"), "right", nil},
		{"without TLS", app("secure"), "right", nil},
		{"after ten guesses", app("guessed"), "right", nil},
		{"after ten guesses everywhere", app("acme"), "right", func(d *door) {
			d.gate.throttle.with(func(th throttle) {
				for i := range netrestrict.DefaultAddressFailures {
					th.Failed(time.Now(), fmt.Sprint("other", i), netip.MustParseAddr("127.0.0.1"))
				}
			})
		}},
		{"without room for the tenant", app("full"), "right", nil},
		{"without room for anybody", app("acme"), "right", func(d *door) { d.gate.admits.Store(0) }},
		{"without room for the user", app("busy"), "right", func(d *door) { d.fill("busy", place{"app", "elsewhere"}) }},
		{"without room in the database", app("busy", "database", "crowded"), "right", func(d *door) { d.fill("busy", place{"other", "crowded"}) }},
		{"another database", app("busy", "database", "secret"), "right", nil},
		{"a parameter that comes too late", app("acme", "session_preload_libraries", "x"), "right", nil},
		{"a tenant that is disabled", app("acme"), "right", func(d *door) { d.gate.consoles.disabled["acme"] = true }},
	}
	for _, c := range visits {
		t.Run(c.name, func(t *testing.T) {
			come := func(told func(d *door) string) visited {
				d := newDoor(t)
				if c.prepare != nil {
					c.prepare(d)
				}
				return d.endOf(told(d))
			}
			want := come(func(d *door) string { return d.byTCP(startupOf(t, c.startup...), c.pw) })
			if want.Told == "" || want.Log == "" || !want.Forgotten {
				t.Fatalf("not refused, or not forgotten: %+v", want)
			}
			for name, by := range map[string]proof{"password": tells, "conversation": converses} {
				got := come(func(d *door) string {
					seat, err := d.gate.Door(Listener{Name: "edge", Mode: "transaction"}).Admit(t.Context(), Caller{
						Client: netip.MustParseAddrPort("[::ffff:127.0.0.1]:40000"), Startup: startupOf(t, c.startup...), Proof: by(t, c.pw)})
					var e *pgwire.Error
					if !errors.As(err, &e) {
						t.Fatalf("%s: %v, %v", name, seat, err)
					}
					if err.Error() != e.Error() {
						t.Errorf("%s: the error says more than is told: %v", name, err)
					}
					return spellError(e)
				})
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-connection +door):\n%s", name, diff)
				}
			}
		})
	}
}

// TestNotReadYet: while the directory is filling, a tenant that is not there may come: its clients are told to try again, however
// often they do, and nothing is held against them. Those who are there are served.
func TestNotReadYet(t *testing.T) {
	d := newDoor(t)
	d.directory.SetFilling(true)
	come := func(user string) error {
		seat, err := d.gate.Door(Listener{Name: "edge", Mode: "transaction"}).Admit(t.Context(), Caller{
			Client: netip.MustParseAddrPort("127.0.0.1:40000"), Startup: startupOf(t, "user", user), Proof: Password("right")})
		if err == nil {
			seat.Leave()
		}
		return err
	}
	for range 3 * netrestrict.DefaultAddressFailures {
		var e *pgwire.Error
		if err := come("app.nowhere"); !errors.As(err, &e) || e.Code != "57P03" {
			t.Fatalf("got %v", err)
		}
	}
	if err := come("app.acme"); err != nil {
		t.Errorf("who is there is refused: %v", err)
	}
	d.directory.SetFilling(false)
	var e *pgwire.Error
	if err := come("app.nowhere"); !errors.As(err, &e) || e.Code != "28P01" {
		t.Errorf("when all is read: %v", err)
	}
}

// TestDoorSession: who proves its password, either way, gets a session on the loop, over a socket of its own.
func TestDoorSession(t *testing.T) {
	for name, by := range map[string]proof{"password": tells, "conversation": converses} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			b := &bench{t: t, gate: d.gate, tenant: d.gate.tenant("acme")}
			server := b.server()
			client := netip.MustParseAddrPort("198.51.100.7:1234")
			mapped := netip.MustParseAddrPort("[::ffff:198.51.100.7]:1234")
			seat, err := d.gate.Door(Listener{Name: "edge", Mode: "transaction"}).Admit(t.Context(), Caller{Client: mapped,
				Startup: startupOf(t, "user", "app", "database", "app", "options", "reference=acme"), Proof: by(t, "right")})
			if err != nil {
				t.Fatal(err)
			}
			defer seat.Leave()
			if n := d.gate.clients.Load(); n != 1 {
				t.Errorf("%d places are taken", n)
			}
			conn, err := seat.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := seat.Open(); err == nil {
				t.Error("the seat is used twice")
			}
			far := &far{conn, b}
			if name == "conversation" {
				if typ, body := readMessage(t, far); typ != pgwire.Authentication || body[3] != 12 {
					t.Fatalf("heard %c %q, want the server's proof", typ, body)
				}
			}
			expect(t, far, pgwire.AppendAuthenticationOk(nil), "AuthenticationOk")
			b.greeted(far)
			for range 2 { // and Leave has nothing to give back
				query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
				if _, err := conn.Write(query); err != nil {
					t.Fatal(err)
				}
				expect(t, server, query, "request")
				if _, err := server.Write(answer); err != nil {
					t.Fatal(err)
				}
				expect(t, far, answer, "answer")
				seat.Leave()
			}
			b.tenant.call(func() {
				if n := len(b.tenant.clients); n != 1 || b.tenant.clients[0].peer.Client != client || b.tenant.clients[0].mode != transactionMode {
					t.Errorf("%d clients: %+v", n, b.tenant.clients)
				}
			})
			conn.Close()
			if !d.rests() {
				t.Error("the place is not given back")
			}
			if n := b.tenant.counters.loginsOK.Load(); n != 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

// TestDoorIsSecure: who nobody could listen to is let in where TLS is required, and the host names the tenant.
func TestDoorIsSecure(t *testing.T) {
	d := newDoor(t)
	d.gate.opts.TenantDomain = "db.test"
	seat, err := d.gate.Door(Listener{}).Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Secure: true, Host: "secure.db.test",
		Startup: startupOf(t, "user", "app"), Proof: Password("right")})
	if err != nil {
		t.Fatal(err)
	}
	seat.Leave()
	seat.Leave()
	if _, err := seat.Open(); err == nil {
		t.Error("a seat that was left is used")
	}
	if !d.rests() {
		t.Error("the place is not given back")
	}
}

// silentTenant is one whose server takes connections and says nothing.
func silentTenant(t *testing.T) func(change func(*tenants.Tenant)) *tenants.Tenant {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return func(change func(*tenants.Tenant)) *tenants.Tenant {
		conf := withPassword("acme", 1, "right")
		conf.Upstream.Port, conf.Upstream.TLS = netip.MustParseAddrPort(ln.Addr().String()).Port(), tenants.TLSDisable
		change(conf)
		return conf
	}
}

// sits has somebody prove a password at the door.
func (g *roleGate) sits(secure bool) *Seat {
	g.t.Helper()
	seat, err := g.door.Admit(g.t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Secure: secure,
		Startup: startupOf(g.t, "user", "app.acme", "database", "db"), Proof: Password("right")})
	if err != nil {
		g.t.Fatal(err)
	}
	return seat
}

// TestChangedWhileSomebodyProves: who has proved a password under a configuration that is changed before its session begins gets none
// that the new one does not allow.
func TestChangedWhileSomebodyProves(t *testing.T) {
	for name, change := range map[string]func(*tenants.Tenant){
		"TLS is required":             func(conf *tenants.Tenant) { conf.RequireTLS = true },
		"the database is not allowed": func(conf *tenants.Tenant) { conf.Databases = []string{"other"} },
		"the user is gone":            func(conf *tenants.Tenant) { conf.Users = map[string]*tenants.User{} },
	} {
		t.Run(name, func(t *testing.T) {
			conf := silentTenant(t)
			g := newRoleGate(t, nil, conf(func(*tenants.Tenant) {}))
			seat := g.sits(false)
			put(t, g.Gate, conf(change))
			conn, err := seat.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if said, err := io.ReadAll(conn); err != nil || !strings.Contains(string(said), "C57P01\x00") {
				t.Errorf("it is told %q, %v", said, err)
			}
		})
	}
}

// TestSecureWithoutTLS: what changes leaves a session alone that nobody could listen to, where TLS is required.
func TestSecureWithoutTLS(t *testing.T) {
	conf := silentTenant(t)
	g := newRoleGate(t, nil, conf(func(conf *tenants.Tenant) { conf.RequireTLS = true }))
	conn, err := g.sits(true).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	put(t, g.Gate, conf(func(conf *tenants.Tenant) { conf.RequireTLS, conf.Pool.Size = true, 2 }))
	if err := g.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sessions, err := g.Sessions("acme", "", 2); err != nil || len(sessions) != 1 {
		t.Errorf("the sessions are %v, %v", sessions, err)
	}
}

// silentAfter is an exchange that answers nothing after a number of reads.
type silentAfter struct {
	net.Conn
	reads int
	deaf  chan struct{} // closed when it is asked for more
}

func (s *silentAfter) Read(p []byte) (int, error) {
	if s.reads--; s.reads == -1 {
		close(s.deaf)
	}
	return s.Conn.Read(p)
}

// TestDoorCallersThatLeave at each step leave nothing behind.
func TestDoorCallersThatLeave(t *testing.T) {
	gone := errors.New("gone")
	caller := func(t *testing.T, p Proof) Caller {
		return Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startupOf(t, "user", "app.acme"), Proof: p}
	}
	quiet := func(t *testing.T, answers int) (Proof, chan struct{}) {
		ours, theirs := net.Pipe()
		deaf := make(chan struct{})
		var client sync.WaitGroup
		t.Cleanup(func() { ours.Close(); theirs.Close(); client.Wait() })
		client.Go(func() { // the conversation of somebody who stops before its second message, or says nothing at all
			hear := func() []byte {
				head := make([]byte, 5)
				if _, err := io.ReadFull(ours, head); err != nil {
					return nil
				}
				body := make([]byte, int(head[3])<<8|int(head[4])-4)
				_, _ = io.ReadFull(ours, body)
				return body
			}
			hear()
			if answers == 0 {
				return
			}
			c := scram.NewClient(scram.Credentials{Password: "right"}, scram.ChannelBinding{}, false, scram.ClientOptions{})
			first := append(append([]byte(scram.Mechanism), 0, 0, 0, 0, byte(len(c.First()))), c.First()...)
			_, _ = ours.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(first)), first...))
			hear()
		})
		return SASL(&silentAfter{theirs, 2 * answers, deaf}), deaf
	}
	now := make(chan struct{})
	close(now)
	for _, c := range []struct {
		name  string
		leave func(t *testing.T, d *door) (p Proof, at <-chan struct{})
		login time.Duration
		want  error
	}{
		{"before it has come", func(*testing.T, *door) (Proof, <-chan struct{}) { return nil, now }, 0, gone},
		{"while it waits for its turn", func(_ *testing.T, d *door) (Proof, <-chan struct{}) {
			for range cap(d.gate.proofs) {
				d.gate.proofs <- struct{}{}
			}
			at := make(chan struct{})
			go func() {
				defer close(at)
				for len(d.gate.handshakes) == 0 {
					time.Sleep(time.Millisecond)
				}
			}()
			return Password("right"), at
		}, 0, gone},
		{"before its first message", func(t *testing.T, _ *door) (Proof, <-chan struct{}) { return quiet(t, 0) }, 0, gone},
		{"before its second", func(t *testing.T, _ *door) (Proof, <-chan struct{}) { return quiet(t, 1) }, 0, gone},
		{"too late for the gate", func(t *testing.T, _ *door) (Proof, <-chan struct{}) { p, _ := quiet(t, 1); return p, nil }, 50 * time.Millisecond, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDoor(t)
			if c.login > 0 {
				d.gate.opts.Timeouts.Login = c.login
			}
			p, at := c.leave(t, d)
			if p == nil {
				p = Password("right")
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var side sync.WaitGroup
			defer side.Wait()
			if at == now {
				cancel(gone)
			} else if at != nil {
				side.Go(func() { <-at; cancel(gone) })
			}
			seat, err := d.gate.Door(Listener{}).Admit(ctx, caller(t, p))
			want := c.want
			if want == gone {
				want = context.Canceled
			}
			if seat != nil || !errors.Is(err, want) {
				t.Errorf("%v, %v; want %v", seat, err, want)
			}
			for range len(d.gate.proofs) {
				<-d.gate.proofs
			}
			if !d.rests() {
				t.Error("something is held")
			}
			if n := d.gate.tenant("acme").counters.loginsFailed.Load(); n != 0 {
				t.Errorf("%d failed logins", n)
			}
		})
	}
	t.Run("after it was let in", func(t *testing.T) {
		d := newDoor(t)
		seat, err := d.gate.Door(Listener{}).Admit(t.Context(), caller(t, Password("right")))
		if err != nil {
			t.Fatal(err)
		}
		seat.Leave()
		if !d.rests() {
			t.Error("the place is not given back")
		}
	})
	t.Run("while it waits for a server", func(t *testing.T) {
		d := newDoor(t)
		seat, err := d.gate.Door(Listener{}).Admit(t.Context(), caller(t, Password("right")))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := seat.Open()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if !d.rests() {
			t.Error("the place is not given back")
		}
	})
	t.Run("when the gate has closed", func(t *testing.T) {
		d := newDoor(t)
		way := d.gate.Door(Listener{})
		seat, err := way.Admit(t.Context(), caller(t, Password("right")))
		if err != nil {
			t.Fatal(err)
		}
		d.gate.Close()
		if conn, err := seat.Open(); !errors.Is(err, ErrGateClosed) {
			t.Errorf("opened %v, %v", conn, err)
		}
		if _, err := way.Admit(t.Context(), caller(t, Password("right"))); !errors.Is(err, errDraining) {
			t.Errorf("let in: %v", err)
		}
		if !d.rests() {
			t.Error("the place is not given back")
		}
	})
}

// TestDoorTurnsAway who is more than there may be, and who is not complete, at once and without a word for the client.
func TestDoorTurnsAway(t *testing.T) {
	d := newDoor(t)
	way := d.gate.Door(Listener{Name: "edge"})
	c := Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startupOf(t, "user", "app.acme"), Proof: Password("right")}
	d.gate.perClient.with(func(m map[netip.Addr]int) { m[c.Client.Addr()] = 5 })
	if _, err := way.Admit(t.Context(), c); !errors.Is(err, ErrHandshakes) {
		t.Errorf("more than its share for an address: %v", err)
	}
	d.gate.perClient.with(func(m map[netip.Addr]int) { delete(m, c.Client.Addr()) })
	for range cap(d.gate.handshakes) {
		d.gate.handshakes <- struct{}{}
	}
	if _, err := way.Admit(t.Context(), c); !errors.Is(err, ErrHandshakes) {
		t.Errorf("more than there may be: %v", err)
	}
	for range cap(d.gate.handshakes) {
		<-d.gate.handshakes
	}
	if got := d.refusals(); got["limit"] != 2 {
		t.Errorf("counted %v", got)
	}
	for name, want := range map[string]struct {
		c   Caller
		err error
	}{
		"no address":  {Caller{Startup: c.Startup, Proof: c.Proof}, ErrCaller},
		"no proof":    {Caller{Client: c.Client, Startup: c.Startup}, ErrCaller},
		"too long":    {Caller{Client: c.Client, Startup: make([]byte, pgwire.MaxStartup+1), Proof: c.Proof}, ErrCaller},
		"replication": {Caller{Client: c.Client, Startup: startupOf(t, "user", "app.acme", "replication", "database"), Proof: c.Proof}, ErrReplication},
	} {
		if _, err := way.Admit(t.Context(), want.c); !errors.Is(err, want.err) {
			t.Errorf("%s: %v, want %v", name, err, want.err)
		}
	}
	if !d.rests() {
		t.Error("something is held")
	}
	if said := fmt.Sprintf("%v %+v %#v", c, c, c.Proof); strings.Contains(said, "right") {
		t.Errorf("the password is printed: %s", said)
	}
}

// TestDoorPasswords that are nobody's.
func TestDoorPasswords(t *testing.T) {
	d := newDoor(t)
	for _, pw := range []string{"", "right\x00", "righ", "rightt", strings.Repeat("right", 1000)} {
		_, err := d.gate.Door(Listener{}).Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startupOf(t, "user", "app.acme"), Proof: Password(pw)})
		var e *pgwire.Error
		if !errors.As(err, &e) || e.Code != "28P01" {
			t.Errorf("%.20q: %v", pw, err)
		}
	}
	if n := d.gate.tenant("acme").counters.loginsFailed.Load(); n != 5 {
		t.Errorf("%d failed logins", n)
	}

	// Nor is one that happens to fit a mock.
	fits, err := scram.NewVerifier("right", scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{gate: d.gate, route: tenants.Route{Tenant: "acme", User: "ghost"}, startup: new(pgwire.Startup)}
	v.peer.Client = netip.MustParseAddrPort("192.0.2.2:1")
	for genuine, want := range map[bool]bool{true: true, false: false} {
		if key, _, err := Password("right").prove(t.Context(), v, fits, genuine); (err == nil) != want || key.Matches(fits) != want {
			t.Errorf("genuine %v: %v", genuine, err)
		}
	}
}

// TestDoorGuesses: however many tell a password at the same time, an address has no more guesses than the throttle allows, and no
// more are hashed at a time than the process can spare.
func TestDoorGuesses(t *testing.T) {
	const callers = 5 * netrestrict.DefaultTenantFailures
	d := newDoor(t)
	d.gate.handshakes = make(chan struct{}, callers)
	d.gate.room.Handshakes = 2 * callers
	way := d.gate.Door(Listener{})
	startup := startupOf(t, "user", "app.acme")
	var all sync.WaitGroup
	var guessed, refused atomic.Int64
	for range callers {
		all.Go(func() {
			_, err := way.Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startup, Proof: Password("wrong")})
			var e *pgwire.Error
			switch {
			case !errors.As(err, &e):
				t.Errorf("got %v", err)
			case e.Code == "28P01":
				guessed.Add(1)
			case e.Code == "53400":
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if guessed.Load() != netrestrict.DefaultTenantFailures || refused.Load() != callers-netrestrict.DefaultTenantFailures {
		t.Errorf("%d guesses and %d refusals, want %d and the rest", guessed.Load(), refused.Load(), netrestrict.DefaultTenantFailures)
	}
}

// TestDoorHashesOutsideTheLock: nobody else's login waits while a password is hashed, however long that takes, and whoever has
// used up its guesses while it waited for its turn is not hashed for.
func TestDoorHashesOutsideTheLock(t *testing.T) {
	d := newDoor(t)
	address := netip.MustParseAddrPort("192.0.2.1:1")
	for range cap(d.gate.proofs) {
		d.gate.proofs <- struct{}{}
	}
	v := &visitor{gate: d.gate, route: tenants.Route{Tenant: "acme", User: "app"}, startup: new(pgwire.Startup)}
	v.peer.Client = address
	slow := scram.Mock([]byte("secret"), "acme", "app", scram.MaxIterations)
	var all sync.WaitGroup
	all.Go(func() {
		if _, _, err := Password("wrong").prove(t.Context(), v, slow, true); err == nil {
			t.Error("let in")
		}
	})
	<-d.gate.proofs // its turn
	free := 0
	for end := time.Now().Add(time.Minute); free < 10 && time.Now().Before(end); {
		before := len(d.gate.proofs)
		if before == cap(d.gate.proofs) && d.gate.throttle.mu.TryLock() {
			d.gate.throttle.mu.Unlock()
			if len(d.gate.proofs) == before {
				free++
			}
		}
		time.Sleep(time.Millisecond)
	}
	all.Wait()
	if free < 10 {
		t.Errorf("the throttle was free %d times while a password was hashed", free)
	}
	d.gate.throttle.with(func(th throttle) {
		for range netrestrict.DefaultTenantFailures {
			th.Failed(time.Now(), "acme", address.Addr())
		}
	})
	began := time.Now()
	var e *pgwire.Error
	if _, err := (password{"wrong"}).derive(t.Context(), v, scram.Verifier{}); !errors.As(err, &e) || e.Code != "53400" {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// TestDoorGhostsCostAsMuch: a password of nobody's is hashed, too, as often as one of somebody's.
func TestDoorGhostsCostAsMuch(t *testing.T) {
	d := newDoor(t)
	way := d.gate.Door(Listener{})
	took := make(map[string][]time.Duration)
	users := []string{"app.acme", "nobody.acme", "app.nowhere"}
	for i := range 30 {
		for _, user := range users {
			began := time.Now()
			_, err := way.Admit(t.Context(), Caller{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 1), Startup: startupOf(t, "user", user), Proof: Password("wrong")})
			took[user] = append(took[user], time.Since(began))
			if err == nil {
				t.Fatal("let in")
			}
		}
	}
	median := func(user string) time.Duration { return slices.Sorted(slices.Values(took[user]))[15] }
	for _, user := range users[1:] {
		if a, b := median(user), median(users[0]); a > 3*b || b > 3*a {
			t.Errorf("%s takes %v, %s takes %v", user, a, users[0], b)
		}
	}
}
