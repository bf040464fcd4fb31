// Failures of this node, as the others are told of them.

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
)

// TestFailuresAreTold: the first at once, what follows in batches, to all nodes that live, and to nobody what nobody can be told.
func TestFailuresAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nodeOf("a", 1)
		n.rows = append(n.rows, rowsOf("e")...)
		n.rows[len(n.rows)-1].Silent = true
		var mu sync.Mutex
		var told []string
		began := time.Now()
		n.answer = func(node, what string, body []byte) (any, error) {
			var f proxy.Failures
			if err := json.Unmarshal(body, &f); err != nil || what != askFailures || len(body) > maxFailures {
				t.Errorf("%s is asked %s %s", node, what, body)
			}
			mu.Lock()
			defer mu.Unlock()
			count := 0
			for _, one := range f.Logins {
				count += one.Count
			}
			told = append(told, fmt.Sprintf("%s after %v: %d in %d, %d guesses", node, time.Since(began), count, len(f.Logins), len(f.Guesses)))
			return struct{}{}, nil
		}
		p := newPeers(n, nil)
		end := p.start()
		fail := func(address byte, times int) {
			for range times {
				p.Failed(netrestrict.Failures{Tenant: "acme", Address: netip.AddrFrom4([4]byte{192, 0, 2, address}), Count: 1})
			}
		}
		wants := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for _, w := range want {
				for _, node := range []string{"b", "c"} {
					if !strings.Contains(strings.Join(told, "\n"), node+" "+w) {
						t.Errorf("%q: %s is not told: %s", told, node, w)
					}
				}
			}
			if len(told) != 2*len(want) {
				t.Errorf("told %q", told)
			}
			told = nil
		}
		synctest.Wait()
		fail(1, 1)
		wants("after 0s: 1 in 1, 0 guesses")
		fail(1, 9)
		fail(2, 3)
		p.Guessed(netip.MustParseAddr("192.0.2.7"))
		wants()
		time.Sleep(failuresPause)
		wants("after 250ms: 12 in 2, 1 guesses")
		time.Sleep(time.Minute) // in which there is nothing to tell
		wants()
		for i := range 2 * netrestrict.MaxTold {
			p.Failed(netrestrict.Failures{Tenant: strings.Repeat("\x01", 63), Address: netip.AddrFrom16([16]byte{0: 0x20, 14: byte(i >> 8), 15: byte(i)}), Count: 1})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		mu.Lock()
		if all := strings.Join(told, "\n"); strings.Count(all, ": 256 in 256") < 2 || len(told) > 6 {
			t.Errorf("told %s", all)
		}
		mu.Unlock()
		end()
		end()
		fail(1, 1) // whom nobody hears any more
		(*peers)(nil).start()()
	})
}

// TestAFrozenNodeKeepsNobodyFromHearing, and as many batches wait for it as have their time.
func TestAFrozenNodeKeepsNobodyFromHearing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nodeOf("a", 1)
		var mu sync.Mutex
		heard := 0
		live, frozen := n.rows[1].Name, n.rows[2].Name
		calls, most := 0, 0
		n.wait = func(node string) (forever bool) {
			mu.Lock()
			defer mu.Unlock()
			if node == live {
				heard++
				return false
			}
			if node != frozen {
				t.Errorf("%s is told", node)
			}
			calls++
			most = max(most, calls)
			return true
		}
		n.left = func(string) { mu.Lock(); calls--; mu.Unlock() }
		n.answer = func(string, string, []byte) (any, error) { return struct{}{}, nil }
		p := newPeers(n, nil)
		end := p.start()
		for range 40 {
			p.Failed(netrestrict.Failures{Tenant: "acme", Address: netip.MustParseAddr("192.0.2.1"), Count: 1})
			time.Sleep(failuresPause)
		}
		synctest.Wait()
		mu.Lock()
		if heard < 39 || most > int(failuresWithin/failuresPause)+1 {
			t.Errorf("the other one has heard %d, and %d waited at once", heard, most)
		}
		mu.Unlock()
		end()
	})
}

