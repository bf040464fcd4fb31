// Guessing: who exists, and with which password.

package hostile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// attempt is a login with a wrong password, as the client sees it, with what is random taken out.
func (g *gate) attempt(t *testing.T, user string, nonce string) (transcript, salt string) {
	t.Helper()
	p := g.connect(t, g.freshClient())
	p.send(startup(v30, "user", user, "database", "postgres"))
	s := &scramClient{password: canaryWrong, nonce: nonce}
	offered := p.auth(10)
	p.send(initial(scramPlain, s.first()))
	challenge := p.auth(11)
	p.send(message('p', s.final(t, challenge)))
	kind, body, err := p.message()
	if err != nil {
		t.Fatal(err)
	}
	p.fin()
	p.Close()
	salt = attribute(challenge, "s")
	ours := strings.TrimPrefix(attribute(challenge, "r"), nonce)
	masked := strings.NewReplacer(ours, strings.Repeat("N", len(ours)), salt, strings.Repeat("S", len(salt))).Replace(string(challenge))
	return fmt.Sprintf("%q\n%q\n%c %q", offered, masked, kind, body), salt
}

// TestGhosts is B11, B12, S30 and S31: a wrong password, an unknown user and an unknown tenant look the same, byte for
// byte but for what is random, and stay the same: on the next try, and after a restart.
func TestGhosts(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	const nonce = "abcdefghijklmnopqrst"
	salts := make(map[string]string)
	g.guard(t, 0, func() {
		want, real := g.attempt(t, "app.acme", nonce)
		salts["app.acme"] = real
		for _, tenant := range []string{"globex", "ghost", "Not An Id", strings.Repeat("x", 200)} {
			if got, salt := g.attempt(t, "app."+tenant, nonce); got != want {
				t.Errorf("tenant %q: %s\nwant %s", tenant, got, want)
			} else {
				salts["app."+tenant] = salt
			}
		}
		for _, user := range []string{"ghost.acme", "other.acme", "ghost.ghost"} {
			role, _, _ := strings.Cut(user, ".")
			got, salt := g.attempt(t, user, nonce)
			if got := strings.Replace(got, fmt.Sprintf("user \\\"%s\\\"", role), `user \"app\"`, 1); got != want {
				t.Errorf("user %q: %s\nwant %s", user, got, want)
			}
			salts[user] = salt
		}
		for user, first := range salts {
			if _, again := g.attempt(t, user, nonce); again != first {
				t.Errorf("%s has another salt on the second try", user)
			}
		}
		if salts["ghost.acme"] == salts["ghost.ghost"] || salts["ghost.acme"] == salts["app.ghost"] {
			t.Error("different ghosts have one salt")
		}
	})
	// Another process with the same file, and then one with another.
	again := startGate(t, gateOptions{mockSecret: g.mockSecret})
	for user, first := range salts {
		if _, salt := again.attempt(t, user, nonce); salt != first {
			t.Errorf("%s has another salt after a restart", user)
		}
	}
	other := startGate(t, gateOptions{})
	if _, salt := other.attempt(t, "ghost.acme", nonce); salt == salts["ghost.acme"] {
		t.Error("a ghost's salt does not depend on the secret")
	}
}

