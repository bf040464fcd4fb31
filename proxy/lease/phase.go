// The rule of a lease: in which phase a server connection is, and what follows from what happens.

package lease

import (
	"math/bits"
	"strings"
)

// Phase is what a server connection is doing, and for whom.
type Phase uint8

// The phases. See the package's diagram.
const (
	Idle       Phase = iota // nobody has it; or it has not logged in yet
	Preparing               // a client's settings are set on it, before its first message
	Serving                 // a client's messages go to it
	Inspecting              // it is asked what a transaction of its client has left
	Restoring               // what its client came with is set again, in the place of what it has reset
	Condemned               // statement mode: its client has opened a block, and it cannot be told to roll it back yet
	Punishing               // it rolls that back
	Finishing               // its client has left: what that left open is ended, and answers are awaited
	Undoing                 // it rolls back the transaction that the client has left
	Resetting               // it discards its session
	Closed                  // it is gone for good
)

// Phases are all of them.
func Phases() []Phase {
	return []Phase{Idle, Preparing, Serving, Inspecting, Restoring, Condemned, Punishing, Finishing, Undoing, Resetting, Closed}
}

// String names the phase for logs and tests.
func (p Phase) String() string {
	return [...]string{"idle", "preparing", "serving", "inspecting", "restoring", "condemned", "punishing", "finishing", "undoing",
		"resetting", "closed"}[p]
}

// Lent reports whether a client has the server.
func (p Phase) Lent() bool { return p >= Preparing && p <= Punishing }

// Cleaning reports whether it gets clean without its client.
func (p Phase) Cleaning() bool { return p >= Finishing && p <= Resetting }

// Busy reports whether it owes an answer to something of Postern's own, for
// which its client waits.
func (p Phase) Busy() bool {
	return p == Preparing || p == Inspecting || p == Restoring || p == Punishing
}

// Audible reports whether its client hears what it says at any time.
func (p Phase) Audible() bool { return p == Serving || p == Inspecting || p == Restoring }

// Event is what has happened to a server connection.
type Event uint8

// The events.
const (
	Lent  Event = iota // a client got it
	Ready              // it has said that it is ready, or has answered what Postern asked
	Moved              // something may have ended that was waited for: a message, a cancel request, what is owed
	Left               // its client is gone, in whatever phase
	Lost               // it is gone, or not to be trusted
)

// String names the event for tests.
func (e Event) String() string { return [...]string{"lent", "ready", "moved", "left", "lost"}[e] }

// Facts are what the rule has to know of the moment. They are asked for each
// event, of whoever keeps them: the link, the books of cancel requests, the two
// sides' framing, and what the lease has left behind.
type Facts uint32

// The facts.
const (
	Quiet     Facts = 1 << iota // the server owes nothing
	Outside                     // it is in no transaction
	Last                        // nothing was received behind its last answer
	Flying                      // a cancel request is on its way to it
	Mid                         // a message is half said, by the client or by the server; at Left: by the client
	Stuck                       // it may owe something, but nothing that would tell
	Greeting                    // the client is not greeted yet
	Differs                     // the server does not have the client's settings
	Noted                       // the server is to be asked what was left
	Kept                        // the client keeps the server
	InBlock                     // the client must not have a transaction block, and has one
	Departs                     // the client has said its last, and has its answers
	Drains                      // the client is to be sent away, and nothing of its own runs
	Refused                     // the server has refused the client's settings
	Inherited                   // and that is the fault of somebody before
	Unknown                     // the server has not said what was left, and is asked once more
	Owes                        // requests of the client that left are running
	Parting                     // the client had said its last, and those are to be done
	Dirty                       // nobody else may see what is on the server, which a reset takes out
	Failed                      // something of Postern's own went wrong, or nothing takes out what is on it
)

var factNames = [...]string{"quiet", "outside", "last", "flying", "mid", "stuck", "greeting", "differs", "noted", "kept", "in a block",
	"departs", "drains", "refused", "inherited", "unknown", "owes", "parting", "dirty", "failed"}

// String lists the facts for tests.
func (f Facts) String() string { return list(uint32(f), factNames[:]) }

// list joins the names of the bits that are set.
func list(set uint32, names []string) string {
	var out []string
	for ; set != 0; set &= set - 1 {
		out = append(out, names[bits.TrailingZeros32(set)])
	}
	return strings.Join(out, ", ")
}

// Has reports whether all of some facts hold.
func (f Facts) Has(all Facts) bool { return f&all == all }

// free is when a server can be anybody's: it waits for a command, and is in no transaction.
const free = Quiet | Outside

// Rests reports whether a server is between two transactions of its client.
func (f Facts) Rests() bool { return f.Has(free) && f&(Mid|Greeting) == 0 }

// Actions are what follows, in no order: whoever carries them out knows what
// comes before what.
type Actions uint32

// The actions.
const (
	Prepare  Actions = 1 << iota // set the client's settings on the server
	Agree                        // the server has the client's settings: take note
	Welcome                      // greet the client, or tell it what is new on this server
	Inspect                      // ask the server what was left
	Accuse                       // tell the client that it must not open a block
	RollBack                     // send a ROLLBACK
	Absolve                      // tell the client that its block is over
	Tell                         // pass on what the server said last
	Dismiss                      // send the client away, which is draining
	Depart                       // let the client go, as it has asked
	Settle                       // a transaction has ended: tell the rule that it Moved
	Keep                         // the client keeps the server between two transactions
	Release                      // part them, and give the server to the next client
	Part                         // part them, and clean the server
	Cancel                       // cancel what runs for nobody
	Patience                     // wait longer for it, because it is to be done
	Blame                        // tell the client why the server refused its settings
	Exchange                     // get the client another server
	Finish                       // end what the client has left open, and look again when the server has said something
	Reset                        // discard the session
	Fresh                        // the session is discarded: take note
	Return                       // the server is clean: give it to the next client
	Close                        // close the server
)

