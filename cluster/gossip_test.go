// Tests of how soon nodes agree again: after a network was cut, after a process was started again, and while names are not found.

package cluster

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/postern/postern/tenants"
)

// unprobed has memberlist find out nothing by itself.
func unprobed(o *Options) {
	o.tune = func(c *memberlist.Config) { quick(c); c.ProbeInterval = time.Hour }
}

// TestGossipIsNotPatient: however long nodes were away, nobody is in the middle of something for long when they are back, and who is gone is
// found to be within moments.
func TestGossipIsNotPatient(t *testing.T) {
	n := open(t, "a", newStore(), keyFile(t, newKey()), func(o *Options) { o.tune = nil })
	defer n.Close()
	c := n.gossipConfig()
	if longest := time.Duration(c.AwarenessMaxMultiplier) * c.ProbeInterval; longest > joinEvery {
		t.Errorf("a probe of one that does not answer lasts %v", longest)
	}
	if longest := time.Duration(c.SuspicionMult*c.SuspicionMaxTimeoutMult) * c.ProbeInterval; longest > 6*time.Second {
		t.Errorf("one that nobody else misses is suspected for %v", longest)
	}
	if gossipDial >= joinEvery || c.GossipToTheDeadTime < 10*joinEvery {
		t.Errorf("who is tried when the network is back is tried %v later, and is told for %v that it was missed", gossipDial, c.GossipToTheDeadTime)
	}
}

// TestSuspectIsAskedAgain, without waiting for memberlist to come round to it.
func TestSuspectIsAskedAgain(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := start(t, "a", s, keys, unprobed), start(t, "b", s, keys, unprobed)
	together(t, a, b)
	a.members.suspect(gossipName("b", b.opts.Boot))
	if !a.sees(b, Suspect) {
		t.Fatal("it is not suspected")
	}
	eventually(t, "it was asked", func() bool { return a.sees(b, Alive) })
}

// TestReplaced: of one that does not answer, and in whose place the store has another process, nobody waits to be told that it is dead. One that
// answers stays.
func TestReplaced(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := start(t, "a", s, keys, unprobed), start(t, "b", s, keys, unprobed)
	together(t, a, b)
	list := func() *memberlist.Memberlist { a.mu.Lock(); defer a.mu.Unlock(); return a.list }()
	is := func(boot string) Member {
		all := a.Members()
		return all[slices.IndexFunc(all, func(m Member) bool { return m.Boot == boot })]
	}
	s.put(tenants.Node{Name: "b", Boot: "another"})
	eventually(t, "the row was read", func() bool { return a.replaced(is(b.opts.Boot)) })
	a.ping(list, is(b.opts.Boot))
	if !a.sees(b, Alive) {
		t.Errorf("it answers: %+v", a.Members())
	}
	a.members.suspect(gossipName("b", b.opts.Boot))
	if !a.sees(b, Left) {
		t.Errorf("it does not answer: %+v", a.Members())
	}
	a.ping(list, is(b.opts.Boot))
	if !a.sees(b, Alive) {
		t.Errorf("it answers again: %+v", a.Members())
	}
	b.stop(errNoGoodbye)
	again := start(t, "b", s, keys, unprobed)
	together(t, a, again)
	eventually(t, "the other one is gone", func() bool { return a.sees(b, Left) && again.diverges() == [2]int{} && a.diverges() == [2]int{} })
}

// TestReplacedAtItsAddress: a process is looked for where the store has it, even if that before it seems to be there.
func TestReplacedAtItsAddress(t *testing.T) {
	t.Parallel()
	s := newStore()
	n := open(t, "a", s, keyFile(t, newKey()))
	defer n.Close()
	at := netip.MustParseAddrPort("127.0.0.1:9")
	row := tenants.Node{Name: "b", Boot: "new", Here: tenants.Here{Gossip: at}}
	s.put(row)
	n.rows.refresh(t.Context())
	n.members.all["b/old"] = &Member{Name: "b", Boot: "old", Gossip: at, State: Alive}
	if got := n.unseenRows(); len(got) != 1 || got[0] != at {
		t.Errorf("who is new: %v", got)
	}
	row.Silent = true // what is silent is not looked for where another one is
	s.put(row)
	n.rows.refresh(t.Context())
	if got := n.unseenRows(); len(got) != 0 {
		t.Errorf("who is silent: %v", got)
	}
	n.members.all["b/old"].State = Left
	if got := n.unseenRows(); len(got) != 1 {
		t.Errorf("where nobody is: %v", got)
	}
	row.Boot = n.opts.Boot
	s.put(row)
	n.rows.refresh(t.Context())
	if got := n.unseenRows(); len(got) != 0 {
		t.Errorf("itself: %v", got)
	}
}

// TestNamesThatAreNotFound hold up neither who is in the store nor other names.
func TestNamesThatAreNotFound(t *testing.T) {
	t.Parallel()
	keys := keyFile(t, newKey())
	hangs := func(o *Options) {
		o.Join = []string{"hangs.invalid", "found.invalid"}
		o.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "hangs.invalid" {
				<-t.Context().Done() // longer than it may
			}
			return nil, t.Context().Err()
		}
	}
	a := start(t, "a", newStore(), keys) // which does not know of b
	s := newStore()
	s.put(tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()})
	together(t, a, start(t, "b", s, keys, hangs))

	found := make(chan string, 100)
	away := newStore()
	away.setAway(true)
	start(t, "c", away, keys, hangs, func(o *Options) {
		slow := o.lookup
		o.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			found <- host
			return slow(ctx, host)
		}
	})
	eventually(t, "both are asked for", func() bool { return len(found) == 2 })
}
