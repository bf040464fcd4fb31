// Which process id and secret a session gets, and that nothing else finds it.

package proxy

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestWhichProcessIDAKeyHas: the server's, if it is one, and not too many have it; else none that a process has.
func TestWhichProcessIDAKeyHas(t *testing.T) {
	acme, globex := &tenant{}, &tenant{}
	many := func(n int, t func(int) *tenant, pid uint32) (out []keyed) {
		for i := range n {
			out = append(out, keyed{cancelKey{pid, nil}, t(i), nil})
		}
		return out
	}
	others := func(int) *tenant { return &tenant{} }
	mine := func(int) *tenant { return acme }
	for _, tc := range []struct {
		name string
		pid  uint32
		open []keyed
		own  bool
	}{
		{"a process", 4711, nil, false},
		{"no server of its own", 0, nil, true},
		{"a negative number", 1 << 31, nil, true},
		{"all ones", 1<<32 - 1, nil, true},
		{"the largest", 1<<31 - 1, nil, false},
		{"one that another tenant has", 4711, many(1, others, 4711), false},
		{"one that Postern has made up for another", 1<<30 + 1, many(1, others, 1<<30+1), false},
		{"one that the tenant has", 4711, many(maxTenantSharing-1, mine, 4711), false},
		{"one that the tenant has too often", 4711, many(maxTenantSharing, mine, 4711), true},
		{"one that another tenant has too often", 4711, many(maxTenantSharing, func(int) *tenant { return globex }, 4711), false},
		{"one that all have", 4711, many(maxSharing, others, 4711), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := &cancelKeys{secret: newSecret, byPID: map[uint32][]keyed{tc.pid: tc.open}}
			for _, long := range []bool{false, true} {
				if long {
					keys = &cancelKeys{secret: newSecret, byPID: map[uint32][]keyed{tc.pid: tc.open}}
				}
				key := keys.add(new(client), acme, long, tc.pid)
				if own := key.pid>>30 == 1 && key.pid != tc.pid; own != tc.own || !own && key.pid != tc.pid || key.pid == 0 || key.pid>>31 != 0 {
					t.Errorf("process id %d of %d", key.pid, tc.pid)
				}
				if want := map[bool]int{false: 4, true: 32}[long]; len(key.secret) != want {
					t.Errorf("a secret of %d bytes", len(key.secret))
				}
			}
		})
	}
}

// TestKeysFindTheirSession and nothing else does, whatever process ids servers say, and whoever leaves.
func TestKeysFindTheirSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := cancelKeys{secret: newSecret}
		acme, globex := &tenant{}, &tenant{}
		open := make(map[any]cancelKey)
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			if len(open) > 0 && rapid.IntRange(0, 3).Draw(t, "leave") == 0 {
				for session, key := range open {
					keys.remove(key)
					delete(open, session)
					if keys.find(key.pid, key.secret).session != nil {
						t.Fatal("a session that is over is found")
					}
					break
				}
				continue
			}
			var session any = &client{index: i}
			if rapid.Bool().Draw(t, "replica") {
				session = &replica{id: uint64(i)}
			}
			of := rapid.SampledFrom([]*tenant{acme, globex}).Draw(t, "tenant")
			open[session] = keys.add(session, of, rapid.Bool().Draw(t, "long"), rapid.SampledFrom([]uint32{0, 1, 7, 1<<30 + 1, 1 << 31}).Draw(t, "pid"))
		}
		for session, key := range open {
			if found := keys.find(key.pid, key.secret); found.session != session {
				t.Fatalf("%v finds %v", key, found)
			}
			for _, wrong := range [][]byte{nil, key.secret[:3], append(slices.Clone(key.secret), 0)} {
				if keys.find(key.pid, wrong).session != nil {
					t.Fatalf("found by %x instead of %x", wrong, key.secret)
				}
			}
			for other, key2 := range open {
				if other != session && fmt.Sprint(key) == fmt.Sprint(key2) {
					t.Fatalf("two have the key %v", key)
				}
			}
		}
		for _, key := range open {
			keys.remove(key)
		}
		keys.remove(cancelKey{}) // of one that was never greeted
		if len(keys.byPID) != 0 {
			t.Fatalf("something is left: %v", keys.byPID)
		}
	})
}
