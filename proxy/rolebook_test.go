// Tests of the books of roles: who has a list asked for how soon, where, and which failures it forgives.

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// TestStrangersWhoFailInVain neither keep a server busy nor hold anybody's login up, and who has been in before is heard soon all the same.
func TestStrangersWhoFailInVain(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "first"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.roles.patience.known = 10 * time.Second // a computer may be slow
	g.wants(somebody, "late", "first", "")
	b := g.roles.of("acme")
	b.mu.Lock()
	for range 10 {
		b.schedule.Doubt(roles.Strange)
		b.schedule.Start()
		b.schedule.End(time.Now(), roles.Same)
	}
	b.mu.Unlock()
	asked := s.asked.Load()

	s.lists(roleRow(t, "late", "second"))
	g.wants(somebodyElse, "late", "second", "28P01")
	if _, _, wait := g.lookAtRoles(b, time.Now()); wait {
		t.Error("logins wait for a list that nobody asks for soon")
	}
	g.wants(somebodyElse, "late", "second", "28P01")
	g.wants(somebody, "late", "first", "")
	if n := s.asked.Load() - asked; n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	g.wants(somebody, "late", "second", "28P01")
	g.wants(somebodyElse, "late", "second", "") // which waits for the list
	if n := s.asked.Load() - asked; n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestGuestsAreBounded: the newest are remembered.
func TestGuestsAreBounded(t *testing.T) {
	g := newRoleGate(t, nil, newRoleServer(t).tenant("acme"))
	conf, _ := g.conf("acme")
	v := &visitor{gate: g.Gate, trial: trial{conf: conf}}
	for i := range 2 * maxGuests {
		v.peer = proxyproto.Direct(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1))
		g.proved(v)
		g.proved(v)
	}
	guests := g.roles.of("acme").guests.all
	first, last := netip.MustParsePrefix("10.0.0.0/32"), netrestrict.Subscriber(v.peer.Client.Addr())
	has := func(p netip.Prefix) (n int) {
		for _, is := range guests {
			if is == p {
				n++
			}
		}
		return n
	}
	if len(guests) != maxGuests || has(first) != 0 || has(last) != 1 {
		t.Errorf("%d guests, the first of all %d times, the last %d times", len(guests), has(first), has(last))
	}
}

// TestMachinesThatWereLeft are not asked what the next one shall be asked: neither before the loop has heard of the move nor after.
func TestMachinesThatWereLeft(t *testing.T) {
	old, now := newRoleServer(t), newRoleServer(t)
	old.lists(roleRow(t, "late", "old"))
	now.lists(roleRow(t, "late", "now"))
	on := func(machine string) *tenants.Tenant {
		conf := old.tenant("acme")
		conf.Upstream.Host, conf.Upstream.Port = "", 0
		conf.Machine = &tenants.Machine{Provider: "local", Name: machine}
		return conf
	}
	at := func(s *roleServer) machines.Endpoint {
		where := netip.MustParseAddrPort(s.ln.Addr().String())
		return machines.Endpoint{Host: where.Addr().String(), Port: where.Port()}
	}
	g := newRoleGate(t, nil)
	g.opts.Driver = func(*tenants.Tenant) (machines.Driver, error) { return nil, errors.New("none") }
	held, free := make(chan struct{}), make(chan struct{})
	defer close(free)
	g.loops[0].Post(func() { close(held); <-free }) // what it says is said here
	<-held
	before := on("one")
	put(t, g.Gate, before)
	after := on("two")
	put(t, g.Gate, after)
	b := g.roles.of("acme")
	known := func() (role roles.Role, listed bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.list.Role("late")
	}
	running := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.cut != nil
	}
	g.reachRoles(before, roles.There, at(old))
	if running() {
		t.Error("the machine of before is asked")
	}
	// The machine itself moves while its server is asked.
	old.says(nil)
	g.reachRoles(after, roles.There, at(old))
	soon(t, "it is asked where it was", func() bool { return old.asked.Load() == 1 })
	b.mu.Lock()
	b.endpoint = at(now)
	b.mu.Unlock()
	list := roles.NewBuilder("asker")
	g.rolesListed(b, at(old), list.List(), nil)
	if _, ok := known(); ok || b.list != nil {
		t.Error("what the place of before has said is taken")
	}
	g.sweepRoles("acme")
	soon(t, "it is asked where it is", func() bool { _, ok := known(); return ok })
	want, err := scram.ParseVerifier(roleRow(t, "late", "now")[1])
	if err != nil {
		t.Fatal(err)
	}
	if role, _ := known(); !role.Verifier.Equal(want) {
		t.Error("it has another verifier than where it is")
	}
}

