// The A and B rows: authentication.

package hostile

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

// failedRow is a row of acme's that ends the login.
func failedRow(id, name string, play func(*peer)) row {
	return row{id: id, name: name, play: play, moves: []string{login("acme", "failed")}}
}

// abortedRow is one in which the client leaves.
func abortedRow(id, name string, play func(*peer)) row {
	return row{id: id, name: name, play: play, moves: []string{login("acme", "aborted")}}
}

// whenAsked plays at the point where acme has asked for a password.
func whenAsked(play func(*peer)) func(*peer) { return after(appStartup(), ready(play)) }

func ready(play func(*peer)) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.auth(10)
		play(p)
	}
}

// first is a SASLInitialResponse with this message in it.
func first(text string) []byte { return initial(scramPlain, []byte(text)) }

// whenChallenged plays at the point where the challenge has come.
func whenChallenged(s scramClient, play func(p *peer, s *scramClient, challenge []byte)) func(*peer) {
	return after(appStartup(), func(p *peer) {
		p.t.Helper()
		own := s
		play(p, &own, p.begin(&own))
	})
}

// answered sends what f makes of the right final message.
func answered(code string, s scramClient, f func(final string) string) func(*peer) {
	return whenChallenged(s, func(p *peer, s *scramClient, challenge []byte) {
		p.t.Helper()
		p.send(message('p', []byte(f(string(s.final(p.t, challenge))))))
		p.fatal(code)
	})
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	right, wrong := scramClient{password: canaryRight}, scramClient{password: canaryWrong}
	// withProof replaces the proof of a final message.
	withProof := func(proof string) func(string) string {
		return func(final string) string { return final[:strings.LastIndex(final, ",p=")] + ",p=" + proof }
	}
	b64 := base64.StdEncoding.EncodeToString
	sasl := func(length uint32, body string) []byte {
		return message('p', join([]byte(scramPlain), []byte{0}, be32(length), []byte(body)))
	}
	const anyFirst = "n,,n=,r=abcdefghijkl"
	rows := []row{
		failedRow("A01", "Query", whenAsked(refused("08P01", query("select '"+canaryQuery+"'")))),
		failedRow("A02", "an unknown type", whenAsked(refused("08P01", message('~', []byte("x"))))),
		failedRow("A03", "mechanism FOO", whenAsked(refused("08P01", initial("FOO", []byte(anyFirst))))),
		failedRow("A03", "no mechanism", whenAsked(refused("08P01", initial("", []byte(anyFirst))))),
		failedRow("A03", "SCRAM-SHA-1", whenAsked(refused("08P01", initial("SCRAM-SHA-1", []byte(anyFirst))))),
		failedRow("A04", "SCRAM-PLUS in plaintext", whenAsked(refused("08P01", initial(scramPlus, []byte("p=tls-server-end-point,,n=,r=abc"))))),
		failedRow("A05", "no first message", whenAsked(refused("08P01", sasl(0xffffffff, "")))),
		failedRow("A05", "empty first message", whenAsked(refused("08P01", sasl(0, "")))),
		failedRow("A06", "first message that claims more", whenAsked(refused("08P01", sasl(100, anyFirst)))),
		failedRow("A06", "first message that claims less", whenAsked(refused("08P01", sasl(3, anyFirst)))),
		failedRow("A07", "first message that claims 2 GiB", whenAsked(refused("08P01", sasl(0x7fffffff, anyFirst)))),
		failedRow("A07", "first message that claims -16", whenAsked(refused("08P01", sasl(0xfffffff0, anyFirst)))),
		failedRow("A08", "mechanism without NUL", whenAsked(refused("08P01", message('p', []byte(scramPlain))))),
		failedRow("A08", "mechanism and no length", whenAsked(refused("08P01", message('p', []byte(scramPlain+"\x00"))))),
		failedRow("A10", "p=tls-unique", whenAsked(refused("08P01", first("p=tls-unique,,n=,r=abc")))),
		failedRow("A10", "p=tls-server-end-point without -PLUS", whenAsked(refused("08P01", first("p=tls-server-end-point,,n=,r=abc")))),
		failedRow("A11", "authorization identity", whenAsked(refused("0A000", first("n,a=bob,n=,r=abc")))),
		failedRow("A12", "mandatory extension", whenAsked(refused("0A000", first("n,,m=x,n=,r=abc")))),
		failedRow("A13", "nonce that is not printable", whenAsked(refused("08P01", first("n,,n=,r=abc\x01\x7f")))),
		failedRow("A13", "nonce with 8-bit bytes", whenAsked(refused("08P01", first("n,,n=,r=abc\xff")))),
		{id: "A14", name: "empty nonce", moves: []string{login("acme", "aborted")}, play: whenAsked(func(p *peer) {
			p.send(first("n,,n=,r="))
			if nonce := attribute(p.auth(11), "r"); len(nonce) < 24 {
				p.t.Errorf("our nonce %q is short", nonce)
			}
		})},
		failedRow("A15", "first message of 1025 bytes", whenAsked(refused("08P01", first("n,,n=,r="+strings.Repeat("x", 1017))))),
		failedRow("A15", "message of 2000 bytes", whenAsked(refused("08P01", first("n,,n=,r="+strings.Repeat("x", 2000))))),
		failedRow("A16", "message of 100 kB", whenAsked(refused("08P01", first(strings.Repeat("x", 100_000))))),
		failedRow("A17", "message that claims 1 GB", whenAsked(refused("08P01", claimed('p', 1_000_000_000, []byte("x"))))),
		failedRow("A17", "message that claims 4 GiB - 1", whenAsked(refused("08P01", claimed('p', 0xffffffff, nil)))),
		failedRow("A18", "message length 3", whenAsked(refused("08P01", claimed('p', 3, nil)))),
		failedRow("A19", "message length 0", whenAsked(refused("08P01", claimed('p', 0, nil)))),
		failedRow("A20", "message length -1", whenAsked(refused("08P01", claimed('p', 0xffffffff, []byte("x"))))),
		failedRow("A21", "a password in clear text", whenAsked(refused("08P01", message('p', []byte(canaryClear+"\x00"))))),
		failedRow("A21", "the right password in clear text", whenAsked(refused("08P01", message('p', []byte(canaryRight+"\x00"))))),
		abortedRow("A22", "Terminate", whenAsked(silent(terminate))),
		failedRow("A23", "a second startup", whenAsked(refused("08P01", appStartup()))),
		failedRow("A24", "CopyData", whenAsked(refused("08P01", message('d', []byte("x"))))),
		failedRow("A25", "an empty password in clear text", whenAsked(refused("08P01", message('p', []byte{0})))),
		failedRow("A25", "an empty password in SCRAM", after(appStartup(), func(p *peer) {
			s := &scramClient{}
			p.send(message('p', s.final(p.t, p.begin(s))))
			p.fatal("28P01")
		})),

		failedRow("B01", "SASLInitialResponse again", whenChallenged(right, func(p *peer, s *scramClient, _ []byte) {
			p.send(initial(scramPlain, s.first()))
			p.fatal("08P01")
		})),
		failedRow("B02", "a proof of zeros", answered("28P01", right, withProof(b64(make([]byte, sha256.Size))))),
		failedRow("B02", "a wrong password", answered("28P01", wrong, asIs)),
		failedRow("B03", "another nonce", answered("08P01", right, func(f string) string { return strings.Replace(f, ",r=", ",r=x", 1) })),
		failedRow("B03", "the client's nonce alone", whenChallenged(right, func(p *peer, s *scramClient, challenge []byte) {
			final := strings.Replace(string(s.final(p.t, challenge)), attribute(challenge, "r"), s.nonce, 1)
			p.send(message('p', []byte(final)))
			p.fatal("08P01")
		})),
		failedRow("B04", "c= of another header", answered("08P01", scramClient{password: canaryRight, cbind: b64([]byte("y,,"))}, asIs)),
		failedRow("B04", "c= that is empty", answered("08P01", right, func(f string) string { return strings.Replace(f, "c=biws,", "c=,", 1) })),
		failedRow("B05", "proof that is not base64", answered("08P01", right, withProof("!!!!"))),
		failedRow("B05", "proof with a line break", answered("08P01", right, withProof(b64(make([]byte, 32))[:20]+"\n"+b64(make([]byte, 32))[20:]))),
		failedRow("B06", "proof of 31 bytes", answered("08P01", right, withProof(b64(make([]byte, 31))))),
		failedRow("B06", "proof of 33 bytes", answered("08P01", right, withProof(b64(make([]byte, 33))))),
		failedRow("B06", "proof and more", answered("08P01", right, func(f string) string { return f + ",x=y" })),
		failedRow("B07", "empty final message", answered("08P01", right, func(string) string { return "" })),
		failedRow("B08", "final message with a NUL", answered("08P01", right, func(f string) string { return f[:10] + "\x00" + f[10:] })),
		failedRow("B08", "final message with a mandatory extension", answered("0A000", right, func(f string) string { return "m=x," + f })),
		{id: "B09", name: "final message and a query in one segment", moves: []string{login("acme", "ok")}, play: whenChallenged(right, func(p *peer, s *scramClient, challenge []byte) {
			p.send(join(message('p', s.final(p.t, challenge)), query("select '"+canaryQuery+"'")))
			p.auth(12)
			p.auth(0)
			p.until('Z')
			p.want("TDCZ")
			p.quit()
		})},
		failedRow("B09", "wrong final message and a query in one segment", whenChallenged(wrong, func(p *peer, s *scramClient, challenge []byte) {
			p.send(join(message('p', s.final(p.t, challenge)), query("select '"+canaryQuery+"'")))
			p.fatal("28P01")
		})),
		failedRow("B10", "Query instead of the final message", whenChallenged(right, func(p *peer, _ *scramClient, _ []byte) {
			p.send(query("select 1"))
			p.fatal("08P01")
		})),
		abortedRow("B14", "leaves after the challenge", whenChallenged(right, func(*peer, *scramClient, []byte) {})),
		wrongRow("B11", "wrong password", "acme", "app", appStartup()),
		wrongRow("B12", "ghost user", "acme", "ghost", startup(v30, "user", "ghost.acme")),
		wrongRow("B12", "ghost tenant", "", "app", startup(v30, "user", "app.ghost")),
		{id: "A31", name: "a user whom no tenant lists, though the server knows him", play: func(p *peer) {
			p.send(startup(v30, "user", "postgres.acme"))
			p.wrongPassword("postgres")
		}, moves: []string{login("acme", "failed")}},
	}
	for _, junk := range []string{"garbage", "x,,n=,r=abc", "n", "n,", "n,,", "n,,n=", "n,,r=abc", "n,,n=,x=abc", "n,,n=,r=abc,", "n,x,n=,r=abc", "p=,,n=,r=abc", ",,,,", "n,,n=,r=a\x00b"} {
		rows = append(rows, failedRow("A09", fmt.Sprintf("first message %q", junk), whenAsked(refused("08P01", first(junk)))))
	}
	g.guard(t, 0, func() { g.run(t, rows) })
}

