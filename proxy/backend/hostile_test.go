// Servers that misbehave, from the TCP connection up to ReadyForQuery: each costs one error, soon, and leaves nothing open.

package backend

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// wants is what a test expects of an error.
type wants func(t *testing.T, err error)

func is(target error) wants {
	return func(t *testing.T, err error) {
		t.Helper()
		if !errors.Is(err, target) {
			t.Errorf("err = %v, want %v", err, target)
		}
	}
}

func isViolation(text string) wants {
	return func(t *testing.T, err error) {
		t.Helper()
		var p *ProtocolError
		if !errors.As(err, &p) || !strings.Contains(p.Reason, text) {
			t.Errorf("err = %v, want a ProtocolError with %q", err, text)
		}
	}
}

func isServerError(code string, proven bool) wants {
	return func(t *testing.T, err error) {
		t.Helper()
		var s *ServerError
		if !errors.As(err, &s) || s.Response.Code != code || s.Proven != proven {
			t.Errorf("err = %v, want a ServerError %q with Proven %v", err, code, proven)
		}
	}
}

func fatal(code, text string) []byte {
	return (&pgwire.Error{Severity: pgwire.Fatal, Code: code, Message: text}).Append(nil)
}

// challenged plays a server whose challenge is what the function makes of the client's nonce.
func challenged(challenge func(nonce string) string) script {
	return func(c net.Conn) {
		first := saslBegin(c, scram.Mechanism)
		_, nonce, _ := strings.Cut(first, ",r=")
		_, _ = c.Write(pgwire.AppendSASLContinue(nil, []byte(challenge(nonce))))
		readMessage(c)
	}
}

// demanding plays a server that asks for authentication by a raw code.
func demanding(body string) script {
	return func(c net.Conn) {
		startup(c)
		_, _ = c.Write(message('R', body))
		// Whatever the client answers must not be taken for a password: see the test.
	}
}

