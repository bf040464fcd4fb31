package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// TestDoubts: what is explained in time is not told, everything else is told once, and what is too much is told at once.
func TestDoubts(t *testing.T) {
	d, now := newDoubts(), time.Unix(1000, 0)
	var said []string
	explained := map[string]bool{}
	add := func(what string) {
		d.add(what, now, func() bool { return explained[what] }, func() { said = append(said, what) })
	}
	told := func(want ...string) {
		t.Helper()
		d.judge(now)
		if slices.Sort(said); !slices.Equal(said, want) {
			t.Errorf("told are %q, want %q", said, want)
		}
		said = nil
	}
	add("explained")
	add("late")
	add("resolved")
	told()
	now = now.Add(doubtFor - 1)
	explained["explained"] = true
	d.resolve("resolved")
	add("late") // again, which is no other one
	told()
	now = now.Add(1)
	add("new")
	told("late")
	now = now.Add(doubtFor)
	explained["new"] = true // before anybody has looked
	told()
	for i := range maxDoubts {
		add(fmt.Sprint(i))
	}
	add("too much")
	add("0")
	if !slices.Equal(said, []string{"too much"}) {
		t.Errorf("told at once are %q", said)
	}
	d.judge(now.Add(doubtFor))
	if len(said) != maxDoubts+1 || len(d.all) != 0 {
		t.Errorf("%d are told, %d are left", len(said), len(d.all))
	}
}

// undoubted waits until a node has nothing left to be explained, and says whether it has logged any of it.
func (n *node) undoubted(t *testing.T) (warned bool) {
	t.Helper()
	eventually(t, "all is explained, or told", func() bool {
		n.doubts.mu.Lock()
		defer n.doubts.mu.Unlock()
		return len(n.doubts.all) == 0
	})
	for _, kind := range []string{"its key is that of no node", "another node refuses this one", "is not that node"} {
		warned = warned || n.log.has("level=WARN", kind)
	}
	return warned
}

// TestOrdinaryStart: a node that is there before its row was read, and one that has taken the address of the process before it, look like
// intruders for a moment. Nobody is told.
func TestOrdinaryStart(t *testing.T) {
	t.Parallel()
	keys, early, late := keyFile(t, newKey()), newStore(), newStore()
	patient := func(n *node) *node { n.doubts.wait = time.Hour; return n }
	a, b := patient(open(t, "a", late, keys)), patient(open(t, "b", early, keys))
	early.put(tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()})
	before := b.Here() // as a knows it
	before.Fingerprint = strings.Repeat("ab", 32)
	late.put(tenants.Node{Name: "b", Boot: "before", Here: before})
	a.run(t)
	b.run(t)
	if _, err := a.Call(withDeadline(t), "b", hello, nil); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	eventually(t, "both are in doubt", func() bool {
		return a.turned("stranger") > 0 && a.log.has("is not that node") && b.log.has("another node refuses this one")
	})
	late.put(tenants.Node{Name: "b", Boot: b.opts.Boot, Here: b.Here()})
	for _, n := range []*node{a, b} {
		if n.undoubted(t) {
			t.Errorf("%s warns of an ordinary start:\n%s", n.opts.Name, n.log)
		}
	}
}

// TestAnAnswerEndsDoubts: what was in the way to a node for a moment is not told.
func TestAnAnswerEndsDoubts(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := open(t, "a", s, keys), echo(open(t, "b", s, keys)).run(t)
	a.doubts.wait = time.Hour
	a.run(t)
	call := func() {
		t.Helper()
		if _, err := a.Call(withDeadline(t), "b", "echo", nil); err != nil {
			t.Fatal(err)
		}
	}
	call()
	row, _ := a.rows.named("b")
	a.doubtKey(row)
	a.doubtRefusal(row, errors.New("a moment ago"))
	call()
	if a.undoubted(t) {
		t.Errorf("a warns of %s:\n%s", b.opts.Name, a.log)
	}
}

// TestStrangerWhileTheStoreIsAway: that nothing can be read explains nothing.
func TestStrangerWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := open(t, "a", s, keys)
	a.doubts.wait = 0
	a.run(t)
	stranger := open(t, "b", newStore(), keys)
	defer func() { _ = stranger.Close() }()
	s.setAway(true)
	row := tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()}
	if _, err := stranger.ask(withDeadline(t), row, hello, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("calling: %v", err)
	}
	eventually(t, "it is told", func() bool { return a.log.has("level=WARN", "its key is that of no node in the store") })
}
