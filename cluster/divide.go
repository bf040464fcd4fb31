// How many servers of a limit each node should have: rules without a clock and without I/O.

package cluster

import (
	"slices"
	"time"
)

// share is what a node has of a scope, and what it could use.
type share struct{ held, wanted int }

// divide says how many of limit servers each of the nodes should have. Who wants less than an even share has what it wants, and what
// that leaves is shared evenly. What nobody wants stays with those who have it. Where there are fewer servers than nodes that want
// some, one each goes to those who stand first, counted from the one whose turn it is.
func divide(limit int, of []share, turn int) []int {
	should := make([]int, len(of))
	wanting := 0
	for _, s := range of {
		if s.wanted > 0 {
			wanting++
		}
	}
	left := max(limit, 0)
	if wanting > left {
		for i := range of {
			if at := (turn + i) % len(of); of[at].wanted > 0 && left > 0 {
				should[at], left = 1, left-1
			}
		}
		return should
	}
	for left > 0 && wanting > 0 { // another layer, as high as whoever needs the least still needs
		layer := left / wanting
		for i, s := range of {
			if need := s.wanted - should[i]; need > 0 {
				layer = min(layer, need)
			}
		}
		if layer == 0 {
			break
		}
		wanting = 0
		for i, s := range of {
			if s.wanted > should[i] {
				should[i], left = should[i]+layer, left-layer
				if s.wanted > should[i] {
					wanting++
				}
			}
		}
	}
	// The rest of the division: one more for each, and to move none, first for those who have it.
	even := slices.Clone(should)
	for _, has := range []bool{true, false} {
		for i, s := range of {
			if left > 0 && s.wanted > even[i] && (s.held > even[i]) == has {
				should[i], left = should[i]+1, left-1
			}
		}
	}
	for i, s := range of { // idle servers
		if keep := min(s.held-should[i], left); keep > 0 {
			should[i], left = should[i]+keep, left-keep
		}
	}
	return should
}

// All nodes that want something have had their turn within a round, as long as there are no more than eight.
const (
	round       = 1500 * time.Millisecond
	longestTurn = 500 * time.Millisecond
	leastTurn   = 200 * time.Millisecond // moving a server takes a few questions to the store, and a login
)

// turnOf says whose turn it is of n at a time of the store's clock, and for how long it still is. All scopes of a tenant have one order
// and one turn, so that who has a turn has it for all that a server needs.
func turnOf(n int, now time.Time) (turn int, left time.Duration) {
	length := min(max(round/time.Duration(max(n, 1)), leastTurn), longestTurn)
	at := time.Duration(now.UnixNano())
	return int(at / length % time.Duration(max(n, 1))), length - at%length
}
