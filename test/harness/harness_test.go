// Each part of the harness against the real thing.

package harness

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgproto3/v2"
	"github.com/pires/go-proxyproto"

	"github.com/postern/postern/machines/local"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

var (
	client = netip.MustParseAddrPort("203.0.113.9:4711")
	server = netip.MustParseAddrPort("192.0.2.1:5432")
)

func TestHeadersAreReadByTheLibrary(t *testing.T) {
	client6, server6 := netip.MustParseAddrPort("[2001:db8::9]:1"), netip.MustParseAddrPort("[2001:db8::1]:65535")
	for name, tt := range map[string]struct {
		header   []byte
		src, dst netip.AddrPort
	}{
		"v1, IPv4": {V1(client, server), client, server},
		"v1, IPv6": {V1(client6, server6), client6, server6},
		"v2, IPv4": {V2(client, server, TLV{0x02, []byte("acme.db.test")}), client, server},
		"v2, IPv6": {V2(client6, server6), client6, server6},
	} {
		t.Run(name, func(t *testing.T) {
			in := bufio.NewReader(bytes.NewReader(append(tt.header, "rest"...)))
			h, err := proxyproto.Read(in)
			if err != nil {
				t.Fatal(err)
			}
			src, dst, _ := h.TCPAddrs()
			if src.AddrPort() != tt.src || dst.AddrPort() != tt.dst {
				t.Errorf("got %v to %v", src, dst)
			}
			if rest, _ := io.ReadAll(in); string(rest) != "rest" {
				t.Errorf("left over: %q", rest)
			}
		})
	}
}

func TestCertificatesAreTrustedForTheirNamesAlone(t *testing.T) {
	a := Certificates(t)
	p := a.Issue(t, "db.test", "127.0.0.1")
	if _, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(p.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"db.test": true, "127.0.0.1": true, "other.test": false} {
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Pool}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: Certificates(t).Pool}); err == nil {
		t.Error("trusted by a stranger")
	}
}

// echo answers each connection with its own input until the test ends, and sends each one's whole input to got.
func echo(t *testing.T) (address string, got <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	all := make(chan string, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var b bytes.Buffer
				_, _ = io.Copy(c, io.TeeReader(c, &b))
				all <- b.String()
			}()
		}
	}()
	return l.Addr().String(), all
}

func TestRelayBreaksWhereItIsTold(t *testing.T) {
	const said = "0123456789"
	for name, tt := range map[string]struct {
		faults Faults
		hears  string // at least so much, and no more unless the end is a reset
		err    error
	}{
		"nothing":                {Faults{}, said, nil},
		"sliced":                 {Faults{ToTarget: Fault{SliceUntil: 5}, ToClient: Fault{SliceUntil: 99}}, said, nil},
		"cut towards the client": {Faults{ToClient: Fault{CutAfter: 4}}, said[:4], nil},
		"reset":                  {Faults{ToTarget: Fault{ResetAfter: 4}}, "", syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			target, _ := echo(t)
			s := Dial(t, NewRelay(t, target, tt.faults).Addr())
			s.Raw([]byte(said))
			if tt.err == nil {
				_ = s.Conn().(*net.TCPConn).CloseWrite()
			}
			_ = s.Conn().SetReadDeadline(time.Now().Add(Patience))
			heard, err := io.ReadAll(s.Conn())
			if !errors.Is(err, tt.err) || tt.err == nil && string(heard) != tt.hears {
				t.Errorf("heard %q, %v", heard, err)
			}
		})
	}
}

func TestSlicedBytesArriveOneByOne(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := Dial(t, NewRelay(t, l.Addr().String(), Faults{ToTarget: Fault{SliceUntil: 1, StallAfter: 1}}).Addr())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Raw([]byte("abc"))
	b := make([]byte, 3)
	_ = c.SetReadDeadline(time.Now().Add(Patience))
	if n, err := c.Read(b); n != 1 || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

func TestRelayStallsAndResumes(t *testing.T) {
	target, _ := echo(t)
	r := NewRelay(t, target, Faults{ToTarget: Fault{StallAfter: 4}})
	s := Dial(t, r.Addr())
	s.Raw([]byte("0123456789"))
	if got := s.bytes(4); string(got) != "0123" {
		t.Errorf("got %q", got)
	}
	_ = s.Conn().SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := s.Conn().Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while stalled: %d, %v", n, err)
	}
	r.Resume()
	if got := s.bytes(6); string(got) != "456789" {
		t.Errorf("got %q", got)
	}
	r.Cut()
	s.ExpectClosed()
}

