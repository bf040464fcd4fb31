// The schedule: when a server is asked for its list, and when a login waits for the answer.

package roles

import "time"

// How often a server is asked.
const (
	RefreshEvery = 5 * time.Minute // while it can be asked
	Gap          = time.Second     // from the end of one listing to the next that a failed login asks for
	// GapMax is what that has doubled to, at most, for strangers, while the listings that failed logins ask for bring nothing new: whoever
	// fails once a second must not have the server asked once a second.
	GapMax   = time.Minute
	pauseMin = 2 * time.Second // after a listing that failed; doubles
	pauseMax = time.Minute
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
	Same                // listed, and nothing is new
	Unreachable         // or it was cut short
	Refused             // the server has answered, and not with a list
)

// Doubt is a login that has failed, and may be right by now.
type Doubt uint8

// The kinds.
const (
	noDoubt  Doubt = iota
	Strange        // from anywhere
	Familiar       // from where somebody has logged in before
)

// Schedule decides for one server. Its zero value knows no list. It has no lock and no clock.
type Schedule struct {
	Known bool // there is a list

	reach    Reach
	stale    bool // nobody knows what has happened since the last list: the server was away
	doubt    Doubt
	running  bool
	settles  bool      // what is running was asked for by a doubt
	at       time.Time // of the last list
	free     time.Time // nothing is asked before
	later    time.Time // nor, for a stranger's doubt alone, before this
	vain     int       // lists in a row that doubts have asked for, and that brought nothing new
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
	if s.doubt == noDoubt || s.reach != Away {
		return false
	}
	s.doubt = noDoubt
	return true
}

// Doubt says that a login has failed which a newer list may prove right.
func (s *Schedule) Doubt(d Doubt) { s.doubt = max(s.doubt, d) }

// Due reports whether the server is to be asked now.
func (s *Schedule) Due(now time.Time) bool {
	at, wants := s.wants(now)
	return wants && !now.Before(at)
}

// wants reports whether it is to be asked, and when it may be.
func (s *Schedule) wants(now time.Time) (at time.Time, wants bool) {
	switch {
	case s.reach != There || s.running:
		return time.Time{}, false
	case !s.Known || s.stale || s.doubt == Familiar || now.Sub(s.at) >= RefreshEvery:
		return s.free, true
	case s.doubt == Strange && s.later.After(s.free):
		return s.later, true
	}
	return s.free, s.doubt == Strange
}

// Wait reports whether a login has to wait for news, whomever it names: a list that is there at all, or one that may prove right what
// has failed. until is when to look again in any case; zero: when something happens.
func (s *Schedule) Wait(now time.Time) (wait bool, until time.Time) {
	switch {
	case s.Known && s.doubt == noDoubt && !(s.running && s.settles):
		return false, time.Time{} // what is known will do meanwhile
	case s.running, s.reach == Unknown:
		return true, time.Time{}
	}
	if at, wants := s.wants(now); wants && s.failures == 0 {
		return true, at
	}
	return false, time.Time{}
}

// Again reports whether a login that has failed wants the server to be asked, and when it may be.
func (s *Schedule) Again(now time.Time) (at time.Time, wants bool) {
	at, wants = s.wants(now)
	return at, wants && s.doubt != noDoubt
}

// Start says that a listing has begun.
func (s *Schedule) Start() {
	s.running, s.settles, s.doubt = true, s.doubt != noDoubt || !s.Known, noDoubt
}

// End says how it ended. What has begun to count as doubtful meanwhile stays so.
func (s *Schedule) End(now time.Time, how Outcome) {
	asked := s.settles
	s.running, s.settles = false, false
	if how == Listed || how == Same {
		if s.vain++; how == Listed || !asked {
			s.vain = 0
		}
		s.Known, s.stale, s.at, s.failures = true, s.reach != There, now, 0
		s.free, s.later = now.Add(Gap), now.Add(min(Gap<<min(s.vain, 10), GapMax))
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
