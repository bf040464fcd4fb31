// Tests of the rule: each phase with each event.

package lease

import (
	"fmt"
	"iter"
	"testing"
)

// The rule as a table: one row per sentence of it.
func TestNext(t *testing.T) {
	const calm = Quiet | Outside | Last
	for _, r := range []struct {
		says  string
		from  Phase
		event Event
		facts Facts
		to    Phase
		do    Actions
	}{
		// A lease begins.
		{"the server has the client's settings", Idle, Lent, calm, Serving, Agree | Welcome},
		{"it has others", Idle, Lent, calm | Differs, Preparing, Prepare},
		{"a client is greeted by it", Idle, Lent, calm | Greeting, Serving, Agree | Welcome | Settle},
		{"not all of the settings are answered", Preparing, Ready, Outside | Last, Preparing, 0},
		{"it has taken them", Preparing, Ready, calm, Serving, Agree | Welcome},
		{"it has taken those of a client that is then greeted", Preparing, Ready, calm | Greeting, Serving, Agree | Welcome | Settle},
		{"it refuses them, and is as it was", Preparing, Ready, calm | Refused, Finishing, Part | Blame},
		{"it refuses them because of an earlier client", Preparing, Ready, calm | Refused | Inherited, Closed, Close | Exchange},
		{"it refuses them and says more", Preparing, Ready, Quiet | Outside | Refused, Closed, Close | Blame},
		{"it has taken them and says more", Preparing, Ready, Quiet | Outside, Closed, Close | Blame},
		{"they went wrong", Preparing, Ready, calm | Failed, Closed, Close | Blame},

		// A transaction ends.
		{"more is owed", Serving, Ready, Outside | Last, Serving, 0},
		{"the transaction is open", Serving, Ready, Quiet | Last, Serving, 0},
		{"nothing is left", Serving, Ready, calm, Idle, Release | Tell},
		{"something may be left", Serving, Ready, calm | Noted, Inspecting, Inspect | Tell},
		{"something may be left, and a cancel could hit the question", Serving, Ready, calm | Noted | Flying, Serving, 0},
		{"the client keeps it, and something more may be left", Serving, Ready, calm | Kept | Noted, Inspecting, Inspect | Tell},
		{"the client keeps it", Serving, Ready, calm | Kept, Serving, Keep},
		{"the client keeps it, and a cancel is on its way", Serving, Ready, calm | Kept | Flying, Serving, 0},
		{"the next one must not see it", Serving, Ready, calm | Dirty, Finishing, Part | Tell},
		{"nothing takes it out", Serving, Ready, calm | Failed, Finishing, Part | Tell},
		{"a cancel could hit the next one", Serving, Ready, calm | Flying, Finishing, Part | Tell},
		{"it says more than was asked", Serving, Ready, Quiet | Outside, Finishing, Part | Tell},
		{"the client is in the middle of a message", Serving, Ready, calm | Mid, Serving, 0},
		{"the client's message has ended", Serving, Moved, calm, Idle, Release},
		{"the client keeps it, and a cancel has arrived", Serving, Moved, calm | Kept, Serving, Keep},
		{"a cancel has arrived that could have hit the question", Serving, Moved, calm | Noted, Inspecting, Inspect},

		// What was left is known.
		{"not all of it", Inspecting, Ready, Outside | Last, Inspecting, 0},
		{"the question failed", Inspecting, Ready, calm | Unknown, Inspecting, Inspect},
		{"it is as the client wants it", Inspecting, Ready, calm, Serving, Settle},
		{"a reset has taken what the client came with", Inspecting, Ready, calm | Differs, Restoring, Prepare},
		{"what the client came with is there again", Restoring, Ready, calm, Serving, Agree | Settle},
		{"what the client came with cannot be put back", Restoring, Ready, calm | Failed, Closed, Close | Blame},
		{"the server refuses what the client came with", Restoring, Ready, calm | Refused, Finishing, Part | Blame},

		// Statement mode: no blocks.
		{"a block is open", Serving, Ready, Quiet | Last | InBlock, Punishing, Accuse | RollBack},
		{"a block is open, and the client goes", Serving, Ready, Quiet | Last | InBlock | Departs, Punishing, Accuse | RollBack},
		{"a block is open, and a message not ended", Serving, Ready, Quiet | Last | InBlock | Mid, Condemned, Accuse},
		{"a block is open, and a cancel on its way", Serving, Ready, Quiet | Last | InBlock | Flying, Condemned, Accuse},
		{"the message goes on", Condemned, Moved, Quiet | Mid, Condemned, 0},
		{"the client's message has ended", Condemned, Moved, Quiet, Punishing, RollBack},
		{"the block is over", Punishing, Ready, calm, Serving, Absolve | Settle},

		// Clients that go.
		{"it has said goodbye, and is answered", Serving, Ready, calm | Departs, Serving, Tell | Depart},
		{"everybody is to go", Serving, Ready, calm | Drains, Serving, Tell | Dismiss},
		{"the client is gone", Serving, Left, calm, Finishing, Part},
		{"the client is gone while its settings are set", Preparing, Left, Outside, Finishing, Part},
		{"its query runs for nobody", Serving, Left, Owes, Finishing, Part | Cancel},
		{"its query is to be done", Serving, Left, Owes | Parting, Finishing, Part | Patience},
		{"it has said the half of a message", Serving, Left, Mid, Closed, Close},

		// Without a client.
		{"it still answers", Finishing, Moved, Outside, Finishing, 0},
		{"a cancel is on its way", Finishing, Moved, calm | Flying, Finishing, 0},
		{"it will never say what it owes", Finishing, Moved, Outside | Stuck, Closed, Close},
		{"it is in a transaction", Finishing, Moved, Quiet, Undoing, RollBack},
		{"the transaction is not over", Undoing, Moved, Quiet, Undoing, RollBack},
		{"the transaction is over, and something is left", Undoing, Moved, calm | Dirty, Resetting, Reset},
		{"the transaction is over, and nothing is left", Undoing, Moved, calm, Idle, Return},
		{"its session is new", Resetting, Moved, calm, Idle, Fresh | Return},
		{"something is left again", Resetting, Moved, calm | Dirty, Resetting, Reset},
		{"it cannot be made new", Resetting, Moved, calm | Failed, Closed, Close},
		{"nothing takes out what is there", Finishing, Moved, calm | Failed, Closed, Close},

		// The end.
		{"it is lost while nobody has it", Idle, Lost, 0, Closed, Close},
		{"it is lost", Serving, Lost, 0, Closed, Close},
	} {
		if to, do := Next(r.from, r.event, r.facts); to != r.to || do != r.do {
			t.Errorf("%s, %s, %s: %s and %q, want %s and %q", r.from, r.event, r.says, to, do, r.to, r.do)
		}
	}
}

