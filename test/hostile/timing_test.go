// What the clock tells a stranger: nothing about who exists and which keys are somebody's.

package hostile

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

const (
	// rounds is how often each kind of try is made.
	rounds = 200
	// guessable is how often a stranger may be right who makes two tries, one of each of two kinds, and takes the slower
	// one for the kind that is slower as a rule: half of the time, if the clock tells nothing. Chance alone shows more than
	// 0.7 in so many rounds about once in 10^11 times (this is Mann and Whitney's U over the number of pairs, whose
	// standard deviation is 0.029 here).
	guessable = 0.7
	// audible is a difference of medians that is worth a fix. On a quiet computer less is as good as always the same sign:
	// what a gate does for one kind alone, such as to wake a loop that has a session to look at, takes some microseconds,
	// which no network lets anybody hear. A login that ends early, or a password hashed while the client waits, is a
	// millisecond.
	audible = 100 * time.Microsecond
	// colleagues are how many more users a tenant has than the others.
	colleagues = 500
)

// clocked are the times that one kind of try took, by what was timed.
type clocked map[string][]time.Duration

// slowerThan is how often one of a takes longer than one of b.
func slowerThan(a, b []time.Duration) float64 {
	b = slices.Sorted(slices.Values(b))
	wins := 0.0
	for _, x := range a {
		below := sort.Search(len(b), func(i int) bool { return b[i] >= x })
		upTo := sort.Search(len(b), func(i int) bool { return b[i] > x })
		wins += float64(below) + float64(upTo-below)/2
	}
	return wins / float64(len(a)*len(b))
}

func median(took []time.Duration) time.Duration {
	return percentile(50)(slices.Sorted(slices.Values(took)))
}

// interleave makes tries of every kind, in rounds of random order, so that whatever else the computer does falls on all
// kinds alike, and compares all kinds with the first in everything that was timed.
func interleave(t *testing.T, kinds []string, try func(kind string) map[string]time.Duration) {
	t.Helper()
	took := make(map[string]clocked)
	for _, kind := range kinds {
		took[kind] = make(clocked)
	}
	for range rounds {
		for _, i := range mathrand.Perm(len(kinds)) {
			for what, d := range try(kinds[i]) {
				took[kinds[i]][what] = append(took[kinds[i]][what], d)
			}
		}
	}
	reference := took[kinds[0]]
	for _, kind := range kinds[1:] {
		for _, what := range slices.Sorted(maps.Keys(reference)) {
			a, b := took[kind][what], reference[what]
			p := slowerThan(a, b)
			mine, others := median(a), median(b)
			story := fmt.Sprintf("%s: %s takes %v, %s takes %v; a guess is right in %.0f %% of the cases", what, kind, mine, kinds[0], others, 100*max(p, 1-p))
			if max(p, 1-p) > guessable && (mine-others).Abs() > audible {
				t.Error(story)
			} else {
				t.Log(story)
			}
		}
	}
}

// TestGhostsTakeAsLong is the rest of B11, B12 and I-20: from the first byte to the last, a wrong password takes as long
// for a user whom the tenants file has as for those whom it does not have. Each answer is timed by itself, without what
// the client does in between. It runs alone, before the tests that run side by side.
func TestGhostsTakeAsLong(t *testing.T) {
	team := harness.Acme(t, harness.Postgres(t), "postgres")
	team["id"] = "team"
	users := team["users"].([]harness.Map)
	for i := range colleagues {
		users = append(users, harness.Map{"name": fmt.Sprint("colleague", i), "verifier": users[0]["verifier"]})
	}
	team["users"] = users
	g := startGate(t, gateOptions{bare: true, tenants: []harness.Map{team}})
	interleave(t, []string{"app.acme", "other.acme", "ghost.acme", "app.team", "ghost.team", "app.ghost", "ghost.ghost"}, func(user string) map[string]time.Duration {
		p := g.connect(t, g.freshClient())
		defer p.Close()
		s := &scramClient{password: canaryWrong}
		asked := p.timed(startup(v30, "user", user, "database", "postgres"), func() { p.auth(10) })
		var challenge []byte
		challenged := p.timed(initial(scramPlain, s.first()), func() { challenge = p.auth(11) })
		judged := p.timed(message('p', s.final(t, challenge)), func() { p.fatal("28P01") })
		return map[string]time.Duration{"the request": asked, "the challenge": challenged, "the judgement": judged, "all of it": asked + challenged + judged}
	})
}

// timed sends, and says how long an answer took.
func (p *peer) timed(b []byte, answer func()) time.Duration {
	began := time.Now()
	p.send(b)
	answer()
	return time.Since(began)
}

// TestCancelsTakeAsLong is the rest of S44: every cancel request is answered by a close, and who guesses does not learn from
// when it comes how near the guess was. Who has the whole key may know: to them the close says, as Postgres's, that the request
// has arrived.
func TestCancelsTakeAsLong(t *testing.T) {
	g := startGate(t, gateOptions{bare: true})
	keyOf := func(user string, client netip.AddrPort) (*peer, []byte) {
		p := g.connect(t, client)
		p.send(startup(v32, "user", user, "database", "postgres"))
		p.prove(&scramClient{password: canaryRight})
		key := p.until('K')
		p.until('Z')
		return p, key
	}
	_, idle := keyOf("app.acme", g.freshClient())
	_, walled := keyOf("app.walled", netip.MustParseAddrPort("10.0.0.1:40000"))
	wrong := slices.Clone(idle)
	wrong[len(wrong)-1] ^= 1
	keys := map[string]func() []byte{
		"a key that nobody has": func() []byte {
			key := make([]byte, len(idle))
			_, _ = rand.Read(key)
			binary.BigEndian.PutUint32(key, binary.BigEndian.Uint32(key)&^(1<<31))
			return key
		},
		"a wrong key of an open session":          func() []byte { return wrong },
		"the key of a session that is walled off": func() []byte { return walled },
	}
	kinds := slices.Sorted(maps.Keys(keys)) // "a key that nobody has" is the first
	interleave(t, kinds, func(kind string) map[string]time.Duration {
		key := keys[kind]()
		p := g.connect(t, g.freshClient())
		defer p.Close()
		p.send(gssRequest)
		p.byteAnswer('N') // the header has been read
		took := p.timed(packet(codeCancel, key), p.silence)
		return map[string]time.Duration{"the close": took}
	})
}
