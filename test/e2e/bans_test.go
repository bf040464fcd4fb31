// Bans of two processes on one store: what one has counted holds at both, for nobody else, and is lifted at either.

package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// comes is a login at acme from an address behind the balancer, as a SQLSTATE or "ok".
func (g *gate) comes(t *testing.T, client, password string) string {
	t.Helper()
	conf, err := pgconn.ParseConfig(g.dsn("transaction"+proxied, "password="+password, "connect_timeout=60"))
	if err != nil {
		t.Fatal(err)
	}
	conf.DialFunc = harness.ProxyDialer{Header: header(2, client)}.DialContext
	conn, err := pgconn.ConnectConfig(t.Context(), conf)
	if err == nil {
		_ = conn.Close(t.Context())
	}
	return sqlstate(err)
}

func TestTwoNodesOneBan(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	delete(w.tenants["postgres"].(harness.Map), "cache_file") // which is of one process
	w.command("init")
	w.acme["never_ban"] = []string{"203.0.113.128/25"}
	w.load(w.acme)
	start := func() *gate {
		file := withConsole(t)
		file["tenants"] = w.tenants
		file["listeners"] = append(file["listeners"].([]harness.Map), harness.Map{"name": "transaction" + proxied, "address": "127.0.0.1:0", "pool_mode": "transaction",
			"proxy_protocol": "require", "trusted_proxies": []string{"127.0.0.0/8"}})
		return &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: file})}
	}
	a, b := start(), start()
	const guesser, neighbour, owner = "203.0.113.7", "203.0.113.8", "203.0.113.200"
	const right = harness.AppPassword

	// However many guesses are under way, ten are judged, wherever the right one is among them.
	var all sync.WaitGroup
	var mu sync.Mutex
	got := make(map[string]int)
	for range 200 {
		all.Go(func() {
			code := a.comes(t, guesser, "wrong")
			mu.Lock()
			defer mu.Unlock()
			got[code]++
		})
	}
	all.Wait()
	if got["28P01"] != 10 || got["53400"] != 190 {
		t.Errorf("200 guesses came to %v", got)
	}
	meet := func(what string, g *gate, client, want string) {
		t.Helper()
		began := time.Now()
		harness.Eventually(t, harness.Patience, what, func() bool { return g.comes(t, client, right) == want })
		t.Logf("%s: after %v", what, time.Since(began))
	}
	meet("the ban of a holds at b", b, guesser, "53400")
	for _, g := range []*gate{a, b} {
		if code := g.comes(t, neighbour, right); code != "ok" {
			t.Errorf("a neighbour behind the same balancer: %s", code)
		}
	}
	c := b.console(t)
	if got := row(t, show(t, c, "BANS"), "tenant", "acme"); got["address"] != guesser || got["failures"] != "10" {
		t.Errorf("b shows %v", got)
	}
	tag(t, c, "CLEAR BAN "+guesser)
	if code := b.comes(t, guesser, right); code != "ok" {
		t.Errorf("at b after it was lifted there: %s", code)
	}
	meet("what was lifted at b is lifted at a", a, guesser, "ok")
	// The owner's own may fail as often as they like.
	for range 12 {
		if code := a.comes(t, owner, "wrong"); code != "28P01" {
			t.Errorf("an address of never_ban: %s", code)
		}
	}
	if code := a.comes(t, owner, right); code != "ok" {
		t.Errorf("an address of never_ban with the right password: %s", code)
	}
	// By the API of one, for both.
	const path = "/v1/tenants/acme/bans"
	b.api(t, b.Token, "POST", path, harness.Map{"address": "203.0.113.0/25", "seconds": 3600}).want(t, 201)
	meet("a ban by the API of b holds at a", a, neighbour, "53400")
	listed, _ := a.api(t, a.Token, "GET", path, nil).want(t, 200).body["bans"].([]any)
	if len(listed) != 1 || listed[0].(map[string]any)["address"] != "203.0.113.0/25" || listed[0].(map[string]any)["manual"] != true {
		t.Errorf("a lists %v", listed)
	}
	a.api(t, a.Token, "DELETE", path, harness.Map{"address": neighbour}).want(t, 200)
	meet("lifted by the API of a", b, neighbour, "ok")
	// By hand, for both.
	w.exec(`INSERT INTO postern.bans VALUES ('acme', '203.0.113.0/25', clock_timestamp() + interval '1 hour', 0, true, 'somebody')`)
	meet("a ban by hand holds at a", a, neighbour, "53400")
	meet("and at b", b, neighbour, "53400")
	w.exec(`DELETE FROM postern.bans`)
	meet("its end at a", a, neighbour, "ok")
	meet("and at b", b, neighbour, "ok")
}
