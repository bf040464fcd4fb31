// Sentences: bans that were not counted here, until they end.

package netrestrict

import (
	"container/heap"
	"net/netip"
	"time"
)

// sentences holds bans, at most so many. An address is looked for by the lengths that networks have here.
type sentences struct {
	most    int
	byKey   map[throttleKey]*sentence
	ends    sentenceHeap
	lengths [2][netip6Bits + 1]int // of prefixes: how many have it, of IPv4 and of IPv6
	scopes  map[scope]int          // how many there are in each
}

const netip6Bits = 128

type sentence struct {
	Ban
	key   throttleKey
	until time.Time
	place int // in the heap
}

func newSentences(most int) *sentences {
	return &sentences{most: most, byKey: make(map[throttleKey]*sentence), scopes: make(map[scope]int)}
}

func family(net netip.Prefix) int {
	if net.Addr().Is6() {
		return 1
	}
	return 0
}

// wait is how long an address has to wait.
func (s *sentences) wait(now time.Time, where scope, addr netip.Addr) (longest time.Duration) {
	if s.scopes[where] == 0 {
		return 0
	}
	addr = addr.Unmap().WithZone("")
	for bits, n := range s.lengths[family(netip.PrefixFrom(addr, 0))] {
		if n == 0 {
			continue
		}
		if net, err := addr.Prefix(bits); err == nil {
			if is, ok := s.byKey[throttleKey{where, net}]; ok {
				longest = max(longest, is.until.Sub(now))
			}
		}
	}
	return longest
}

// add has a ban hold from now on. One that holds already is not shortened. each is how many its scope may have; 0: there is no such
// limit, and the one that ends first makes room.
func (s *sentences) add(now time.Time, b Ban, each int) bool {
	for len(s.ends) > 0 && !s.ends[0].until.After(now) {
		s.drop(s.ends[0])
	}
	key, until := b.key(), now.Add(b.Left)
	if is, ok := s.byKey[key]; ok {
		is.Failures = max(is.Failures, b.Failures)
		if until.After(is.until) {
			is.until = until
			heap.Fix(&s.ends, is.place)
		}
		return true
	}
	if b.Left <= 0 || !b.Address.IsValid() {
		return true
	}
	switch full := len(s.ends) >= s.most; {
	case each > 0 && (full || s.scopes[key.scope] >= each):
		return false
	case full:
		s.drop(s.ends[0])
	}
	is := &sentence{Ban: b, key: key, until: until}
	s.byKey[key] = is
	heap.Push(&s.ends, is)
	s.lengths[family(b.Address)][b.Address.Bits()]++
	s.scopes[key.scope]++
	return true
}

// lift ends a ban, and reports whether it held.
func (s *sentences) lift(now time.Time, key throttleKey) bool {
	is, ok := s.byKey[key]
	if !ok {
		return false
	}
	s.drop(is)
	return is.until.After(now)
}

func (s *sentences) drop(is *sentence) {
	heap.Remove(&s.ends, is.place)
	delete(s.byKey, is.key)
	s.lengths[family(is.Address)][is.Address.Bits()]--
	if s.scopes[is.key.scope]--; s.scopes[is.key.scope] == 0 {
		delete(s.scopes, is.key.scope)
	}
}

// each calls f for those that hold.
func (s *sentences) each(now time.Time, f func(Ban)) {
	for _, is := range s.ends {
		if is.Left = is.until.Sub(now); is.Left > 0 {
			f(is.Ban)
		}
	}
}

// sentenceHeap has the one that ends first at its top. It implements heap.Interface.
type sentenceHeap []*sentence

func (h sentenceHeap) Len() int           { return len(h) }
func (h sentenceHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h sentenceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *sentenceHeap) Push(x any) {
	is := x.(*sentence)
	is.place = len(*h)
	*h = append(*h, is)
}

// Pop implements heap.Interface.
func (h *sentenceHeap) Pop() any {
	last := len(*h) - 1
	is := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return is
}