// asIs leaves a final message as it is.
func asIs(final string) string { return final }

// TestChannelBinding is what a man in the middle would do to a login over TLS, who has a certificate of his own.
func TestChannelBinding(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	const flag = "p=tls-server-end-point,,"
	// inside plays within TLS, where both mechanisms must be on offer, and hands over the true binding.
	inside := func(play func(p *peer, binding []byte)) func(*peer) {
		return requested(g.config("postern.test"), func(p *peer) {
			p.t.Helper()
			leaf := p.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
			binding := sha256.Sum256(leaf.Raw) // its signature is ECDSA with SHA-256
			p.send(appStartup())
			play(p, binding[:])
		})
	}
	logIn := func(s scramClient, bind bool) func(*peer) {
		return inside(func(p *peer, binding []byte) {
			p.t.Helper()
			own := s
			if bind {
				own.binding = binding
			}
			p.prove(&own)
			p.until('Z')
			p.quit()
		})
	}
	finally := func(code string, s scramClient, f func(string) string) func(*peer) {
		return inside(func(p *peer, binding []byte) {
			p.t.Helper()
			own := s
			if own.binding == nil && own.gs2 != "" {
				own.binding = binding
			}
			p.send(message('p', []byte(f(string(own.final(p.t, p.begin(&own)))))))
			p.fatal(code)
		})
	}
	first := func(code, mechanism, text string) func(*peer) {
		return inside(func(p *peer, _ []byte) {
			p.t.Helper()
			if offered := p.auth(10); !bytes.HasPrefix(offered, []byte(scramPlus+"\x00")) {
				p.t.Errorf("offered %q", offered)
			}
			p.send(initial(mechanism, []byte(text)))
			p.fatal(code)
		})
	}
	ok := []string{login("acme", "ok")}
	g.guard(t, 0, func() {
		g.run(t, []row{
			{id: "B04", name: "-PLUS with the right binding", play: logIn(scramClient{password: canaryRight, gs2: flag}, true), moves: ok},
			{id: "B04", name: "no binding, though it could", play: logIn(scramClient{password: canaryRight}, false), moves: ok},
			failedRow("B04", "-PLUS with another certificate's binding", finally("28000", scramClient{password: canaryRight, gs2: flag, binding: make([]byte, 32)}, asIs)),
			failedRow("B04", "-PLUS with a wrong password", finally("28P01", scramClient{password: canaryWrong, gs2: flag}, asIs)),
			failedRow("B04", "-PLUS whose c= has no binding", finally("28000", scramClient{password: canaryRight, gs2: flag, cbind: base64.StdEncoding.EncodeToString([]byte(flag))}, asIs)),
			failedRow("B04", "-PLUS whose c= says there was no binding", finally("28000", scramClient{password: canaryRight, gs2: flag, cbind: "biws"}, asIs)),
			failedRow("B04", "the offer was cut: y", first("28000", scramPlain, "y,,n=,r=abc")),
			failedRow("B04", "-PLUS chosen, n said", first("08P01", scramPlus, "n,,n=,r=abc")),
			failedRow("B04", "-PLUS chosen, y said", first("08P01", scramPlus, "y,,n=,r=abc")),
			failedRow("B04", "-PLUS not chosen, p said", first("08P01", scramPlain, flag+"n=,r=abc")),
			failedRow("A10", "tls-unique", first("08P01", scramPlus, "p=tls-unique,,n=,r=abc")),
			failedRow("A10", "tls-exporter", first("08P01", scramPlus, "p=tls-exporter,,n=,r=abc")),
		})
	})
}