// TestFailuresOfFellows go over the nodes' port and count there.
func TestFailuresOfFellows(t *testing.T) {
	var rows book
	keys := clusterKeys(t)
	a, b := rows.fellow(t, "a", keys), rows.fellow(t, "b", keys)
	rows.acquainted(t, a, b)
	guesser := netip.MustParseAddr("2001:db8::7")
	for range netrestrict.DefaultTenantFailures {
		a.peers.Failed(netrestrict.Failures{Tenant: "acme", Address: guesser, Count: 1})
	}
	end := a.peers.start()
	defer end()
	eventually(t, "b has counted them", func() bool {
		bans := b.gate.Bans("acme")
		return len(bans) == 1 && bans[0].Address.Contains(guesser) && bans[0].Failures == netrestrict.DefaultTenantFailures
	})
	if bans := a.gate.Bans("acme"); len(bans) > 0 {
		t.Errorf("a has been told of its own: %v", bans)
	}
}

// TestLockOutsAreAddedUp over all nodes that answer.
func TestLockOutsAreAddedUp(t *testing.T) {
	n := nodeOf("b", 1)
	c := control{gateOf(t)(), nil}
	c.peers = newPeers(n, func() *proxy.Gate { return c.gate })
	n.answer = func(node, what string, body []byte) (any, error) {
		var q lockQuestion
		if err := json.Unmarshal(body, &q); err != nil || what != askLockedOut || q.Tenant != "acme" || fmt.Sprint(q.Users) != "[app]" || strings.Contains(string(body), "s3cret") {
			t.Errorf("%s is asked %s %s", node, what, body)
		}
		return tally{Locked: 2, Open: map[string]int{"a": 2, "c": 3}[node]}, nil
	}
	acme := tenants.New("acme")
	acme.Upstream.Host = "127.0.0.1"
	acme.Users = map[string]*tenants.User{"app": {Name: "app", Password: tenants.NewSecret("s3cret")}}
	if locked, open, missing, err := c.LockedOut(t.Context(), acme); locked != 4 || open != 5 || len(missing) > 0 || err != nil {
		t.Errorf("%d of %d, missing %v, %v", locked, open, missing, err)
	}
}

// TestLockOutsOfFellows: sessions elsewhere are asked about, whatever the tenant has; who does not answer is named.
func TestLockOutsOfFellows(t *testing.T) {
	var rows book
	keys := clusterKeys(t)
	a, b := rows.fellow(t, "a", keys), rows.fellow(t, "b", keys)
	rows.acquainted(t, a, b)
	acme := tenants.New("acme")
	acme.Upstream.Host = "127.0.0.1"
	var rules []netrestrict.Rule
	for i := range 2000 { // far more than fit into a question of another kind
		rules = append(rules, netrestrict.Rule{Network: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), Comment: strings.Repeat("x", 100)})
	}
	var err error
	if acme.Allow, err = netrestrict.CompileRules(rules); err != nil {
		t.Fatal(err)
	}
	acme.Users = map[string]*tenants.User{"app": {Name: "app", Password: tenants.NewSecret("s3cret")}}
	acme.Complete()
	eventually(t, "b answers", func() bool { // in time, on a machine that may be busy
		locked, open, missing, err := a.LockedOut(t.Context(), acme)
		return locked == 0 && open == 0 && len(missing) == 0 && err == nil
	})
	rows.add(tenants.Node{Name: "d", Boot: "D", Here: tenants.Here{Address: netip.MustParseAddrPort("127.0.0.1:1"), Fingerprint: strings.Repeat("0", 64)}})
	eventually(t, "it is known", func() bool { return len(a.peers.others()) == 2 })
	eventually(t, "d alone is missing", func() bool {
		_, _, locked, err := a.LockedOut(t.Context(), acme)
		_, refused, err2 := a.Refusals(t.Context(), "acme")
		return fmt.Sprint(locked, refused) == "[d] [d]" && err == nil && err2 == nil
	})
}