// TestRelayDelays: what is sent comes late, all of it and its end, and the first of it later still. Whatever is on its way
// together arrives together.
func TestRelayDelays(t *testing.T) {
	target, _ := echo(t)
	const there, back = 30 * time.Millisecond, 20 * time.Millisecond
	start := time.Now()
	s := Dial(t, NewRelay(t, target, Faults{ToTarget: Fault{Delay: there}, ToClient: Fault{Delay: back}}).Addr())
	took := func(what string, least time.Duration) {
		t.Helper()
		if d := time.Since(start); d < least {
			t.Errorf("%s: %v, want no less than %v", what, d, least)
		}
		start = time.Now()
	}
	s.Raw([]byte("x"))
	s.bytes(1)
	took("the connection and a round trip", 2*(there+back))
	const many = 100_000
	for range many / 1000 {
		s.Raw(make([]byte, 1000))
	}
	s.bytes(many)
	took("a hundred pieces", there+back)
	_ = s.Conn().(*net.TCPConn).CloseWrite()
	s.ExpectClosed()
	took("the end", there+back)
}

// TestRelayLosesPackets: with some lost everything arrives; with all lost nothing does, and nobody can connect until it ends.
func TestRelayLosesPackets(t *testing.T) {
	target, _ := echo(t)
	r := NewRelay(t, target, Faults{})
	r.Lose(t, 10)
	s := Dial(t, r.Addr())
	for range 20 {
		s.Raw(make([]byte, 1000))
		s.bytes(1000)
	}
	r.Lose(t, 100)
	s.Raw([]byte("x"))
	_ = s.Conn().SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := s.Conn().Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v: want to hear nothing", n, err)
	}
	if conn, err := net.DialTimeout("tcp", r.Addr(), 300*time.Millisecond); err == nil {
		conn.Close()
		t.Error("a connection through a network that is not there")
	}
	r.Lose(t, 0)
	s.bytes(1)
	Dial(t, r.Addr()).Raw([]byte("x"))
}

func TestProxyRelaySendsTheHeaderFirst(t *testing.T) {
	target, got := echo(t)
	var from netip.AddrPort
	s := Dial(t, ProxyRelay(t, target, func(c netip.AddrPort) []byte { from = c; return V1(client, server) }))
	s.Raw([]byte("x"))
	want := string(V1(client, server)) + "x"
	if heard := s.bytes(len(want)); string(heard) != want {
		t.Errorf("heard %q", heard)
	}
	if own := s.Conn().LocalAddr().(*net.TCPAddr).AddrPort(); from != own {
		t.Errorf("header made for %v, not %v", from, own)
	}
	s.Close()
	if all := <-got; all != want {
		t.Errorf("got %q", all)
	}
}

func TestScriptTalksToPostgres(t *testing.T) {
	a := Certificates(t)
	p := a.Issue(t, "127.0.0.1")
	c := Postgres(t, local.Options{CertFile: p.CertFile, KeyFile: p.KeyFile})
	s := Dial(t, c.Addr())
	if answer := s.SSLRequest(); answer != 'S' {
		t.Fatalf("SSLRequest: %q", answer)
	}
	s.StartTLS(&tls.Config{RootCAs: a.Pool, ServerName: "127.0.0.1"})
	s.Login(App, AppPassword, "postgres")
	s.Send(&pgproto3.Query{String: "select 1"})
	if got := s.Until('Z'); got != "TDCZ" {
		t.Errorf("answer %s", got)
	}
	s.Send(&pgproto3.Query{String: "nonsense"})
	s.ExpectError("42601")
	s.Expect('Z')
	s.Send(&pgproto3.Terminate{})
	s.ExpectClosed()

	s = Dial(t, c.Addr())
	s.Startup(Protocol30, map[string]string{"user": "nobody", "database": "postgres"})
	s.Expect('R')
	s.Raw([]byte("p\x00\x00\x00\x04")) // no mechanism
	s.ExpectError("08P01")
}