// TestForgivenFailures: the newest count, as long as the throttle counts them, and those of a role that is as it was are not forgiven.
func TestForgivenFailures(t *testing.T) {
	list := func(rows ...[]string) *roles.List {
		b := roles.NewBuilder("asker")
		for _, r := range rows {
			if err := b.Add([][]byte{[]byte(r[0]), []byte(r[1]), nil, []byte("t"), []byte("-1")}); err != nil {
				t.Fatal(err)
			}
		}
		return b.List()
	}
	was, is := list(roleRow(t, "late", "first"), roleRow(t, "boss", "pw")), list(roleRow(t, "late", "second"), roleRow(t, "boss", "pw"), roleRow(t, "young", "pw"))
	now := time.Now()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	const window = time.Hour
	for name, c := range map[string]struct {
		failures []roleFailure
		want     int
	}{
		"another password":    {[]roleFailure{{"late", addr(1), now}}, 1},
		"a new role":          {[]roleFailure{{"young", addr(1), now}}, 1},
		"a role as before":    {[]roleFailure{{"boss", addr(1), now}}, 0},
		"nobody":              {[]roleFailure{{"nobody", addr(1), now}}, 0},
		"within the window":   {[]roleFailure{{"late", addr(1), now.Add(-window + time.Second)}}, 1},
		"before it":           {[]roleFailure{{"late", addr(1), now.Add(-window)}}, 0},
		"twice":               {[]roleFailure{{"late", addr(1), now}, {"late", addr(1), now}}, 2},
		"after many":          {append(manyFailures(2*maxRoleFailures, now), roleFailure{"late", addr(1), now}), 1},
		"many, one per place": {append(manyFailures(maxRoleFailures-1, now), roleFailure{"late", addr(1), now}), 1},
		"before many":         {append([]roleFailure{{"late", addr(1), now}}, manyFailures(maxRoleFailures, now)...), 0},
	} {
		b := &roleBook{list: was}
		for _, f := range c.failures {
			b.failures.add(f, maxRoleFailures)
		}
		if len(b.failures.all) > maxRoleFailures {
			t.Errorf("%s: %d are remembered", name, len(b.failures.all))
		}
		if got := b.forgiven(is, now, window); len(got) != c.want {
			t.Errorf("%s: %d are forgiven, want %d", name, len(got), c.want)
		}
		if len(b.failures.all) != 0 {
			t.Errorf("%s: they may be forgiven twice", name)
		}
	}
	for configured, want := range map[time.Duration]time.Duration{0: netrestrict.DefaultWindow, window: window} {
		if got := netrestrict.NewThrottle(netrestrict.ThrottleConfig{Window: configured}).Window(); got != want {
			t.Errorf("a window of %v is one of %v", configured, got)
		}
	}
	if g := newRoleGate(t, nil, newRoleServer(t).tenant("acme")); g.roles.window != netrestrict.DefaultWindow {
		t.Errorf("the books' window is %v", g.roles.window)
	}
}

// manyFailures are of strangers, at nobody's names.
func manyFailures(n int, at time.Time) (all []roleFailure) {
	for i := range n {
		all = append(all, roleFailure{fmt.Sprint("stranger", i), netip.MustParseAddr(somebodyElse), at})
	}
	return all
}