// someFacts are all facts of which at most four are other than of a server that
// has rested, or than none.
func someFacts() iter.Seq[Facts] {
	return func(yield func(Facts) bool) {
		var change func(f, from Facts, more int) bool
		change = func(f, from Facts, more int) bool {
			if !yield(f) {
				return false
			}
			for fact := from; more > 0 && fact <= Failed; fact <<= 1 {
				if !change(f^fact, fact<<1, more-1) {
					return false
				}
			}
			return true
		}
		_ = change(0, 1, 4) && change(Quiet|Outside|Last, 1, 4)
	}
}

// Every phase can be reached, and left again but for the last.
func TestPhasesAreReached(t *testing.T) {
	reached := map[Phase]bool{Idle: true}
	events := map[Phase][]Event{}
	for _, p := range Phases() {
		switch {
		case p == Idle:
			events[p] = []Event{Lent, Lost}
		case p.Lent():
			events[p] = []Event{Ready, Moved, Left, Lost}
		case p.Cleaning():
			events[p] = []Event{Moved, Lost}
		}
	}
	for again := true; again; {
		again = false
		for p := range reached {
			left := map[Phase]bool{}
			for _, e := range events[p] {
				for f := range someFacts() {
					to, _ := Next(p, e, f)
					left[to] = true
				}
			}
			for to := range left {
				if !reached[to] {
					reached[to], again = true, true
				}
			}
			if p != Closed && len(left) < 2 {
				t.Errorf("%s leads to %v only", p, left)
			}
		}
	}
	if len(reached) != len(Phases()) {
		t.Errorf("%d of %d phases are reached", len(reached), len(Phases()))
	}
}

// Whatever the facts are: what must never be done, and what must not be forgotten.
func TestNextNever(t *testing.T) {
	names := map[string]bool{}
	for _, p := range Phases() {
		if names[p.String()] {
			t.Errorf("two phases are called %s", p)
		}
		names[p.String()] = true
		for _, e := range []Event{Lent, Ready, Moved, Left, Lost} {
			switch {
			case e == Lent && p != Idle, (e == Ready || e == Left) && !p.Lent(), e == Moved && !p.Lent() && !p.Cleaning(), p == Closed:
				continue // cannot happen
			}
			for f := range someFacts() {
				to, do := Next(p, e, f)
				if why := wrong(p, e, f, to, do); why != "" {
					t.Fatalf("%s, %s, facts %s: %s and %q: %s", p, e, f, to, do, why)
				}
			}
		}
	}
}

func wrong(p Phase, e Event, f Facts, to Phase, do Actions) string {
	given := do.Has(Release) || do.Has(Return)
	switch {
	case given != (to == Idle):
		return "idle is what was given back, and nothing else"
	case given && !f.Has(Quiet|Outside):
		return "it is given away in the middle of something"
	case given && f&(Flying|Mid|Dirty|Failed) != 0:
		return "it is given away unclean"
	case do.Has(Release) && !f.Has(Last):
		return "somebody else would get what was received"
	case do.Has(Close) != (to == Closed):
		return "closed is what was closed"
	case do&(Inspect|Prepare) != 0 && e != Lent && !f.Has(Quiet):
		return "the question meets an answer"
	case do.Has(Inspect) && p == Serving && f.Has(Flying):
		return "a cancel request could hit the question"
	case do.Has(RollBack) && f&(Mid|Flying) != 0:
		return "a cancel request could hit the ROLLBACK, or it is taken for the rest of a message"
	case (do.Has(Part) || do.Has(Release)) && !p.Lent():
		return "there is no lease to end"
	case do.Has(Part) && to != Finishing:
		return "who has parted is cleaned"
	case e == Left && to.Lent():
		return "it is lent to nobody"
	case to.Busy() && !p.Busy() && do&(Prepare|Inspect|RollBack) == 0:
		return "nothing was asked, so no answer ends it"
	case do&(Prepare|Inspect|RollBack|Reset) != 0 && !to.Busy() && to != Undoing && to != Resetting:
		return "nobody waits for the answer"
	case do.Has(Tell) && (e != Ready || p != Serving):
		return "there is nothing to pass on"
	case e == Lost && to != Closed:
		return "what is lost is closed"
	}
	return ""
}

func ExampleNext() {
	phase, do := Next(Serving, Ready, Quiet|Outside|Last|Noted)
	fmt.Println(phase, "-", do)
	phase, do = Next(phase, Ready, Quiet|Outside|Last)
	fmt.Println(phase, "-", do)
	phase, do = Next(phase, Moved, Quiet|Outside|Last)
	fmt.Println(phase, "-", do)
	// Output:
	// inspecting - inspect, tell
	// serving - settle
	// idle - release
}
