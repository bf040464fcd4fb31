// What is everywhere in a cluster: guesses are counted together, and operators mean all nodes whichever they ask.

package e2e

import (
	"testing"

	"github.com/postern/postern/test/harness"
)

// TestGuessesOfACluster: ten guesses, spread over two nodes, are as many as at one.
func TestGuessesOfACluster(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	all := w.fellows("a", "b")
	const guesser, neighbour = "203.0.113.7", "203.0.113.8"
	for range 5 {
		for _, g := range all {
			if code := g.comes(t, guesser, "wrong"); code != "28P01" {
				t.Errorf("a guess: %s", code)
			}
		}
	}
	for _, g := range all {
		c := g.console(t)
		harness.Eventually(t, harness.Patience, "it has counted all of them", func() bool {
			for _, r := range show(t, c, "BANS") {
				if r["tenant"] == "acme" && r["address"] == guesser {
					return r["failures"] == "10"
				}
			}
			return false
		})
		closeConn(c)
		if code := g.comes(t, guesser, harness.AppPassword); code != "53400" {
			t.Errorf("the right password: %s", code)
		}
		if code := g.comes(t, neighbour, harness.AppPassword); code != "ok" {
			t.Errorf("a neighbour: %s", code)
		}
	}
	found := false
	for _, r := range all[1].api(t, all[1].Token, "GET", "/v1/tenants/acme/refusals", nil).want(t, 200).body["refusals"].([]any) {
		if r := r.(map[string]any); r["address"] == guesser && r["reason"] == "password" {
			found = r["count"] == 10.0
		}
	}
	if !found {
		t.Error("the refusals of both nodes are not told")
	}
	c := all[1].console(t)
	tag(t, c, "CLEAR BAN "+guesser)
	for _, g := range all {
		harness.Eventually(t, harness.Patience, "it is let in again", func() bool { return g.comes(t, guesser, harness.AppPassword) == "ok" })
	}
}

// TestOperatorsMeanAllNodes with what they say to one.
func TestOperatorsMeanAllNodes(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	all := w.fellows("a", "b")
	a, b := all[0], all[1]
	ca, cb := a.console(t), b.console(t)
	victim := a.connect(t, "transaction", "application_name=victim")
	before := value(t, victim, "select pg_backend_pid()")
	tag(t, cb, "RECONNECT acme")
	tag(t, cb, "WAIT_CLOSE acme")
	if now := value(t, victim, "select pg_backend_pid()"); now == before {
		t.Error("a's server was not replaced")
	}
	got := b.api(t, b.Token, "PATCH", "/v1/tenants/acme", harness.Map{"allow_list": []string{"198.51.100.0/24"}}).want(t, 409).body
	if got["sessions"] != 1.0 {
		t.Errorf("%v", got)
	}
	mine := b.connect(t, "transaction")
	id := row(t, show(t, ca, "CLIENTS"), "application_name", "victim")["id"]
	tag(t, cb, "KILL_CLIENT "+id)
	ends(t, victim, "57P01")
	value(t, mine, "select 1")
	refused(t, cb, "KILL_CLIENT "+id, "22023", "client not found")
}
