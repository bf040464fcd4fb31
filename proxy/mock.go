// Mocks: the verifiers that unknown users are judged by, which must not be told from those of known ones.

package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
	"sort"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// knownRounds are the iteration counts of known users in their order, each with how many users have it or a lower one. Clients are told the
// count, and a password that is told takes as long to judge. Hence an unknown user has one of these, each as often as known ones have it.
type knownRounds []roundCount

type roundCount struct{ iterations, users int }

// countRounds counts.
func countRounds(each func(count func(iterations int))) (all knownRounds) {
	have := make(map[int]int)
	each(func(iterations int) { have[iterations]++ })
	n := 0
	for _, iterations := range slices.Sorted(maps.Keys(have)) {
		n += have[iterations]
		all = append(all, roundCount{iterations, n})
	}
	return all
}

// pick gives a share of [0, 2^64) to each count. When one user more is counted, hardly anybody's pick changes.
func (r knownRounds) pick(at uint64) int {
	if len(r) == 0 {
		return scram.DefaultIterations
	}
	nth, _ := bits.Mul64(at, uint64(r[len(r)-1].users))
	return r[sort.Search(len(r)-1, func(i int) bool { return uint64(r[i].users) > nth })].iterations
}

// mock is an unknown user's verifier: the same each time, as long as the known users' counts are.
func (g *Gate) mock(tenant, user string, known knownRounds) scram.Verifier {
	mac := hmac.New(sha256.New, g.opts.MockSecret)
	mac.Write([]byte("iterations\x00" + tenant + "\x00" + user))
	return scram.Mock(g.opts.MockSecret, tenant, user, known.pick(binary.BigEndian.Uint64(mac.Sum(nil))))
}

// rounds are those of a tenant's users. They are counted once: whoever asks for unknown users must not take longer the more known ones
// there are.
func (g *Gate) rounds(conf *tenants.Tenant) knownRounds {
	return g.derived.roundsOf(conf, g.current, func() knownRounds {
		return countRounds(func(count func(int)) {
			for _, u := range conf.Users {
				if v, err := scram.ParseVerifier(u.Verifier.Reveal()); err == nil {
					count(v.Iterations)
				} else if !u.Password.IsZero() {
					count(scram.DefaultIterations)
				}
			}
		})
	})
}