func TestDialSurvivesHostileServers(t *testing.T) {
	manyParameters := bytes.Repeat(pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "a", Value: "b"}), 20_000)
	bigParameters := bytes.Repeat(pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "a", Value: strings.Repeat("b", 60_000)}), 3)
	hugeParameter := pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "a", Value: strings.Repeat("b", 1<<20)})
	notice := (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: "hello"}).Append(nil)
	salted := func(nonce, salt, count string) string { return "r=" + nonce + ",s=" + salt + ",i=" + count }

	for _, tc := range []struct {
		name   string
		script script
		retry  bool
		wants  wants
	}{
		{"F01 too many connections", func(c net.Conn) { startup(c); _, _ = c.Write(fatal("53300", "sorry, too many clients already")) }, false, isServerError("53300", false)},
		{"F02 starting up", func(c net.Conn) { startup(c); _, _ = c.Write(fatal("57P03", "the database system is starting up")) }, true, isServerError("57P03", false)},
		{"F03 error without SQLSTATE", func(c net.Conn) { startup(c); _, _ = c.Write(message('E', "Mboo\x00\x00")) }, false, isServerError("", false)},
		{"F03 empty error", func(c net.Conn) { startup(c); _, _ = c.Write(message('E', "")) }, false, isServerError("", false)},
		{"F03 error cut in a field", func(c net.Conn) { startup(c); _, _ = c.Write(message('E', "SFATAL\x00C573")) }, false, isServerError("", false)},
		{"F04 closes at once", hangUp, true, func(t *testing.T, err error) {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("err = %v, want an early close", err)
			}
		}},
		{"F04 closes inside a message", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("R\x00\x00")); hangUp(c) }, true, is(io.ErrUnexpectedEOF)},
		{"unknown database, after proof", afterProof(fatal("3D000", `database "db" does not exist`)), false, isServerError("3D000", true)},
		{"shutdown, after proof", afterProof(fatal("57P01", "terminating connection due to administrator command")), true, isServerError("57P01", true)},

		{"F06 length 3", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("R\x00\x00\x00\x03")) }, false, isViolation("claims 3 bytes")},
		{"F07 length -1", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("R\xff\xff\xff\xff")) }, false, isViolation("claims 4294967295 bytes")},
		{"F09 length 1 GB", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("R\x40\x00\x00\x00")) }, false, isViolation("claims 1073741824 bytes")},
		{"F13 20,000 parameters", afterProof(append(manyParameters, greeting()...)), false, isViolation("more than 200 parameters")},
		{"F13 180 kB of parameters", afterProof(append(bigParameters, greeting()...)), false, isViolation("more than 200 parameters or 65536 bytes")},
		{"F29 parameter of 1 MB", afterProof(append(hugeParameter, greeting()...)), false, isViolation("claims")},
		{"F29 parameter without a value", afterProof(message('S', "name\x00")), false, isViolation("malformed ParameterStatus")},
		{"F29 parameter without a name", afterProof(message('S', "\x00value\x00")), false, isViolation("malformed ParameterStatus")},
		{"F14 20,000 notices", afterProof(append(bytes.Repeat(notice, 20_000), greeting()...)), false, isViolation("more than 100 notices")},
		{"F14 20,000 notices before authentication", func(c net.Conn) { startup(c); _, _ = c.Write(bytes.Repeat(notice, 20_000)) }, false, isViolation("more than 100 notices")},

		{"F15 unknown message", afterProof(message('@', "")), false, isViolation("type 0x40")},
		{"row data during login", afterProof(message('D', "\x00\x00")), false, isViolation("type 0x44")},
		{"version negotiation", func(c net.Conn) { startup(c); _, _ = c.Write(pgwire.AppendNegotiate(nil, 3<<16, nil)) }, false, isViolation("type 0x76")},
		{"parameters before authentication", func(c net.Conn) { startup(c); _, _ = c.Write(greeting()) }, false, isViolation("type 0x53")},
		{"second authentication", afterProof(pgwire.AppendAuthenticationOk(nil)), false, isViolation("type 0x52")},
		{"second exchange", func(c net.Conn) { honestSCRAM(c); _, _ = c.Write(pgwire.AppendSASL(nil, []string{scram.Mechanism})) }, false, isViolation("behind a complete exchange")},
		{"second key", afterProof(append(pgwire.AppendBackendKeyData(nil, 1, []byte("1234")), pgwire.AppendBackendKeyData(nil, 1, []byte("1234"))...)), false, isViolation("BackendKeyData")},
		{"key without a secret", afterProof(pgwire.AppendBackendKeyData(nil, 1, nil)), false, isViolation("BackendKeyData")},
		{"key of 257 bytes", afterProof(pgwire.AppendBackendKeyData(nil, 1, make([]byte, 257))), false, isViolation("BackendKeyData")},
		{"F22 status X", afterProof(pgwire.AppendReady(nil, 'X')), false, isViolation("ReadyForQuery")},
		{"status T", afterProof(pgwire.AppendReady(nil, 'T')), false, isViolation("ReadyForQuery")},
		{"F23 ready without a status", afterProof(message('Z', "")), false, isViolation("ReadyForQuery")},
		{"bytes behind ready", afterProof(append(greeting(), message('A', "\x00\x00\x00\x01c\x00p\x00")...)), false, isViolation("bytes behind ReadyForQuery")},

		{"F17 authentication request 99", demanding("\x00\x00\x00\x63"), false, isViolation("authentication request 99")},
		{"F17 asks for cleartext", demanding("\x00\x00\x00\x03"), false, isViolation("authentication request 3")},
		{"F17 asks for MD5", demanding("\x00\x00\x00\x05salt"), false, isViolation("authentication request 5")},
		{"F17 asks for GSSAPI", demanding("\x00\x00\x00\x07"), false, isViolation("authentication request 7")},
		{"F17 authentication of 3 bytes", demanding("\x00\x00\x00"), false, isViolation("3 bytes before authentication")},
		{"F31 accepts without proof", func(c net.Conn) {
			startup(c)
			_, _ = c.Write(append(pgwire.AppendAuthenticationOk(nil), greeting()...))
		}, false, is(ErrNoProof)},
		{"F31 accepts in place of a challenge", func(c net.Conn) {
			saslBegin(c, scram.Mechanism)
			_, _ = c.Write(append(pgwire.AppendAuthenticationOk(nil), greeting()...))
		}, false, is(ErrNoProof)},
		{"F31 accepts in place of a signature", func(c net.Conn) {
			challenged(func(n string) string { return salted(n+"x", "AAAA", "1") })(c)
			_, _ = c.Write(append(pgwire.AppendAuthenticationOk(nil), greeting()...))
		}, false, is(ErrNoProof)},
		{"SASL without SCRAM", func(c net.Conn) { saslBegin(c, "OAUTHBEARER") }, false, isViolation("does not offer")},
		{"SASL with -PLUS only, in plaintext", func(c net.Conn) { saslBegin(c, scram.MechanismPlus) }, false, isViolation("does not offer")},
		{"SASL mechanisms without an end", demanding("\x00\x00\x00\x0aSCRAM-SHA-256"), false, isViolation("malformed AuthenticationSASL")},
		{"signature in place of a challenge", func(c net.Conn) {
			saslBegin(c, scram.Mechanism)
			_, _ = c.Write(pgwire.AppendSASLFinal(nil, []byte("v=AAAA")))
		}, false, isViolation("authentication request 12 in place of 11")},

		{"F18 100,000,000 iterations", challenged(func(n string) string { return salted(n+"x", "AAAA", "100000000") }), false, isViolation("iteration count is above the limit of 200000")},
		{"F18 salt of 50 kB", challenged(func(n string) string { return salted(n+"x", strings.Repeat("A", 50_000), "1") }), false, isViolation("salt is too long")},
		{"F18 salt of 1 MB", challenged(func(n string) string { return salted(n+"x", strings.Repeat("A", 1<<20), "1") }), false, isViolation("claims")},
		{"F18 nonce of 50 kB", challenged(func(n string) string { return salted(n+strings.Repeat("x", 50_000), "AAAA", "1") }), false, isViolation("nonce is too long")},
		{"F18 nonce of 1 MB", challenged(func(n string) string { return salted(n+strings.Repeat("x", 1<<20), "AAAA", "1") }), false, isViolation("claims")},
		{"F18 nonce not ours", challenged(func(string) string { return salted("x", "AAAA", "1") }), false, isViolation("nonce does not extend ours")},
		{"F18 wrong signature", func(c net.Conn) {
			challenged(func(n string) string { return salted(n+"x", "AAAA", "1") })(c)
			_, _ = c.Write(pgwire.AppendSASLFinal(nil, []byte("v="+base64.StdEncoding.EncodeToString(make([]byte, 32)))))
			_, _ = c.Write(append(pgwire.AppendAuthenticationOk(nil), greeting()...))
		}, false, is(ErrNoProof)},
		{"SCRAM error", func(c net.Conn) {
			challenged(func(n string) string { return salted(n+"x", "AAAA", "1") })(c)
			_, _ = c.Write(pgwire.AppendSASLFinal(nil, []byte("e=invalid-proof")))
		}, false, is(scram.ErrRejected)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Dial(within(t, patience), serve(t, tc.script))
			if err == nil {
				c.Close()
				t.Fatal("the login succeeded")
			}
			tc.wants(t, err)
			if Retryable(err) != tc.retry {
				t.Errorf("Retryable(%v) = %v", err, !tc.retry)
			}
			if len(err.Error()) > 500 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("not fit for a log: %q", err.Error())
			}
		})
	}
}