// TestReplay is A32: what a listener on the wire has captured of a good login opens nothing.
func TestReplay(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	g.guard(t, 0, func() {
		p := g.connect(t, g.freshClient())
		p.send(appStartup())
		s := &scramClient{password: canaryRight}
		challenge := p.begin(s)
		captured := s.final(t, challenge)
		p.send(message('p', captured))
		p.auth(12)
		p.auth(0)
		p.until('Z')
		p.quit()

		for name, f := range map[string]func(challenge []byte) string{
			"as it was": func([]byte) string { return string(captured) },
			"with our nonce": func(c []byte) string {
				return strings.Replace(string(captured), attribute(challenge, "r"), attribute(c, "r"), 1)
			},
		} {
			p := g.connect(t, g.freshClient())
			p.send(appStartup())
			again := &scramClient{password: canaryRight, nonce: s.nonce}
			second := p.begin(again)
			if attribute(second, "r") == attribute(challenge, "r") {
				t.Fatal("our nonce comes again")
			}
			p.send(message('p', []byte(f(second))))
			code := map[string]string{"as it was": "08P01", "with our nonce": "28P01"}[name]
			p.fatal(code)
		}
	})
}

// TestAfterAuthentication has what only the server can judge: it is asked after the password, and its own words come
// back (S28 to S30, S32, B13, A31).
func TestAfterAuthentication(t *testing.T) {
	t.Parallel()
	cluster := harness.Postgres(t)
	role := harness.Unique("nologin")
	v, err := scram.NewVerifier(canaryRight, 4096, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Exec(t.Context(), "postgres", fmt.Sprintf("create role %s nologin password '%s'", role, v.Encode())); err != nil {
		t.Fatal(err)
	}
	retired, choosy := harness.Acme(t, cluster, "postgres"), harness.Acme(t, cluster, "postgres")
	retired["id"], choosy["id"] = "retired", "choosy"
	retired["users"] = []harness.Map{{"name": role, "verifier": v.Encode()}}
	choosy["databases"] = []string{"postgres"}
	g := startGate(t, gateOptions{timeouts: brief, tenants: []harness.Map{retired, choosy}})
	with := func(kv ...string) []byte { return startup(v30, append([]string{"user", "app.acme"}, kv...)...) }
	g.guard(t, 11, func() {
		for _, r := range []struct {
			id, name string
			startup  []byte
			code     string // "": it works
		}{
			{"B13", "a database that does not exist", with("database", "no_such_database"), "3D000"},
			{"B13", "a database that the tenant does not list", startup(v30, "user", "app.choosy", "database", "template1"), "3D000"},
			{"S32", "the console's database", with("database", "postern"), "3D000"},
			{"S32", "the console's old database", with("database", "pgbouncer"), "3D000"},
			{"S28", "search_path", with("options", "-c search_path=evil"), ""},
			{"S28", "role", with("options", "-c role=postgres"), "42501"},
			{"S28", "session_authorization", with("options", "-c session_authorization=postgres"), "42501"},
			{"S29", "an unknown setting", with("no_such_setting", "1"), "42704"},
			{"S29", "an unknown setting in options", with("options", "--no-such-setting=1"), "42704"},
			{"S29", "a value that will not do", with("statement_timeout", "soon"), "22023"},
			{"A31", "a role that may not log in", startup(v30, "user", role+".retired", "database", "postgres"), "28000"},
		} {
			t.Run(r.id+"/"+r.name, func(t *testing.T) {
				p := g.connect(t, g.freshClient())
				p.send(r.startup)
				p.prove(&scramClient{password: canaryRight})
				if r.code != "" {
					p.fatal(r.code)
					return
				}
				p.until('Z')
				p.selectOne()
				p.quit()
			})
		}
		// Whatever the server was asked to become, it is nobody else's now.
		p := g.login(t, "acme", g.freshClient())
		p.send(query("select current_setting('search_path') || current_user || session_user"))
		if got := p.want("TD"); !bytes.HasSuffix(got, []byte(`"$user", publicappapp`)) {
			t.Errorf("the next session is %q", got)
		}
		p.want("CZ")
		p.quit()
	})
}

// TestRemovedUser is the rest of A31: a user who is taken out of the tenants file looks like one who never was.
func TestRemovedUser(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	g.goodLogin(t)
	content, err := os.ReadFile(filepath.Join(g.Dir, "tenants.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.Write(t, "tenants.yaml", bytes.ReplaceAll(content, []byte("name: app\n"), []byte("name: successor\n")))
	g.Reload(t)
	p := g.connect(t, g.freshClient())
	p.send(appStartup())
	s := &scramClient{password: canaryRight}
	p.send(message('p', s.final(t, p.begin(s))))
	p.fatal("28P01")
	p = g.connect(t, g.freshClient())
	p.send(startup(v30, "user", "successor.acme"))
	p.until('R') // the file was taken
}

// TestOldVerifier is A26: a verifier with which SCRAM cannot work is refused when it is configured, not when its user
// comes, and is not repeated by the one who refuses it.
func TestOldVerifier(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	const verifier = "md5b1946ac92492d2347c6235b4d2611184"
	content, err := os.ReadFile(filepath.Join(g.Dir, "tenants.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	scram := regexp.MustCompile(`verifier: .*`)
	g.Write(t, "tenants.yaml", scram.ReplaceAll(content, []byte("verifier: "+verifier)))
	said, err := exec.Command(harness.Binary(t), "check-config", "--config", filepath.Join(g.Dir, "postern.yaml")).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(said, []byte("verifier")) || bytes.Contains(said, []byte(verifier)) {
		t.Errorf("check-config: %v: %s", err, said)
	}
}
