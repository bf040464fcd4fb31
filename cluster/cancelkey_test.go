// Which node a cancel key leads to, and how many guesses lead to one.

package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestACancelKeyLeadsToItsNode: to the one that has made it, under the first key or an older one, and to nobody if anything of it is
// another. What protocol 3.0 leaves to chance is counted in the next test.
func TestACancelKeyLeadsToItsNode(t *testing.T) {
	noise := make([]byte, noiseLong)
	for i := range noise {
		noise[i] = byte(i)
	}
	one, two, three := [32]byte{1}, [32]byte{2}, [32]byte{3}
	const pid, boot = 4711, "K7"
	secret := CancelSecret(two, boot, pid, noise)
	if len(secret) != 32 {
		t.Fatalf("a secret of %d bytes", len(secret))
	}
	flipped := func(at int) []byte {
		s := slices.Clone(secret)
		s[at] ^= 1
		return s
	}
	for _, tc := range []struct {
		name   string
		keys   [][32]byte
		boot   string
		pid    uint32
		secret []byte
		want   bool
	}{
		{"the key that it was made with", [][32]byte{two}, boot, pid, secret, true},
		{"and a newer one before it", [][32]byte{three, two}, boot, pid, secret, true},
		{"and a newer one behind it, which others have first", [][32]byte{two, one}, boot, pid, secret, true},
		{"other keys", [][32]byte{one, three}, boot, pid, secret, false},
		{"no key", nil, boot, pid, secret, false},
		{"another boot", [][32]byte{two}, "K8", pid, secret, false},
		{"a boot that begins like it", [][32]byte{two}, "K", pid, secret, false},
		{"no boot", [][32]byte{two}, "", pid, secret, false},
		{"another process id", [][32]byte{two}, boot, pid + 1, secret, false},
		{"other noise", [][32]byte{two}, boot, pid, flipped(0), false},
		{"another mark", [][32]byte{two}, boot, pid, flipped(31), false},
		{"a mark that is cut", [][32]byte{two}, boot, pid, secret[:31], false},
		{"one byte more", [][32]byte{two}, boot, pid, append(slices.Clone(secret), 0), false},
		{"four bytes of it", [][32]byte{two}, boot, pid, secret[:4], false},
		{"nothing", [][32]byte{two}, boot, pid, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := CancelMade(tc.keys, tc.boot, tc.pid, tc.secret); got != tc.want {
				t.Errorf("%t, want %t", got, tc.want)
			}
		})
	}
}

// TestCancelKeys draws clusters: keys of sessions lead to their nodes whatever others there are, whoever has which key first.
func TestCancelKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var keys [][32]byte
		for i := range rapid.IntRange(1, 3).Draw(t, "keys") {
			keys = append(keys, [32]byte{byte(i + 1)})
		}
		var boots []string
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			boots = append(boots, fmt.Sprintf("boot%d", i))
		}
		of := rapid.SampledFrom(boots).Draw(t, "node")
		first := rapid.SampledFrom(keys).Draw(t, "key")
		long := rapid.Bool().Draw(t, "long")
		pid := rapid.Uint32().Draw(t, "pid")
		noise := rapid.SliceOfN(rapid.Byte(), CancelNoise(long), CancelNoise(long)).Draw(t, "noise")
		secret := CancelSecret(first, of, pid, noise)
		if want := map[bool]int{false: 4, true: 32}[long]; len(secret) != want {
			t.Fatalf("a secret of %d bytes", len(secret))
		}
		if !CancelMade(keys, of, pid, secret) {
			t.Fatal("its node is not found")
		}
		for _, other := range boots {
			if long && other != of && CancelMade(keys, other, pid, secret) {
				t.Fatalf("made by %s, found with %s", of, other)
			}
		}
		if again := CancelSecret(first, of, pid, noise); !slices.Equal(again, secret) {
			t.Fatal("the same makes another")
		}
	})
}

// TestHowManyGuessesAreForwarded: of those of 4 bytes one in 256 for each node and key, as the guarantees say; of 32 bytes none.
func TestHowManyGuessesAreForwarded(t *testing.T) {
	const tries, nodes = 40_000, 3
	keys := [][32]byte{{1}, {2}}
	for _, long := range []bool{false, true} {
		asked := 0
		guess := make([]byte, 4)
		if long {
			guess = make([]byte, 32)
		}
		for range tries {
			var pid [4]byte
			_, _ = rand.Read(pid[:])
			_, _ = rand.Read(guess)
			for node := range nodes {
				if CancelMade(keys, fmt.Sprint("boot", node), binary.BigEndian.Uint32(pid[:]), guess) {
					asked++
				}
			}
		}
		want := 0
		if !long {
			want = tries * nodes * len(keys) / 256 // 937, give or take 31
		}
		if diff := asked - want; diff < -250 || diff > 250 || long && asked > 0 {
			t.Errorf("long %t: %d of %d guesses lead to a node, want about %d", long, asked, tries, want)
		}
	}
}

// TestProcessIDsThatComeAgain: the sessions that a server's process serves one after the other have keys of their own, and those of
// one do not tell what another's is.
func TestProcessIDsThatComeAgain(t *testing.T) {
	seen := make(map[string]bool)
	const sessions = 1000
	for range sessions {
		noise := make([]byte, CancelNoise(false))
		_, _ = rand.Read(noise)
		seen[string(CancelSecret([32]byte{1}, "boot", 4711, noise))] = true
	}
	if len(seen) < sessions-2 { // two have the same in 3 of 100 runs
		t.Errorf("%d sessions had %d keys", sessions, len(seen))
	}
}
