// Tests of mocks: nobody learns who exists by how a name's verifier looks.

package proxy

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

func TestRoundsArePicked(t *testing.T) {
	known := countRounds(func(count func(int)) {
		for _, n := range []int{10_000, 4096, 4096, 4096} {
			count(n)
		}
	})
	for at, want := range map[uint64]int{0: 4096, 3<<62 - 1: 4096, 3 << 62: 10_000, math.MaxUint64: 10_000} {
		if got := known.pick(at); got != want {
			t.Errorf("at %x: %d, want %d", at, got, want)
		}
	}
	if got := knownRounds(nil).pick(7); got != scram.DefaultIterations {
		t.Errorf("nobody is known: %d", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		users := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 20).Draw(t, "counts")
		all := countRounds(func(count func(int)) {
			for _, n := range users {
				count(n)
			}
		})
		got, want := make(map[int]int), make(map[int]int)
		for i, n := range users { // each user's share, by its middle
			want[n]++
			got[all.pick(uint64((float64(i)+0.5)/float64(len(users))*math.MaxUint64))]++
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("picked %v, want %v", got, want)
		}
	})
}

// TestUnknownUsersLookLikeKnownOnes: each iteration count is as frequent among those whom nobody knows as among those who are there, the
// same each time, and one user more changes it for few.
func TestUnknownUsersLookLikeKnownOnes(t *testing.T) {
	b := newBench(t)
	conf := *b.conf()
	with := func(iterations int) *tenants.User {
		v, err := scram.NewVerifier("pw", iterations, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &tenants.User{Verifier: tenants.NewSecret(v.Encode())}
	}
	conf.Users = map[string]*tenants.User{"a": with(4096), "b": with(4096), "c": {Password: tenants.NewSecret("pw")}, "d": with(10_000), "e": {}}
	put(t, b.gate, &conf)
	const names = 2000
	counts := func() (all []int, rare int) {
		conf := b.conf()
		for i := range names {
			v, known := b.gate.verifier(conf, tenants.Route{Tenant: "acme", User: fmt.Sprint("nobody", i)})
			again, _ := b.gate.verifier(conf, tenants.Route{Tenant: "acme", User: fmt.Sprint("nobody", i)})
			if known || !v.Equal(again) {
				t.Fatalf("%v, %v", v, again)
			}
			all = append(all, v.Iterations)
			switch v.Iterations {
			case 10_000:
				rare++
			case 4096:
			default:
				t.Fatalf("nobody has %d", v.Iterations)
			}
		}
		return all, rare
	}
	before, rare := counts()
	if rare < names/5 || rare > names/3 { // a quarter; off by five standard deviations
		t.Errorf("%d of %d have what one of four known users has", rare, names)
	}
	more := conf
	more.Users = map[string]*tenants.User{"f": with(4096)}
	for name, u := range conf.Users {
		more.Users[name] = u
	}
	put(t, b.gate, &more)
	after, _ := counts()
	changed := 0
	for i := range before {
		if before[i] != after[i] {
			changed++
		}
	}
	if changed > names/10 { // a twentieth
		t.Errorf("one user more has changed %d of %d", changed, names)
	}
}
