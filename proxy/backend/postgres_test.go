// Logins to a real PostgreSQL, by every method, in every TLS mode.

package backend

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// oddPasswords are some that must be prepared as Postgres prepares them, which hashes them itself here.
var oddPasswords = []string{"ümläut", "u\u0308", "ﬁ ligature", "x\u00a0y", "x\u200by", "a\u00adb", "🐘", "tab\there", "\u00ad", "\u0627\u0031", "Ⅳ"}

// postgres is a running cluster.
type postgres struct {
	t    *testing.T
	port uint16
	ca   authority
}

// startPostgres makes a cluster with one role per authentication method. Postgres does not run as
// root, so under root it runs as the system's user postgres.
func startPostgres(t *testing.T, key *scram.Verifier) postgres {
	t.Helper()
	bin, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bin) == 0 {
		t.Fatal("these tests need PostgreSQL's server programs below /usr/lib/postgresql")
	}
	dir, err := os.MkdirTemp("", "backend")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	attr, uid, gid := &syscall.SysProcAttr{}, os.Getuid(), os.Getgid()
	if uid == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	own := func(path string) {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	own(dir)
	data := filepath.Join(dir, "data")
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin[len(bin)-1], name), args...)
		cmd.SysProcAttr, cmd.Dir = attr, dir
		cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
		return cmd
	}
	if out, err := command("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}

	p := postgres{t: t, ca: newAuthority(t)}
	cert, privateKey := pemFiles(t, p.ca.issue(t, "db.test", time.Now().Add(time.Hour)))
	for name, content := range map[string][]byte{
		"server.crt":  cert,
		"server.key":  privateKey,
		"clients.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.cert.Raw}),
		"pg_hba.conf": []byte("hostssl all certy all cert\nhostssl all bothy all scram-sha-256 clientcert=verify-full\nhost all trusty all trust\nhost all md5y all md5\nhost all plainy all password\n" +
			"host all all all scram-sha-256\n"),
	} {
		path := filepath.Join(data, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		own(path)
	}

	// Single-user mode takes one command a line, and needs no server to connect to.
	sql := fmt.Sprintf("CREATE ROLE app LOGIN PASSWORD '%[1]s';\nCREATE ROLE trusty LOGIN;\nCREATE ROLE plainy LOGIN PASSWORD '%[1]s';\n"+
		"CREATE ROLE keyed LOGIN PASSWORD '%[2]s';\nCREATE ROLE certy LOGIN;\nCREATE ROLE bothy LOGIN PASSWORD '%[1]s';\n", testPassword, key.Encode())
	for i, odd := range oddPasswords {
		sql += fmt.Sprintf("CREATE ROLE odd%d LOGIN PASSWORD '%s';\n", i, odd)
	}
	sql += fmt.Sprintf("SET password_encryption = md5;\nCREATE ROLE md5y LOGIN PASSWORD '%s';\n", testPassword)
	single := command("postgres", "--single", "-D", data, "postgres")
	single.Stdin = strings.NewReader(sql)
	if out, err := single.CombinedOutput(); err != nil || bytes.Contains(out, []byte("ERROR")) {
		t.Fatalf("creating roles: %v\n%s", err, out)
	}

	p.port = freePort()
	server := command("postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
		"-c", "ssl=on", "-c", "ssl_ca_file=clients.crt", "-p", strconv.Itoa(int(p.port)))
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT) // immediate shutdown
		_ = server.Wait()
		if t.Failed() {
			t.Logf("postgres: %s", log.Bytes())
		}
	})

	// This is what a caller does with a machine that just woke.
	ctx := within(t, 30*time.Second)
	for {
		c, err := Dial(ctx, p.target("app"))
		if err == nil {
			c.Close()
			return p
		}
		if !Retryable(err) || ctx.Err() != nil {
			t.Fatalf("postgres does not start: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freePort finds a port that nobody listens on, below those that the system gives to connections, of which a test beside
// this one may make thousands.
func freePort() uint16 {
	for {
		port := uint16(20000 + rand.N(12000))
		if ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))); err == nil {
			ln.Close()
			return port
		}
	}
}

func (p postgres) target(role string) Target {
	return Target{
		Host: "127.0.0.1", Port: p.port, TLS: TLSDisable, User: role, Database: "postgres",
		Credentials: scram.Credentials{Password: testPassword},
	}
}

// verified is the target in mode verify-full.
func (p postgres) verified(role string) Target {
	target := p.target(role)
	target.TLS, target.RootCAs, target.ServerName = TLSVerifyFull, p.ca.pool(), "db.test"
	return target
}

// certified is the target with a certificate for a name in the place of a password.
func (p postgres) certified(role, name string) Target {
	target := p.verified(role)
	target.Auth = AuthCert
	if name != "" {
		target.Certificate = p.ca.client(p.t, name)
	}
	return target
}

