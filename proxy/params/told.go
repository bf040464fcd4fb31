// What clients with some set are greeted with: what a server has shown to one of them.

package params

import "github.com/postern/postern/proxy/pgwire"

// Told is what a server shows a client with this set, whatever the client's name
// and address are; nil while unknown.
func (s *Set) Told() *Reports { return s.base.told }

// Learn takes note of it. If it was something else before, the servers' defaults
// have changed: then all that was known is forgotten, and changed is true.
func (t *Sets) Learn(s *Set, shown *Reports) (changed bool) {
	base := s.base
	if changed = base.told != nil && !base.told.Same(shown); changed {
		t.Forget()
	}
	base.told = shown
	return changed
}

// Forget drops what all sets are told.
func (t *Sets) Forget() {
	for _, set := range t.byKey {
		set.told = nil
	}
}

// DefaultIs takes over that a parameter has another default. That holds for
// whoever has not set it; what others are told is forgotten. learned is called
// for each set that is told something new. It returns how many bytes were
// copied.
func (t *Sets) DefaultIs(p pgwire.Param, lists *ReportSets, learned func(*Set)) (copied int) {
	for _, set := range t.byKey {
		if set.told == nil {
			continue
		}
		if _, own := set.Get(p.Name); own {
			set.told = nil
			continue
		}
		if told := lists.With(set.told, p); told != set.told {
			copied += told.Size()
			set.told = told
			learned(set)
		}
	}
	return copied
}