func TestPostgres18SpeaksProtocol32WithPsqlOnItsLibpq(t *testing.T) {
	c := Postgres18(t)
	s := Dial(t, c.Addr())
	s.Startup(Protocol32, map[string]string{"user": App, "database": "postgres"})
	s.Password(AppPassword)
	var key []byte
	for kind, body := s.ReadMessage(); kind != 'Z'; kind, body = s.ReadMessage() {
		if kind == 'K' {
			key = body
		}
	}
	if len(key) != 4+32 {
		t.Errorf("BackendKeyData of %d bytes: protocol 3.2 was not spoken", len(key))
	}
	_, port, _ := net.SplitHostPort(c.Addr())
	cmd := exec.Command(Program(t, "psql"), "-XAtc", "show server_version_num", "host=127.0.0.1 port="+port+" user=app dbname=postgres max_protocol_version=3.2")
	cmd.Env = append(append(os.Environ(), "PGPASSWORD="+AppPassword), LibpqEnv(t)...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "18") {
		t.Errorf("psql: %v: %s", err, out)
	}
}

func TestGate(t *testing.T) {
	g := Postern(t, GateConfig{})
	s := Dial(t, g.Addr(t, Transaction+Proxied), V2(client, server)...)
	s.Login("app.acme", AppPassword, "")
	s.Send(&pgproto3.Query{String: "select 1"})
	if got := s.Until('Z'); got != "TDCZ" {
		t.Errorf("answer %s", got)
	}
	if n := g.Metric(t, "postern_logins_total", map[string]string{"tenant": "acme", "result": "ok"}); n != 1 {
		t.Errorf("%v logins", n)
	}
	if n := g.Metric(t, "postern_logins_total", map[string]string{"tenant": "nobody"}); n != 0 {
		t.Errorf("%v logins of nobody", n)
	}
	if g.Goroutines(t) < 2 || g.FDs(t) < 8 || g.RSS(t) < 1<<20 {
		t.Errorf("%d goroutines, %d descriptors, %d bytes", g.Goroutines(t), g.FDs(t), g.RSS(t))
	}
	c := Postgres(t)
	g.WriteTenants(t, Acme(t, c, "postgres"), Map{"id": "globex", "upstream": Map{"host": "127.0.0.1", "port": c.Port(), "tls": "disable"},
		"users": []Map{{"name": App, "verifier": Verifier(t, c, App)}}})
	g.Reload(t)
	other := Dial(t, g.Addr(t, Session))
	other.Login("app.globex", AppPassword, "postgres")
	if status, _ := g.Admin(t, "GET", "/healthz", nil); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
	if len(g.Log().Find("listening", Map{"listener": Session})) != 1 || g.Log().Contains(AppPassword) {
		t.Error("log:", g.Log())
	}
	if code := g.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestLogFindsByAttributes(t *testing.T) {
	l := newLog()
	_, _ = io.WriteString(l, `{"msg":"a","n":1}`+"\nnot JSON\n"+`{"msg":"a","n":2}`+"\n"+`{"msg":"half"`)
	if diff := cmp.Diff([]Map{{"msg": "a", "n": 2.0}}, l.Find("a", Map{"n": 2})); diff != "" {
		t.Error(diff)
	}
	if len(l.Entries()) != 2 {
		t.Errorf("%d entries", len(l.Entries()))
	}
}

func TestPlainGateShowsItsPeak(t *testing.T) {
	g := Postern(t, GateConfig{Plain: true})
	// The peak is read last: a gate that has just started is still growing. And the kernel counts each processor's pages for
	// itself, and adds them up now and then: the two may be out by some.
	const uncounted = 4 << 20
	if now, peak := g.RSS(t), g.PeakRSS(t); peak < now-uncounted || peak > 16*now {
		t.Errorf("a peak of %d bytes, and %d of a moment before", peak, now)
	}
	g.WatchPeakRSS(t)
	before := g.PeakRSS(t)
	// Each holds a session and a read-ahead buffer until it is gone. Some of that may find room in what is resident already.
	for range 300 {
		Dial(t, g.Addr(t, Session))
	}
	Eventually(t, Patience, "the peak is higher with 300 clients", func() bool { return g.PeakRSS(t) >= before+1<<20 })
	out, err := exec.Command("go", "version", "-m", PlainBinary(t)).Output()
	if err != nil || strings.Contains(string(out), "-race=true") {
		t.Errorf("built with the race detector, or %v", err)
	}
}

func TestDescriptorsMayBeOpen(t *testing.T) {
	const many = 1500
	if n := Descriptors(t, many); n != many {
		t.Fatalf("only %d", n)
	}
	out, err := exec.Command("sh", "-c", "ulimit -n").Output()
	if n, wrong := strconv.Atoi(strings.TrimSpace(string(out))); n < many {
		t.Errorf("a process of this one may open %q, %v, %v", out, wrong, err)
	}
}
