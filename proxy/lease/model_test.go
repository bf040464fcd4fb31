// Random schedules of the rule of a lease, against a model of a server and its client.

package lease

import (
	"testing"

	"pgregory.net/rapid"
)

// A model of what is around the rule: clients that send, hang and leave, a server
// that answers in order, cancel requests that hit whatever runs when they arrive.
// Every answer has to come to who asked, and nobody may find what another has left.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, last: true}
		t.Repeat(map[string]func(*rapid.T){"": func(*rapid.T) { w.check() }, "step": w.step})
		w.drain()
	})
}

// step does one of the things that can happen now. It draws from these alone: of actions that are mostly impossible, a
// hundred draws in a row may be, and rapid takes that for a failure.
func (w *world) step(t *rapid.T) {
	var can []func(*rapid.T)
	for _, a := range []struct {
		possible bool
		act      func(*rapid.T)
	}{
		{w.phase == Idle || w.phase == Closed, w.lend},
		{w.takes(), w.send},
		{w.takes(), w.beginMessage},
		{w.mid, w.endMessage},
		{len(w.queue) > 0, w.answer},
		{w.phase == Serving && len(w.queue) > 0 && w.flying == 0, w.cancel},
		{w.flying > 0, w.arrives},
		{w.phase.Lent(), w.leave},
	} {
		if a.possible {
			can = append(can, a.act)
		}
	}
	if w.phase != Closed && (len(can) == 0 || rapid.IntRange(0, 99).Draw(t, "rare") == 99) {
		can = []func(*rapid.T){w.disconnect}
	}
	can[rapid.IntRange(0, len(can)-1).Draw(t, "what")](t)
}

// owed is an answer that is due.
type owed struct {
	client int    // who asked; 0: Postern
	what   string // of Postern's own
	begins bool   // it opens a block
	leaves bool   // it leaves something in the session
	fails  bool
}

type world struct {
	t      *rapid.T
	phase  Phase
	client int // who has the server; 0: nobody
	count  int // clients so far
	queue  []owed
	block  bool // the server is in one
	failed bool // as the books have it
	dirty  bool
	noted  bool
	kept   bool
	unsure bool // the question was not answered
	refuse bool // the settings were refused
	heirs  bool // because of somebody before
	last   bool
	flying int
	aimed  int  // whom the cancel request on its way is for; 0: nobody
	mid    bool // the client has sent the half of a message
	mode   string
	left   int // whose state is in the server's session; 0: nobody's
	reset  bool
}

func (w *world) facts() (f Facts) {
	for fact, holds := range map[Facts]bool{Quiet: len(w.queue) == 0, Outside: !w.block, Last: w.last, Flying: w.flying > 0, Mid: w.mid,
		Noted: w.noted, Kept: w.kept || w.mode == "session", InBlock: w.mode == "statement" && w.block && len(w.queue) == 0,
		Unknown: w.unsure, Refused: w.refuse, Inherited: w.heirs, Dirty: w.dirty, Failed: w.failed} {
		if holds {
			f |= fact
		}
	}
	return f
}

// tell raises an event and does what follows.
func (w *world) tell(e Event, more Facts) {
	before := w.phase
	next, do := Next(w.phase, e, w.facts()|more)
	w.phase = next
	for _, ask := range []struct {
		do   Actions
		what string
	}{{Prepare, "settings"}, {Inspect, "question"}, {RollBack, "ROLLBACK"}, {Reset, "DISCARD ALL"}} {
		if !do.Has(ask.do) {
			continue
		}
		if len(w.queue) > 0 || w.mid {
			w.t.Fatalf("%s, %d: the %s is sent while %v is owed", before, e, ask.what, w.queue)
		}
		if w.flying > 0 && ask.do != Reset {
			w.t.Fatalf("%s, %d: the %s is sent while a cancel request is on its way", before, e, ask.what)
		}
		if ask.do&(Prepare|Inspect) != 0 {
			w.queue = append(w.queue, owed{what: "more"}) // what it asks takes two answers
		}
		w.queue = append(w.queue, owed{what: ask.what})
		w.refuse, w.heirs, w.unsure = false, false, false
		if ask.do == Inspect {
			w.noted = false
		}
		if ask.do == Reset {
			w.dirty, w.reset = false, true
		}
	}
	if do&(Part|Release) != 0 {
		if do.Has(Part) {
			w.dirty = w.dirty || w.noted || w.kept || w.mode == "session" || before != Serving || len(w.queue) > 0
		}
		w.client, w.noted, w.kept, w.mode = 0, false, false, ""
	}
	if do.Has(Cancel) {
		w.flying, w.aimed = 1, 0
	}
	switch {
	case do.Has(Return):
		w.clean()
		if do.Has(Fresh) != w.reset {
			w.t.Fatal("a reset is told as it was done")
		}
		w.reset = false
	case do.Has(Release):
		w.clean()
	case do.Has(Close):
		w.client, w.queue, w.flying, w.mid, w.block, w.left = 0, nil, 0, false, false, 0
	case do.Has(Settle):
		w.tell(Moved, 0)
	case do.Has(Part):
		w.tell(Moved, 0)
	}
}