var actionNames = [...]string{"prepare", "agree", "welcome", "inspect", "accuse", "roll back", "absolve", "tell", "dismiss", "depart",
	"settle", "keep", "release", "part", "cancel", "patience", "blame", "exchange", "finish", "reset", "fresh", "return", "close"}

// Has reports whether all of some actions are to be done.
func (a Actions) Has(all Actions) bool { return a&all == all }

// String lists the actions for tests.
func (a Actions) String() string { return list(uint32(a), actionNames[:]) }

// Next says what an event makes of a phase, and what is to be done. It is the
// rule of the whole lease, and does nothing itself.
func Next(p Phase, e Event, f Facts) (Phase, Actions) {
	switch e {
	case Lent:
		return lent(f)
	case Ready:
		return ready(p, f)
	case Moved:
		return moved(p, f)
	case Left:
		return left(f)
	}
	return Closed, Close
}

// lent begins a lease.
func lent(f Facts) (Phase, Actions) {
	if f.Has(Differs) {
		return Preparing, Prepare
	}
	return prepared(f)
}

// prepared is when the server has the client's settings.
func prepared(f Facts) (Phase, Actions) {
	if f.Has(Greeting) { // which is all that it was lent for, perhaps
		return Serving, Agree | Welcome | Settle
	}
	return Serving, Agree | Welcome
}

// ready is at a ReadyForQuery of a server that is lent.
func ready(p Phase, f Facts) (Phase, Actions) {
	switch {
	case p == Serving:
		return served(f)
	case !f.Has(Quiet):
		return p, 0 // more of Postern's own is to be answered
	}
	switch p {
	case Preparing, Restoring:
		return judged(p, f)
	case Inspecting:
		switch {
		case f.Has(Unknown):
			return Inspecting, Inspect
		case f.Has(Differs):
			return Restoring, Prepare
		}
		return Serving, Settle
	case Punishing:
		return Serving, Absolve | Settle
	}
	return p, 0
}

// judged is when the server has said what it makes of the client's settings.
func judged(p Phase, f Facts) (Phase, Actions) {
	switch {
	case f.Has(Refused|Inherited) && f.Has(Last):
		return Closed, Close | Exchange
	case f.Has(Refused | Last): // it has rolled back all of them
		return Finishing, Part | Blame
	case f.Has(Failed) || !f.Has(Last):
		return Closed, Close | Blame
	case p == Restoring:
		return Serving, Agree | Settle
	}
	return prepared(f)
}

// served is at a ReadyForQuery that the client has asked for.
func served(f Facts) (Phase, Actions) {
	switch {
	case f.Has(InBlock) && f&(Mid|Flying) != 0:
		return Condemned, Accuse
	case f.Has(InBlock):
		return Punishing, Accuse | RollBack
	case f.Has(Departs):
		return Serving, Tell | Depart
	case f.Has(Drains):
		return Serving, Tell | Dismiss
	}
	p, do := rested(f)
	if do&^Keep == 0 {
		return p, do // nothing more urgent: it goes with what follows
	}
	return p, do | Tell
}

// rested is between two transactions of a client that stays: what the one before
// may have left is asked, and then the server is given back unless the client
// keeps it. A cancel request that is on its way could hit the question.
func rested(f Facts) (Phase, Actions) {
	switch {
	case !f.Rests() || f.Has(Noted|Flying):
		return Serving, 0
	case f.Has(Noted):
		return Inspecting, Inspect
	case f.Has(Kept | Flying):
		return Serving, 0
	case f.Has(Kept):
		return Serving, Keep
	case f&(Dirty|Failed|Flying) != 0 || !f.Has(Last):
		return Finishing, Part
	}
	return Idle, Release
}

// moved is when something has ended that was waited for, or may have.
func moved(p Phase, f Facts) (Phase, Actions) {
	switch p {
	case Serving:
		return rested(f)
	case Condemned:
		if f&(Mid|Flying) == 0 {
			return Punishing, RollBack
		}
	case Finishing, Undoing, Resetting:
		return cleaned(p, f)
	}
	return p, 0
}

// left is when the client is gone. A server that has only the beginning of its
// message would take whatever comes for the rest.
func left(f Facts) (Phase, Actions) {
	switch {
	case f.Has(Mid):
		return Closed, Close
	case f.Has(Owes | Parting):
		return Finishing, Part | Patience
	case f.Has(Owes):
		return Finishing, Part | Cancel
	}
	return Finishing, Part
}

// cleaned does one thing after the other until a server without a client is
// clean: nothing owed, no transaction, nothing left of the session.
func cleaned(p Phase, f Facts) (Phase, Actions) {
	switch {
	case f.Has(Stuck):
		return Closed, Close
	case !f.Has(Quiet) || f&(Flying|Mid) != 0:
		return p, 0
	case f.Has(Failed):
		return Closed, Close
	case !f.Has(Outside):
		return Undoing, RollBack
	case f.Has(Dirty):
		return Resetting, Reset
	case p == Resetting:
		return Idle, Fresh | Return
	}
	return Idle, Return
}