// TestThrottle guesses until it is stopped, and looks who else is.
func TestThrottle(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	at := func(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), 40000) }
	guess := func(client netip.AddrPort, tenant string) (code string, e map[byte]string) {
		t.Helper()
		p := g.connect(t, client)
		p.send(startup(v30, "user", "app."+tenant))
		kind, body, err := p.message()
		if err != nil {
			t.Fatal(err)
		}
		if kind == 'E' {
			e = fields(body)
			p.fin()
			return e['C'], e
		}
		s := &scramClient{password: canaryWrong}
		p.send(initial(scramPlain, s.first()))
		p.send(message('p', s.final(t, p.auth(11))))
		return "28P01", p.fatal("28P01")
	}
	// stopped guesses until the gate refuses to listen.
	stopped := func(client netip.AddrPort, tenant string) {
		t.Helper()
		for n := 0; ; n++ {
			code, e := guess(client, tenant)
			if code == "28P01" && n < 50 {
				continue
			}
			if code != "53400" || n < 3 {
				t.Fatalf("guess %d: %v", n, e)
			}
			var seconds int
			if _, err := fmt.Sscanf(e['H'], "Try again in %d seconds.", &seconds); err != nil || seconds < 1 || seconds > 600 {
				t.Errorf("hint %q", e['H'])
			}
			return
		}
	}
	g.guard(t, 0, func() {
		stopped(at("198.51.100.7"), "acme")
		before := counters(g.Metrics(t))
		if code, _ := guess(at("198.51.100.7"), "acme"); code != "53400" {
			t.Errorf("then again %s", code)
		}
		g.moved(t, before, header("ok"), refusal("throttle"))

		// The right password does not help him there, or the throttle would tell which guess was right.
		p := g.connect(t, at("198.51.100.7"))
		p.send(appStartup())
		p.fatal("53400")
		// Nobody else is stopped: neither others at that tenant, nor he elsewhere.
		g.login(t, "acme", at("198.51.100.8")).quit()
		g.login(t, "globex", at("198.51.100.7")).quit()

		// An IPv6 client has a /64 to rotate in.
		for i := 0; ; i++ {
			code, e := guess(at(fmt.Sprintf("2001:db8:0:7::%x", i+1)), "acme")
			if code == "53400" {
				break
			}
			if i > 50 {
				t.Fatalf("guess %d: %v", i, e)
			}
		}
		g.login(t, "acme", at("2001:db8:0:8::1")).quit()

		// Ghosts are throttled alike, or the throttle would tell who exists.
		stopped(at("198.51.100.9"), "ghost")
		g.login(t, "acme", at("198.51.100.9")).quit()

		// What breaks the protocol is no guess.
		for range 15 {
			p := g.connect(t, at("198.51.100.10"))
			p.send(appStartup())
			p.auth(10)
			p.send(first("garbage"))
			p.fatal("08P01")
		}
		g.login(t, "acme", at("198.51.100.10")).quit()
	})
}

// TestParallelGuesses starts many logins at once: those that began before the address was stopped get no guess either.
func TestParallelGuesses(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	client := g.freshClient()
	g.guard(t, 0, func() {
		type guess struct {
			p         *peer
			s         *scramClient
			challenge []byte
		}
		var all []guess
		for range 40 {
			p := g.connect(t, client)
			p.send(appStartup())
			s := &scramClient{password: canaryWrong}
			all = append(all, guess{p, s, p.begin(s)})
		}
		judged := 0
		for _, one := range all {
			one.p.send(message('p', one.s.final(t, one.challenge)))
			body := one.p.want("E")
			one.p.fin()
			switch code := fields(body)['C']; code {
			case "28P01":
				judged++
			case "53400":
			default:
				t.Errorf("error %v", fields(body))
			}
		}
		if judged > 10 {
			t.Errorf("%d guesses were judged", judged)
		}
	})
}

// nasty has a line break and a forged line, an escape sequence, DEL, C1, what is not UTF-8, a right-to-left override and a
// line separator.
const nasty = "n\n{}\x1b[31m\x7f\u009b\xff\u202e\u2028"

// TestLogOfNames is the other half of S24: the log is written by the gate, not by who chose a name.
func TestLogOfNames(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	g.guard(t, 0, func() {
		p := g.connect(t, g.freshClient())
		p.send(startup(v30, "user", nasty, "options", `reference=`+strings.ReplaceAll(nasty, "\n", "\\\n")))
		p.wrongPassword(nasty)
	})
	g.said(t, `"msg":"client refused"`, `"sqlstate":"28P01"`)
}

// TestLogOfDatabaseNames is the same for what a good user calls a database.
func TestLogOfDatabaseNames(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{timeouts: brief})
	g.guard(t, 3, func() {
		for _, name := range []string{nasty, strings.Repeat("x", 8000)} {
			p := g.connect(t, g.freshClient())
			p.send(startup(v30, "user", "app.acme", "database", name))
			p.prove(&scramClient{password: canaryRight})
			p.fatal("3D000")
		}
	})
	g.said(t, `"msg":"server login failed"`, `"msg":"session ended"`)
}
