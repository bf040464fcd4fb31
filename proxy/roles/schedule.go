// The schedule: when a server is asked for its list, and when a login waits for the answer.

package roles

import "time"

// How often a server is asked.
const (
	RefreshEvery = 5 * time.Minute // while it can be asked
	Gap          = time.Second     // from the end of one listing to the next that a failed login asks for
	pauseMin     = 2 * time.Second // after a listing that failed; doubles
	pauseMax     = time.Minute
	// ExpireAfter is how long a server may refuse to list its roles before what it said earlier counts no more. While it sleeps or cannot be
	// reached it does not refuse.
	ExpireAfter = time.Hour
)

// Reach says whether a server can be asked.
type Reach uint8

// The kinds. The zero value is for a machine of which nothing was heard yet.
const (
	Unknown Reach = iota
	Away          // it sleeps, or wakes, or is paused: it is not asked
	There
)

// Outcome is how a listing ended.
type Outcome uint8

// The outcomes.
const (
	Listed      Outcome = iota
	Unreachable         // or it was cut short
	Refused             // the server has answered, and not with a list
)

// Schedule decides for one server. Its zero value knows no list. It has no lock and no clock.
type Schedule struct {
	Known bool // there is a list

	reach    Reach
	stale    bool // nobody knows what has happened since the last list: the server was away
	doubt    bool // a login has failed that may be right by now
	running  bool
	settles  bool      // what is running was asked for by a doubt
	at       time.Time // of the last list
	free     time.Time // nothing is asked before
	failures int
	refused  time.Time     // since when it refuses, while it can be asked; zero: it does not
	spent    time.Duration // how long it had refused before it went away
}

// Reach says whether the server can be asked from now on. One that comes back is asked anew: nobody knows who else was there.
func (s *Schedule) Reach(now time.Time, r Reach) {
	if r == s.reach {
		return
	}
	if s.reach, s.stale = r, true; r == There {
		s.free, s.failures = time.Time{}, 0
	} else if !s.refused.IsZero() {
		s.spent, s.refused = s.spent+now.Sub(s.refused), time.Time{}
	}
}

// Moved says that it may be another server, or asked as somebody else.
func (s *Schedule) Moved() {
	s.stale, s.free, s.failures = true, time.Time{}, 0
	s.refused, s.spent = time.Time{}, 0
}

// TakeDoubt reports whether a login has failed that may be right, of a server that cannot be asked, and forgets it.
func (s *Schedule) TakeDoubt() bool {
	doubt := s.doubt && s.reach == Away
	s.doubt = s.doubt && !doubt
	return doubt
}

// Doubt says that a login has failed which a newer list may prove right.
func (s *Schedule) Doubt() { s.doubt = true }

// Due reports whether the server is to be asked now.
func (s *Schedule) Due(now time.Time) bool { return s.wants(now) && !now.Before(s.free) }

// wants reports whether it is to be asked, as soon as it may.
func (s *Schedule) wants(now time.Time) bool {
	return s.reach == There && !s.running && (!s.Known || s.stale || s.doubt || now.Sub(s.at) >= RefreshEvery)
}

// Wait reports whether a login has to wait for news, whomever it names: a list that is there at all, or one that may prove right what
// has failed. until is when to look again in any case; zero: when something happens.
func (s *Schedule) Wait(now time.Time) (wait bool, until time.Time) {
	switch {
	case s.Known && !s.doubt && !(s.running && s.settles):
		return false, time.Time{} // what is known will do meanwhile
	case s.running, s.reach == Unknown:
		return true, time.Time{}
	case s.wants(now) && s.failures == 0:
		return true, s.free
	}
	return false, time.Time{}
}

// Again reports whether a login that has failed wants the server to be asked, and when it may be.
func (s *Schedule) Again() (at time.Time, wants bool) {
	return s.free, s.doubt && s.reach == There && !s.running
}

// Start says that a listing has begun.
func (s *Schedule) Start() { s.running, s.settles, s.doubt = true, s.doubt || !s.Known, false }

// End says how it ended. What has begun to count as doubtful meanwhile stays so.
func (s *Schedule) End(now time.Time, how Outcome) {
	s.running, s.settles = false, false
	if how == Listed {
		s.Known, s.stale, s.at, s.free, s.failures = true, s.reach != There, now, now.Add(Gap), 0
		s.refused, s.spent = time.Time{}, 0
		return
	}
	s.free = now.Add(min(pauseMin<<min(s.failures, 10), pauseMax))
	s.failures++
	if how == Refused && s.reach == There && s.refused.IsZero() {
		s.refused = now
	}
}

// Expired reports whether what is known counts no more.
func (s *Schedule) Expired(now time.Time) bool {
	spent := s.spent
	if !s.refused.IsZero() {
		spent += now.Sub(s.refused)
	}
	return spent >= ExpireAfter
}