func TestDialTakesOddButHarmlessServers(t *testing.T) {
	for _, tc := range []struct {
		name     string
		greeting []byte
		pid      uint32
		secret   int
	}{
		{"as usual", greeting(), 4711, 4},
		{"F16 no cancel key", pgwire.AppendReady(nil, 'I'), 0, 0},
		{"long cancel key", pgwire.AppendReady(pgwire.AppendBackendKeyData(nil, 7, make([]byte, 256)), 'I'), 7, 256},
		{"F29 strange values", pgwire.AppendReady(pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "server_version", Value: "banana\n\xff"}), 'I'), 0, 0},
		{"a few notices", append((&pgwire.Error{Severity: pgwire.Notice, Message: "hello"}).Append(nil), greeting()...), 4711, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Dial(within(t, patience), serve(t, afterProof(tc.greeting)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.PID != tc.pid || len(c.Secret) != tc.secret {
				t.Errorf("pid %d and a secret of %d bytes, want %d and %d", c.PID, len(c.Secret), tc.pid, tc.secret)
			}
		})
	}
}

// A server that stalls costs its own login no more than the context says,
// wherever it stalls: F05, F09, F30.
func TestDialEndsWithItsContext(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, "db.test", time.Now().Add(time.Hour))
	tlsTarget := func(target Target) Target {
		target.TLS, target.RootCAs, target.ServerName = TLSVerifyFull, ca.pool(), "db.test"
		return target
	}
	plain := func(target Target) Target { return target }
	for _, tc := range []struct {
		name   string
		script script
		adapt  func(Target) Target
	}{
		{"F05 after accept", func(net.Conn) {}, plain},
		{"before the answer to the TLS request", func(net.Conn) {}, tlsTarget},
		{"F30 in the handshake", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("S")) }, tlsTarget},
		{"after the handshake", inTLS(cert, func(net.Conn) {}), tlsTarget},
		{"inside a header", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("R\x00")) }, plain},
		{"inside a body", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("R\x00\x00\xff\x00..")) }, plain},
		{"after the challenge", challenged(func(n string) string { return "r=" + n + "x,s=AAAA,i=1" }), plain},
		{"before AuthenticationOk", honestSCRAM, plain},
		{"before ReadyForQuery", afterProof(nil), plain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begin := time.Now()
			_, err := Dial(within(t, 100*time.Millisecond), tc.adapt(serve(t, tc.script)))
			if !errors.Is(err, context.DeadlineExceeded) || !Retryable(err) {
				t.Errorf("err = %v, want a retryable DeadlineExceeded", err)
			}
			if took := time.Since(begin); took > patience/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// cancelling cancels a context on its nth read or write.
type cancelling struct {
	net.Conn
	left   int
	cancel func()
}

func (c *cancelling) tick() {
	if c.left--; c.left == 0 {
		c.cancel()
	}
}
func (c *cancelling) Read(b []byte) (int, error)  { c.tick(); return c.Conn.Read(b) }
func (c *cancelling) Write(b []byte) (int, error) { c.tick(); return c.Conn.Write(b) }

// At whatever step the caller gives up, the connection is closed (the scripted
// server checks), no goroutine stays, and no half-made Conn comes out.
func TestDialCanBeCancelledAtEveryStep(t *testing.T) {
	target := serve(t, afterProof(greeting()))
	for step := 1; ; step++ {
		ctx, cancel := context.WithCancel(t.Context())
		counter := &cancelling{left: step, cancel: cancel}
		target.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			var err error
			counter.Conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return counter, err
		}
		c, err := Dial(ctx, target)
		if err == nil {
			c.Close()
		} else if !errors.Is(err, context.Canceled) || Retryable(err) {
			t.Errorf("step %d: err = %v, want a final Canceled", step, err)
		}
		cancel()
		if counter.left > 0 {
			if step < 6 {
				t.Errorf("a login of only %d steps", step)
			}
			return
		}
	}
}