// query runs a query and returns the messages up to ReadyForQuery, without it.
// It may run outside the test's goroutine, so it does not end the test.
func query(t *testing.T, c *Conn, text string) string {
	t.Helper()
	var stream net.Conn = c.Net
	if c.TLS != nil {
		stream = c.TLS
	}
	_, err := stream.Write(pgwire.AppendQuery(nil, text))
	var all []byte
	for err == nil {
		var head [pgwire.HeaderSize]byte
		if _, err = io.ReadFull(stream, head[:]); err != nil {
			break
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		_, err = io.ReadFull(stream, body)
		if head[0] == pgwire.ReadyForQuery {
			return string(all)
		}
		all = append(append(all, head[0]), body...)
	}
	t.Errorf("%s: %v", text, err)
	return string(all)
}

// keyFor recovers the key that a client with the test password would give away.
func keyFor(t *testing.T, v scram.Verifier) *scram.ClientKey {
	t.Helper()
	s, err := scram.NewServer(v, true, scram.ChannelBinding{})
	if err != nil {
		t.Fatal(err)
	}
	c := scram.NewClient(scram.Credentials{Password: testPassword}, scram.ChannelBinding{}, false, scram.ClientOptions{})
	challenge, err := s.First(c.Mechanism(), c.First())
	if err != nil {
		t.Fatal(err)
	}
	final, err := c.Final(challenge)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := s.Final(final)
	if err != nil {
		t.Fatal(err)
	}
	return &key
}

func newVerifier(t *testing.T) scram.Verifier {
	t.Helper()
	v, err := scram.NewVerifier(testPassword, scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAgainstPostgres(t *testing.T) {
	verifier := newVerifier(t)
	p := startPostgres(t, &verifier)
	with := func(target Target, change func(*Target)) Target { change(&target); return target }
	keyed := func(target Target) Target {
		target.Credentials = scram.Credentials{Key: keyFor(t, verifier), Verifier: verifier}
		return target
	}
	unverified := func(t *testing.T, err error) {
		t.Helper()
		var bad *tls.CertificateVerificationError
		if !errors.As(err, &bad) || Retryable(err) {
			t.Errorf("err = %v, want a final CertificateVerificationError", err)
		}
	}

	for _, tc := range []struct {
		name   string
		target Target
		wants  wants // nil: the login succeeds
	}{
		{"SCRAM, password, plaintext", p.target("app"), nil},
		{"SCRAM, password, require", with(p.target("app"), func(t *Target) { t.TLS = TLSRequire }), nil},
		{"SCRAM, password, verify-full", p.verified("app"), nil},
		{"SCRAM, key, plaintext", keyed(p.target("keyed")), nil},
		{"SCRAM, key, verify-full", keyed(p.verified("keyed")), nil},
		{"SCRAM, although MD5 would do", with(p.target("app"), func(t *Target) { t.Auth = AuthMD5 }), nil},
		{"MD5", with(p.target("md5y"), func(t *Target) { t.Auth = AuthMD5 }), nil},
		{"cleartext, verify-full", with(p.verified("plainy"), func(t *Target) { t.Auth = AuthPassword }), nil},
		{"no database named", with(p.target("app"), func(t *Target) { t.Database = "" }), isServerError("3D000", true)},
		{"unknown database", with(p.target("app"), func(t *Target) { t.Database = "nowhere" }), isServerError("3D000", true)},
		{"wrong password", with(p.target("app"), func(t *Target) { t.Credentials.Password = "x" }), func(t *testing.T, err error) {
			is(ErrPassword)(t, err)
			isServerError("28P01", false)(t, err)
		}},
		{"key of another verifier", keyed(p.target("app")), is(ErrVerifierMismatch)},
		{"key, role unknown", keyed(p.target("nobody")), is(ErrVerifierMismatch)},
		{"trust", p.target("trusty"), is(ErrNoProof)},
		{"MD5 not allowed", p.target("md5y"), isViolation("authentication request 5")},
		{"cleartext not allowed", p.verified("plainy"), isViolation("authentication request 3")},
		{"wrong host", with(p.verified("app"), func(t *Target) { t.ServerName = "other.test" }), unverified},
		{"wrong host, by address", with(p.verified("app"), func(t *Target) { t.ServerName = "" }), unverified},
		{"wrong authority", with(p.verified("app"), func(target *Target) { target.RootCAs = newAuthority(t).pool() }), unverified},
		{"a certificate instead of a password", p.certified("certy", "certy"), nil},
		{"a certificate beside the password", with(p.certified("bothy", "bothy"), func(t *Target) { t.Auth = AuthSCRAM }), nil},
		{"a certificate, encrypted only", with(p.certified("bothy", "bothy"), func(t *Target) { t.Auth, t.TLS, t.RootCAs = "", TLSRequire, nil }), nil},
		{"a certificate that nobody needs", with(p.certified("app", "x"), func(t *Target) { t.Auth = "" }), nil},
		{"no certificate", p.verified("bothy"), isServerError("28000", false)},
		{"a certificate of somebody else", p.certified("certy", "app"), isServerError("28000", false)},
		{"a certificate, and a wrong password", with(p.certified("bothy", "bothy"), func(t *Target) { t.Auth, t.Credentials.Password = "", "x" }), is(ErrPassword)},
		{"a certificate, and asked for SCRAM", p.certified("bothy", "bothy"), isViolation("authentication request 10")},
		{"a certificate of another authority", with(p.certified("certy", ""), func(target *Target) { target.Certificate = newAuthority(t).client(t, "certy") }), func(t *testing.T, err error) {
			if err == nil || Retryable(err) || !strings.Contains(err.Error(), "unknown certificate authority") {
				t.Errorf("err = %v, want an alert", err)
			}
		}},
		{"a certificate that cannot be had", with(p.certified("certy", ""), func(target *Target) {
			target.Certificate = func() (*tls.Certificate, error) { return nil, io.ErrNoProgress }
		}), is(io.ErrNoProgress)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			controlled := false
			tc.target.Control = func(*net.TCPConn) { controlled = true }
			c, err := Dial(within(t, patience), tc.target)
			if !controlled {
				t.Error("Control was not called")
			}
			if tc.wants != nil {
				if err == nil {
					c.Close()
					t.Fatal("the login succeeded")
				}
				tc.wants(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			checkConn(t, c, tc.target)
		})
	}

	t.Run("odd passwords", func(t *testing.T) {
		for i, odd := range oddPasswords {
			target := p.target("odd" + strconv.Itoa(i))
			target.Credentials.Password = odd
			c, err := Dial(within(t, patience), target)
			if err != nil {
				t.Errorf("%q: %v", odd, err)
				continue
			}
			c.Close()
		}
	})
	t.Run("channel binding", func(t *testing.T) { testBinding(t, p) })
	t.Run("cancel", func(t *testing.T) {
		for _, target := range []Target{p.target("app"), p.verified("app"), p.certified("certy", "certy")} {
			testCancel(t, target)
		}
	})
}

// checkConn uses a fresh connection as its owner would.
func checkConn(t *testing.T, c *Conn, target Target) {
	t.Helper()
	if (c.TLS != nil) != (target.TLS != TLSDisable) {
		t.Errorf("TLS = %v in mode %s", c.TLS, target.TLS)
	}
	if _, ok := c.Net.Conn.(*net.TCPConn); !ok {
		t.Errorf("the inner connection is a %T", c.Net.Conn)
	}
	if c.PID == 0 || len(c.Secret) != 4 {
		t.Errorf("pid %d, secret of %d bytes", c.PID, len(c.Secret))
	}
	names := map[string]string{}
	for _, p := range c.Parameters {
		names[p.Name] = p.Value
	}
	if names["server_version"] == "" || names["session_authorization"] != target.User {
		t.Errorf("parameters = %q", c.Parameters)
	}
	for _, text := range []string{"select 'hello'", "select 'again'"} {
		if got := query(t, c, text); !strings.Contains(got, text[8:len(text)-1]) {
			t.Errorf("%s: %q", text, got)
		}
	}
	ssl := query(t, c, "select 'ssl=' || ssl from pg_stat_ssl where pid = pg_backend_pid()")
	if want := fmt.Sprintf("ssl=%v", target.TLS != TLSDisable); !strings.Contains(ssl, want) {
		t.Errorf("pg_stat_ssl: %q, want %s", ssl, want)
	}
}

// testBinding shows that the channel is really bound: Postgres refuses the proof
// when the certificate that we believe to see is not its own.
func testBinding(t *testing.T, p postgres) {
	target := p.target("app")
	target.TLS = TLSRequire
	w, err := open(within(t, patience), &target)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if len(w.binding.Data) == 0 {
		t.Fatal("no channel binding")
	}
	w.binding.Data[0] ^= 1
	err = (&login{wire: w, t: &target}).run()
	isServerError("28000", false)(t, err) // "SCRAM channel binding check failed"
}

func testCancel(t *testing.T, target Target) {
	c, err := Dial(within(t, patience), target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	watcher, err := Dial(within(t, patience), target)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()

	answer := make(chan string, 1)
	go func() { answer <- query(t, c, "select pg_sleep(60)") }()
	running := fmt.Sprintf("select 'state=' || state from pg_stat_activity where pid = %d and query like '%%pg_sleep%%'", c.PID)
	for deadline := time.Now().Add(patience); !strings.Contains(query(t, watcher, running), "state=active"); {
		if time.Now().After(deadline) {
			t.Fatal("the query does not start")
		}
	}

	wrong := append([]byte(nil), c.Secret...)
	wrong[0] ^= 1
	if err := Cancel(within(t, patience), target, c.PID, wrong); err != nil {
		t.Fatalf("with a wrong secret: %v", err)
	}
	select {
	case got := <-answer:
		t.Fatalf("cancelled with a wrong secret: %q", got)
	default:
	}
	if err := Cancel(within(t, patience), target, c.PID, c.Secret); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-answer:
		if !strings.Contains(got, "C57014") {
			t.Errorf("the query ended with %q", got)
		}
	case <-time.After(patience):
		t.Error("the query was not cancelled")
	}
}
