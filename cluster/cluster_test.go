// Tests of nodes that come, go, die and come back.

package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// TestThreeNodes: who is in the store finds the others there, without being told where to look, and calls them. One that ends in order is gone
// at once.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b, c := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t), echo(open(t, "c", s, keys)).run(t)
	together(t, a, b, c)
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "c", "b: hi")
	c.echoes(t, "a", "c: hi")
	for _, m := range a.Members() {
		if m.Region != "ams" || m.Protocol != Protocol || m.Leaving || m.State == Left || m.Since.IsZero() { // a busy machine is suspected now and then
			t.Errorf("%+v", m)
		}
	}
	if got := a.Name() + b.Name() + c.Name(); got != "abc" {
		t.Error(got)
	}
	eventually(t, "they agree with the store", func() bool { return a.diverges() == [2]int{} && c.diverges() == [2]int{} })
	c.stop(nil)
	s.remove("c")
	eventually(t, "it has left", func() bool { return a.sees(c, Left) && b.sees(c, Left) })
	eventually(t, "its row is gone", func() bool {
		_, err := a.Call(t.Context(), "c", "echo", nil)
		return errors.Is(err, ErrNoNode)
	})
	if _, err := a.Call(t.Context(), "a", "echo", nil); !errors.Is(err, ErrNoNode) {
		t.Errorf("calling oneself: %v", err)
	}
}

// diverges is how many members have no row, and rows no member.
func (n *node) diverges() [2]int {
	noRow, noMember := n.divergence()
	return [2]int{noRow, noMember}
}

// TestKilledAndStartedAgain: who dies without a word is suspected, and then gone; under its name, at another address, it is back at once.
func TestKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t)
	together(t, a, b)
	a.echoes(t, "b", "a: hi")
	b.stop(errNoGoodbye)
	eventually(t, "it is suspected", func() bool { return a.members.suspected() == 1 })
	if _, err := a.Call(t.Context(), "b", "echo", nil); !errors.Is(err, ErrAway) {
		t.Errorf("calling the dead: %v", err)
	}
	again := echo(open(t, "b", s, keys))
	if again.Here().Address == b.Here().Address {
		t.Fatal("it has the same address")
	}
	again.run(t)
	a.echoes(t, "b", "a: hi") // by the name; nobody has waited for the other to be found dead
	together(t, a, again)
	eventually(t, "the dead one is gone", func() bool { return a.sees(b, Left) && a.log.has("a node is gone", "node=b") })
	if !a.log.has("a node does not answer", "node=b") || !a.log.has("a node is there", "node=b", "region=ams") {
		t.Errorf("the log does not say it:\n%s", a.log)
	}
}

// TestJoin: while the store is away, nodes are found where they are told to look. They are no more than heard of.
func TestJoin(t *testing.T) {
	t.Parallel()
	keys := keyFile(t, newKey())
	away := newStore()
	away.setAway(true)
	a := echo(open(t, "a", away, keys)).run(t)
	at := a.Here().Gossip.String()
	b := start(t, "b", away, keys, func(o *Options) {
		o.Join = []string{"no-such-host.invalid", "127.0.0.1:1", "localhost:" + strconv.Itoa(int(a.Here().Gossip.Port())), at}
	})
	together(t, a, b)
	if got := b.diverges(); got != [2]int{2, 0} {
		t.Errorf("diverges: %v", got)
	}
	if _, err := b.Call(t.Context(), "a", "echo", nil); !errors.Is(err, ErrNoNode) {
		t.Errorf("calling who is only heard of: %v", err)
	}
	away.setAway(false)
	b.echoes(t, "a", "b: hi")
	eventually(t, "they agree with the store", func() bool { return a.diverges() == [2]int{} && b.diverges() == [2]int{} })
}

// TestStoreAway: what is known holds, and who is new is not let in.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t)
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "a", "b: hi")
	s.setAway(true)
	other := newStore()
	other.put(tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()})
	stranger := echo(open(t, "c", other, keys)).run(t)
	if _, err := stranger.Call(t.Context(), "a", "echo", nil); !errors.Is(err, ErrRefused) {
		t.Errorf("a node that the store does not have yet: %v", err)
	}
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "a", "b: hi")
	s.put(tenants.Node{Name: "c", Boot: stranger.opts.Boot, Here: stranger.Here()})
	s.setAway(false)
	stranger.echoes(t, "a", "c: hi")
}

// TestLeave: who drains says so at once, to the gossip and to who writes its row, and goes on answering.
func TestLeave(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys)
	var b *node
	b = echo(open(t, "b", s, keys, func(o *Options) { o.Announce = func() { b.announce() } })).run(t)
	together(t, a, b)
	b.Leave(t.Context())
	b.Leave(t.Context())
	leaves := func(is func(m Member) bool) bool {
		for _, m := range a.Members() {
			if m.Name == "b" {
				return is(m)
			}
		}
		return false
	}
	eventually(t, "the other one hears of it", func() bool { return leaves(func(m Member) bool { return m.Leaving && m.State == Alive }) })
	eventually(t, "the row says so", func() bool { n, _ := a.rows.named("b"); return n.Leaving })
	a.echoes(t, "b", "a: hi")
}

// TestAnotherName: a process that had to take another name, because its own was taken, is that one to others.
func TestAnotherName(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t)
	s.remove("b")
	s.put(tenants.Node{Name: "b-XYZ", Boot: b.opts.Boot, Here: b.Here()})
	eventually(t, "it has another name", func() bool { return b.Name() == "b-XYZ" })
	b.echoes(t, "a", "b-XYZ: hi")
	a.echoes(t, "b-XYZ", "a: hi")
	eventually(t, "they agree with the store", func() bool { return a.diverges() == [2]int{} })
}

