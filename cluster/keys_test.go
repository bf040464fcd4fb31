// Tests of the key file, and of changing it while everything goes on.

package cluster

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestParseKeys(t *testing.T) {
	a, b := newKey(), newKey()
	for name, tc := range map[string]struct {
		text string
		keys int
		err  string
	}{
		"one":              {a + "\n", 1, ""},
		"two":              {"# the new one\n" + a + "\n\n  " + b + "  \n# end", 2, ""},
		"windows":          {a + "\r\n" + b, 2, ""},
		"none":             {"# nothing\n", 0, "has no key"},
		"empty":            {"", 0, "has no key"},
		"short":            {a + "\nc2hvcnQ=\n", 0, "line 2: must be 32 bytes in base64"},
		"no base64":        {"s3cret-that-is-not-base64\n", 0, "line 1: must be 32 bytes in base64"},
		"an id before":     {"k1 " + a, 0, "line 1: must be 32 bytes in base64"},
		"the same twice":   {a + "\n" + b + "\n" + a, 0, "line 3: the key is there already"},
		"too many":         {manyKeys(maxKeys + 1), 0, "has more than 16 keys"},
		"just not so many": {manyKeys(maxKeys), maxKeys, ""},
	} {
		set, err := parseKeys([]byte(tc.text))
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v", name, err)
		case tc.err == "" && (err != nil || len(set.all) != tc.keys):
			t.Errorf("%s: %v", name, err)
		case err != nil && (strings.Contains(err.Error(), a) || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("%s: the error repeats the file: %v", name, err)
		}
	}
}

func manyKeys(n int) string {
	var all []string
	for range n {
		all = append(all, newKey())
	}
	return strings.Join(all, "\n")
}

// TestPurposes: keys for different purposes, and of different keys, have nothing in common; those of one file are the same at every node.
func TestPurposes(t *testing.T) {
	first, second := newKey(), newKey()
	a, b := open(t, "a", newStore(), keyFile(t, first, second)), open(t, "b", newStore(), keyFile(t, second, first))
	defer func() { _, _ = a.Close(), b.Close() }()
	if a.Key("cancel") == a.Key("other") || a.Key("cancel") == b.Key("cancel") || a.Key("cancel") == [32]byte(a.keys.now.Load().all[0]) {
		t.Error("keys are the same that should not be")
	}
	mine, theirs := a.Keys("cancel"), slices.Clone(b.Keys("cancel"))
	slices.Reverse(theirs)
	if !slices.Equal(mine, theirs) || mine[0] != a.Key("cancel") || len(mine) != 2 {
		t.Error("keys differ that should not")
	}
}

// TestRing: the gossip's keys are those of the file, in its order.
func TestRing(t *testing.T) {
	all := []string{newKey(), newKey(), newKey(), newKey()}
	path := keyFile(t, all[0])
	k, err := ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, pick := range [][]int{{0, 1}, {1, 0}, {1}, {2, 3, 1}, {3}, {0, 1, 2, 3}, {2, 0}} {
		var lines []string
		for _, i := range pick {
			lines = append(lines, all[i])
		}
		writeKeys(t, path, lines...)
		if changed, err := k.reread(path); err != nil || !changed {
			t.Fatalf("%v: %v, %v", pick, changed, err)
		}
		if changed, err := k.reread(path); err != nil || changed {
			t.Errorf("%v a second time: %v, %v", pick, changed, err)
		}
		ring := k.ring.GetKeys()
		if len(ring) != len(pick) {
			t.Fatalf("%v: the ring has %d keys", pick, len(ring))
		}
		for i, key := range k.now.Load().derive("gossip") {
			if [32]byte(ring[i]) != key {
				t.Errorf("%v: key %d of the ring is another", pick, i)
			}
		}
	}
	writeKeys(t, path, "garbage")
	if _, err := k.reread(path); err == nil || len(k.ring.GetKeys()) != 2 {
		t.Errorf("a bad file: %v", err)
	}
}

// TestNewKeyWhileCallsGoOn changes the key as docs/scale.md says, with calls under way all the time. Who has the new key
// alone can join at the end, and who has the old one alone cannot.
func TestNewKeyWhileCallsGoOn(t *testing.T) {
	t.Parallel()
	s := newStore()
	first, second := newKey(), newKey()
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, echo(open(t, name, s, keyFile(t, first))).run(t))
	}
	together(t, nodes...)
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for i, n := range nodes {
		callers.Go(func() {
			other := nodes[(i+1)%3].opts.Name
			for ctx.Err() == nil {
				n.echoes(t, other, n.opts.Name+": hi")
			}
		})
	}
	for _, keys := range [][]string{{first, second}, {second, first}, {second}} {
		for _, n := range nodes {
			writeKeys(t, n.opts.KeyFile, keys...)
		}
		want, err := parseKeys([]byte(strings.Join(keys, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "all have the keys", func() bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool { return !slices.Equal(n.keys.now.Load().all, want.all) })
		})
		for i, n := range nodes { // whole states, which nobody refuses
			n.mu.Lock()
			list := n.list
			n.mu.Unlock()
			if _, err := list.Join([]string{nodes[(i+1)%3].Here().Gossip.String()}); err != nil {
				t.Errorf("comparing states: %v", err)
			}
		}
	}
	late, old := start(t, "late", s, keyFile(t, second)), start(t, "old", s, keyFile(t, first))
	together(t, append(nodes, late)...)
	stop()
	callers.Wait()
	eventually(t, "the old key is of no use", func() bool { return nodes[0].log.has("gossip is refused", errNoKey.Error(), "from=127.0.0.1:") })
	for _, n := range append(nodes, late) {
		if n.sees(old, Alive) {
			t.Errorf("%s: %+v", n.opts.Name, n.Members())
		}
	}
	eventually(t, "it is told", func() bool { return nodes[0].diverges() == [2]int{0, 1} })
	for _, n := range append(nodes, late, old) {
		for _, key := range n.keys.now.Load().all {
			derived := n.Key("gossip")
			for _, secret := range []string{first, second, hex.EncodeToString(key[:]), hex.EncodeToString(derived[:])} {
				if n.log.has(secret) {
					t.Errorf("the log of %s has a key", n.opts.Name)
				}
			}
		}
	}
}

// TestFirstKeyIsTold by a digest, which is the same on all nodes, from the start on and when another one is used.
func TestFirstKeyIsTold(t *testing.T) {
	t.Parallel()
	one, two := newKey(), newKey()
	path := keyFile(t, one)
	a, b := start(t, "a", newStore(), path), start(t, "b", newStore(), keyFile(t, one, two))
	first := a.keys.now.Load().digest()
	eventually(t, "both say the same", func() bool {
		return a.log.has("msg=cluster", "first_key="+first) && b.log.has("msg=cluster", "first_key="+first)
	})
	writeKeys(t, path, two, one)
	if err := a.ReloadKeys(); err != nil {
		t.Fatal(err)
	}
	second := a.keys.now.Load().digest()
	if second == first || len(second) != 12 || !a.log.has("was read again", "keys=2", "first_key="+second) {
		t.Errorf("%q, then %q:\n%s", first, second, a.log)
	}
}