// The costly part runs in the worker, which may be busy, and only there more than 200,000 iterations are accepted.
func TestPasswordDerivationRunsInTheWorker(t *testing.T) {
	target := serve(t, afterProof(greeting()))
	calls := 0
	target.Derive = func(_ context.Context, derive func()) error { calls++; derive(); return nil }
	c, err := Dial(within(t, patience), target)
	if err != nil || calls != 1 {
		t.Fatalf("err = %v after %d calls of the worker", err, calls)
	}
	c.Close()

	busy := errors.New("busy")
	target.Derive = func(context.Context, func()) error { return busy }
	_, err = Dial(within(t, patience), target)
	is(busy)(t, err)

	target = serve(t, challenged(func(n string) string { return "r=" + n + "x,s=AAAA,i=200001" }))
	_, err = Dial(within(t, patience), target)
	isViolation("limit of 200000")(t, err)
	target.Derive = func(_ context.Context, derive func()) error { derive(); return errors.New("derived all the same") }
	if _, err = Dial(within(t, patience), target); err == nil || !strings.Contains(err.Error(), "derived all the same") {
		t.Errorf("err = %v, want the worker's", err)
	}
}

func TestCancelAgainstHostileServers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script script
		wants  wants
	}{
		{"closes", func(c net.Conn) { startup(c); hangUp(c) }, is(nil)},
		{"resets", func(c net.Conn) { startup(c); _ = c.(*net.TCPConn).SetLinger(0); hangUp(c) }, is(syscall.ECONNRESET)},
		{"answers", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("x")) }, isViolation("answer to a CancelRequest")},
		{"stalls", startup, is(context.DeadlineExceeded)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.wants(t, Cancel(within(t, 200*time.Millisecond), serve(t, tc.script), 1, []byte{1, 2, 3, 4}))
		})
	}
	if err := Cancel(t.Context(), Target{Host: "127.0.0.1", Port: 1, TLS: TLSDisable}, 1, nil); !errors.Is(err, ErrNoCancelKey) {
		t.Errorf("without a secret: %v", err)
	}
}

// What a client may not be told is never sent: a server that asks for less than
// SCRAM gets nothing but the end of the connection.
func TestNothingIsSentForAWeakerMethod(t *testing.T) {
	for _, body := range []string{"\x00\x00\x00\x03", "\x00\x00\x00\x05salt"} {
		sent := make(chan []byte, 1)
		target := serve(t, func(c net.Conn) {
			demanding(body)(c)
			b, _ := io.ReadAll(c)
			sent <- b
		})
		if _, err := Dial(within(t, patience), target); err == nil {
			t.Fatal("the login succeeded")
		}
		if b := <-sent; len(b) > 0 {
			t.Errorf("sent %q", b)
		}
	}
}

func TestCloseDoesNotWaitForADeafServer(t *testing.T) {
	closed := make(chan struct{})
	c, err := Dial(within(t, patience), serve(t, func(c net.Conn) {
		afterProof(greeting())(c)
		<-closed
	}))
	if err != nil {
		t.Fatal(err)
	}
	// Fill the socket until not even the few bytes of a Terminate fit.
	for _, size := range []int{1 << 20, 1} {
		for wrote := 1; wrote > 0; {
			if err := c.Net.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			wrote, _ = c.Net.Write(make([]byte, size))
		}
	}
	begin := time.Now()
	if err := c.Close(); err != nil || time.Since(begin) > patience/2 {
		t.Errorf("Close = %v after %v", err, time.Since(begin))
	}
	close(closed)
}