// TestTooManyNodes are told of, once for each number of them.
func TestTooManyNodes(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys, func(o *Options) { o.MaxNodes = 1 })
	b := start(t, "b", s, keys)
	said := func() int { return strings.Count(a.log.String(), "more nodes than cluster.max_nodes") }
	read := func() { // the rows, several times
		for range 5 {
			a.rows.again(t.Context())
		}
	}
	eventually(t, "the log says so", func() bool { return a.log.has("max_nodes=1", "nodes=2") })
	if read(); said() != 1 {
		t.Errorf("%d lines", said())
	}
	start(t, "c", s, keys)
	eventually(t, "it says that there are more", func() bool { return a.log.has("max_nodes=1", "nodes=3") })
	s.remove("b")
	s.remove("c")
	read()
	b.announce()
	eventually(t, "it is told again", func() bool { return strings.Count(a.log.String(), "nodes=2") == 2 })
	if read(); said() != 3 {
		t.Errorf("%d lines:\n%s", said(), a.log)
	}
}

// TestOtherMaxNodes: nodes that divide limits by different numbers both say so, once, with both numbers.
func TestOtherMaxNodes(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b, same := start(t, "a", s, keys), start(t, "b", s, keys, func(o *Options) { o.MaxNodes = 3 }), start(t, "c", s, keys)
	eventually(t, "both say so", func() bool {
		return a.log.has("level=WARN", "another cluster.max_nodes", "node=b", "max_nodes=3", "here=8") && b.log.has("level=WARN", "another cluster.max_nodes", "node=a", "max_nodes=8", "here=3")
	})
	eventually(t, "all have greeted each other", func() bool {
		return a.greeted.has(same.opts.Boot) && same.greeted.has(a.opts.Boot) && same.greeted.has(b.opts.Boot) && b.greeted.has(same.opts.Boot)
	})
	for range 5 {
		a.rows.again(t.Context())
	}
	for n, want := range map[*node]int{a: 1, b: 2, same: 1} {
		if got := strings.Count(n.log.String(), "another cluster.max_nodes"); got != want {
			t.Errorf("%s: %d lines, want %d", n.opts.Name, got, want)
		}
	}
	a.compare("d", nil) // of a version before
	a.compare("d", []byte("{"))
	if a.log.has("node=d") {
		t.Error("who says nothing differs")
	}
}

// TestOpenRefuses what cannot be, and leaves no port bound.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	const own = "127.0.0.77:" // where no other test takes a port that was free a moment ago
	taken, err := net.Listen("tcp4", own+"0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	busy := taken.Addr().(*net.TCPAddr).Port
	good := func() Options {
		return Options{Name: "a", Boot: "b", Bind: own + "0", KeyFile: keyFile(t, newKey()), Nodes: newStore().nodes, Log: discard}
	}
	for what, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"a name with a slash":    {func(o *Options) { o.Name = "a/b" }, "names of nodes"},
		"no boot":                {func(o *Options) { o.Boot = "" }, "names of nodes"},
		"a region with spaces":   {func(o *Options) { o.Region = "in the north" }, "names of nodes"},
		"no key file":            {func(o *Options) { o.KeyFile = "/does/not/exist" }, "key file of the cluster"},
		"no port":                {func(o *Options) { o.Bind = "127.0.0.77" }, "cluster.bind"},
		"the last port":          {func(o *Options) { o.Bind = own + "65535" }, "below 65535"},
		"a port that is taken":   {func(o *Options) { o.Bind = own + strconv.Itoa(busy) }, "cluster.bind: listen tcp4"},
		"the next one is":        {func(o *Options) { o.Bind = own + strconv.Itoa(busy-1) }, "cluster.bind: "},
		"no address for others":  {func(o *Options) { o.Bind = "0.0.0.0:0" }, "cluster.advertise"},
		"a last port for others": {func(o *Options) { o.Advertise = netip.MustParseAddrPort("127.0.0.77:65535") }, "cluster.advertise"},
	} {
		o := good()
		tc.change(&o)
		c, err := Open(o)
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", what, err, tc.want)
		}
	}
	c, err := Open(good())
	if err != nil {
		t.Fatal(err)
	}
	at := c.Here()
	if at.Address.Port() != at.Gossip.Port()+1 || at.Protocol != Protocol || len(at.Fingerprint) != 64 || at.Leaving {
		t.Errorf("%+v", at)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, port := range []netip.AddrPort{at.Gossip, at.Address} {
		l, err := net.Listen("tcp4", port.String())
		if err != nil {
			t.Errorf("the port is still bound: %v", err)
			continue
		}
		_ = l.Close()
	}
}

// TestEveryAddress: bound to all addresses, with the one told at which others come.
func TestEveryAddress(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	all := func(bind, told string) func(*Options) {
		return func(o *Options) { o.Bind, o.Advertise = bind, netip.AddrPortFrom(netip.MustParseAddr(told), 0) }
	}
	a := echo(open(t, "a", s, keys, all("0.0.0.0:0", "127.0.0.1"))).run(t)
	b := echo(open(t, "b", s, keys, all(":0", "127.0.0.1"))).run(t)
	together(t, a, b)
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "a", "b: hi")
}

// TestNoRowsYet: a call waits for the first rows, and no longer than its caller.
func TestNoRowsYet(t *testing.T) {
	t.Parallel()
	n := open(t, "a", newStore(), keyFile(t, newKey()))
	defer func() { _ = n.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Call(ctx, "b", "echo", nil); !errors.Is(err, ErrNoNode) {
		t.Error(err)
	}
}
