// Whether what the store has said last still holds: a process cannot know that it stood still, but its clocks tell it afterwards.

package cluster

import "time"

const (
	trustFor  = 15 * time.Second // without having heard from the store, or that it is away
	unheard   = 60 * time.Second // a node of which the store has not heard for as long keeps its floors only; long before its portions lapse
	muteFor   = 10 * time.Second // one that does not answer may see this node no more then; it leaves the portions alone for 30 s after it has seen it
	lostPause = 15 * time.Second // longer than a dial connects: so long ones that have begun before portions were lost must not go on
)

// trust is how the store was when it was asked last.
type trust struct {
	at    time.Time            // when that was; zero: never
	heard time.Time            // since when the store has not heard of this node
	until time.Time            // portions were lost: no dial before this
	mute  map[string]time.Time // nodes that do not answer whether they see this one, and since when; nil: they were not asked
}

// cutOff takes what others have said when they were asked whether they see this node, and reports whether they may hand on what it has: one
// does not see it, or has not answered for long.
func (t *trust) cutOff(asked time.Time, unseen bool, mute []string) bool {
	was := t.mute
	t.mute = make(map[string]time.Time)
	for _, node := range mute {
		from, ok := was[node]
		if !ok {
			from = asked
		}
		t.mute[node] = from
		unseen = unseen || since(from, asked) >= muteFor
	}
	return unseen
}

// holds reports whether portions that were told then are this node's still.
func (t *trust) holds(now time.Time) bool {
	return !t.at.IsZero() && since(t.at, now) < trustFor && !now.Before(t.until)
}

// gap reports whether so much time has passed that everything may be another's.
func (t *trust) gap(now time.Time) bool { return t.at.IsZero() || since(t.at, now) >= trustFor }

// unknown reports whether others may have thought for long that this node is gone: what it has may be another's, even if it was known that the store is away.
func (t *trust) unknown(now time.Time) bool { return since(t.heard, now) >= unheard }

// since is how much time has passed by either clock: one stands still while a computer sleeps, the other may be set.
func since(t, now time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