// clean checks a server that anybody may get.
func (w *world) clean() {
	if len(w.queue) > 0 || w.block || w.flying > 0 || w.left != 0 {
		w.t.Fatalf("given away with %v owed, block %v, cancels %d, state of client %d", w.queue, w.block, w.flying, w.left)
	}
}

func (w *world) check() {
	if (w.client != 0) != w.phase.Lent() {
		w.t.Fatalf("%s, and client %d", w.phase, w.client)
	}
	if w.phase.Busy() && len(w.queue) == 0 {
		w.t.Fatalf("%s for ever: nothing is owed", w.phase)
	}
}

func (w *world) lend(t *rapid.T) {
	if w.phase == Closed {
		*w = world{t: w.t, count: w.count, last: true} // another one
	}
	w.count++
	w.client, w.mode = w.count, rapid.SampledFrom([]string{"session", "transaction", "statement"}).Draw(t, "mode")
	var more Facts
	if rapid.Bool().Draw(t, "differs") {
		more = Differs
	}
	w.tell(Lent, more)
}

func (w *world) request(t *rapid.T) owed {
	return owed{client: w.client, begins: rapid.Bool().Draw(t, "begins"), leaves: rapid.Bool().Draw(t, "leaves")}
}

// takes reports whether the client's next message may go to the server.
func (w *world) takes() bool {
	return w.phase == Serving && !w.mid && w.flying == 0 && (w.mode != "statement" || len(w.queue) == 0)
}

func (w *world) send(t *rapid.T) {
	w.queue = append(w.queue, w.request(t))
}

func (w *world) beginMessage(t *rapid.T) {
	w.mid = true // of a kind that gets no answer
}

func (w *world) endMessage(t *rapid.T) {
	w.mid = false
	w.tell(Moved, 0)
}

// answer is the server's next ReadyForQuery.
func (w *world) answer(t *rapid.T) {
	a := w.queue[0]
	w.queue = w.queue[1:]
	if a.client != w.client && a.client != 0 && w.client != 0 {
		t.Fatalf("client %d gets the answer of client %d", w.client, a.client)
	}
	w.last = len(w.queue) > 0 || rapid.IntRange(0, 9).Draw(t, "last") > 0
	switch a.what {
	case "":
		if a.begins {
			w.block = !w.block
		}
		switch {
		case !a.leaves:
		case w.client == 0 || rapid.Bool().Draw(t, "resets"):
			w.left, w.dirty = a.client, true
		case rapid.IntRange(0, 4).Draw(t, "for good") == 0:
			w.left, w.failed = a.client, true // nothing takes it out
		default:
			w.left, w.noted = a.client, true
		}
	case "ROLLBACK":
		w.block = false
	case "DISCARD ALL":
		w.left = 0
		if rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
			w.failed, w.left = true, -1
		}
	case "settings":
		w.refuse = rapid.IntRange(0, 3).Draw(t, "refuses") == 0
		w.heirs = w.refuse && rapid.Bool().Draw(t, "inherited")
	case "question":
		w.unsure = rapid.IntRange(0, 3).Draw(t, "unsure") == 0
		if !w.unsure && w.left != 0 {
			if w.kept = rapid.Bool().Draw(t, "pins"); !w.kept && !w.dirty && !w.failed {
				w.left = 0 // tracked: the next one has settings of its own set first
			}
		}
	}
	switch {
	case w.client != 0 && (a.client != 0) != (w.phase == Serving):
		t.Fatalf("%s: the answer to %v", w.phase, a)
	case w.client != 0:
		w.tell(Ready, 0)
	}
	w.last = true
	if w.client == 0 {
		w.tell(Moved, 0)
	}
}

func (w *world) cancel(t *rapid.T) {
	w.flying, w.aimed = 1, w.client
}

func (w *world) arrives(t *rapid.T) {
	if len(w.queue) > 0 && w.aimed != 0 && w.queue[0].client != w.aimed {
		t.Fatalf("a cancel of client %d hits %v", w.aimed, w.queue[0])
	}
	w.flying = 0
	w.tell(Moved, 0)
}

func (w *world) leave(t *rapid.T) {
	var more Facts
	if len(w.queue) > 0 {
		more = Owes
		if w.flying > 0 || rapid.Bool().Draw(t, "goodbye") {
			more |= Parting // or the request that is on its way will do
		}
	}
	w.tell(Left, more)
}

func (w *world) disconnect(*rapid.T) {
	w.tell(Lost, 0)
}

// drain lets all that is under way end: then the server is idle, its client's, or gone.
func (w *world) drain() {
	for range 100 {
		switch {
		case w.mid:
			w.endMessage(w.t)
		case w.flying > 0:
			w.arrives(w.t)
		case len(w.queue) > 0:
			w.answer(w.t)
		}
	}
	if w.phase != Idle && w.phase != Serving && w.phase != Closed {
		w.t.Fatalf("%s, and nothing is under way: %+v", w.phase, w)
	}
}
