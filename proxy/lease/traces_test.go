// Tests of what a transaction leaves: noted, tracked, pinned, reset.

package lease

import (
	"testing"

	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"pgregory.net/rapid"
)

// usual are a tenant's policies if it says nothing.
func usual() *Policies {
	p := Policies{Track: sqltext.StateSet, Reset: sqltext.StateSequence,
		Pin: sqltext.StateListen | sqltext.StateTemp | sqltext.StateLock | sqltext.StateCursor | sqltext.StatePrepared | sqltext.StateLoad | sqltext.StateSeed}.Compile()
	return &p
}

// runs is a statement of a client's: noted as it is sent, and completed.
func runs(t *Traces, h *Holder, p *Policies, text, tag string) {
	note, state := sqltext.Scan([]byte(text + "\x00"))
	h.Leave(t, p, state, false, func() []string { return sqltext.ParameterNames([]byte(text + "\x00")) })
	t.Completed(p, []byte(tag), note)
}

// What is asked about, what pins, and what the next client would find, after one transaction.
func TestTraces(t *testing.T) {
	type step struct{ text, tag string }
	resets, refuses, allows := usual(), usual(), Policies{}.Compile()
	resets.Track, resets.Pin, resets.Reset = 0, 0, sqltext.StateAny|sqltext.StateLoad
	refuses.Track, refuses.Refuse = 0, sqltext.StateSet
	for name, c := range map[string]struct {
		p     *Policies
		steps []step
		errs  bool
		asks  sqltext.State
		pins  sqltext.State
		found Facts // by the next client
		after Facts // the lease has ended
	}{
		"nothing":                  {p: usual(), steps: []step{{"select 1", "SELECT 1"}}},
		"a setting":                {p: usual(), steps: []step{{"set work_mem = '64MB'", "SET"}}, asks: sqltext.StateSet},
		"a setting that failed":    {p: usual(), steps: []step{{"set work_mem = 'x'", "SET"}}, errs: true, asks: sqltext.StateSet},
		"a lock":                   {p: usual(), steps: []step{{"select pg_advisory_lock(1)", "SELECT 1"}}, asks: sqltext.StateLock},
		"a library":                {p: usual(), steps: []step{{"load 'x'", "LOAD"}}, pins: sqltext.StateLoad, found: Dirty, after: Failed},
		"a seed":                   {p: usual(), steps: []step{{"select setseed(0.5)", "SELECT 1"}}, pins: sqltext.StateSeed, after: Dirty},
		"a setting, to be reset":   {p: resets, steps: []step{{"set work_mem = '64MB'", "SET"}}, found: Dirty, after: Dirty},
		"a library, to be reset":   {p: resets, steps: []step{{"load 'x'", "LOAD"}}, found: Dirty, after: Failed},
		"what was refused in vain": {p: refuses, steps: []step{{"set work_mem = '64MB'", "SET"}}, found: Dirty, after: Dirty},
		"all is allowed":           {p: &allows, steps: []step{{"set work_mem = '64MB'", "SET"}, {"load 'x'", "LOAD"}, {"listen a", "LISTEN"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var tr Traces
			var h Holder
			for _, s := range c.steps {
				runs(&tr, &h, c.p, s.text, s.tag)
			}
			if c.errs {
				tr.Erred()
			}
			tr.Concluded(true)
			asks, pins := tr.Suspects(c.p, &h)
			h.Pin(pins)
			if asks != c.asks || pins != c.pins || tr.Facts() != c.found {
				t.Errorf("asks about %v, pins for %v, facts %s; want %v, %v, %s", asks.Names(), pins.Names(), tr.Facts(), c.asks.Names(), c.pins.Names(), c.found)
			}
			if tr.End(c.p, &h, Serving); tr.Facts() != c.after {
				t.Errorf("after the lease: facts %s, want %s", tr.Facts(), c.after)
			}
		})
	}
}

// What cannot be asked about counts if its transaction was committed, and then only.
func TestUnreadable(t *testing.T) {
	const hidden = "do $$begin perform set_config('a' || 'b.c', 'x', false); end$$"
	note, _ := sqltext.Scan([]byte(hidden + "\x00"))
	if left := sqltext.TagState([]byte("DO"), note); left&unreadable == 0 {
		t.Fatalf("the text leaves %v: nothing to test", left.Names())
	}
	for name, c := range map[string]struct {
		ends func(*Traces)
		kept bool
	}{
		"committed alone": {func(tr *Traces) { tr.Concluded(true) }, true},
		"failed":          {func(tr *Traces) { tr.Erred(); tr.Concluded(true) }, false},
		"committed": {func(tr *Traces) {
			tr.Concluded(false)
			tr.Completed(usual(), []byte("COMMIT"), 0)
			tr.Concluded(true)
		}, true},
		"rolled back": {func(tr *Traces) {
			tr.Concluded(false)
			tr.Completed(usual(), []byte("ROLLBACK"), 0)
			tr.Concluded(true)
		}, false},
		"rolled back by Postern": {func(tr *Traces) { tr.Concluded(false); tr.RolledBack() }, false},
		"discarded": {func(tr *Traces) {
			tr.Completed(usual(), []byte("DISCARD ALL"), 0)
			tr.Concluded(true)
		}, false},
	} {
		var tr Traces
		var h Holder
		tr.Completed(usual(), []byte("DO"), note)
		c.ends(&tr)
		if _, _ = tr.Suspects(usual(), &h); (tr.Facts() == Dirty) != c.kept && (h.Pins != 0 || h.hidden) != c.kept {
			t.Errorf("%s: facts %s, pins %v, hidden %v; want it to count: %v", name, tr.Facts(), h.Pins.Names(), h.hidden, c.kept)
		}
	}
}

// The phases in which something is asked leave it unknown what is there.
func TestEndInEachPhase(t *testing.T) {
	for _, p := range Phases() {
		if !p.Lent() {
			continue
		}
		var tr Traces
		tr.End(usual(), &Holder{}, p)
		want := Facts(0)
		if p == Preparing || p == Restoring || p == Inspecting {
			want = Dirty
		}
		if tr.Facts() != want {
			t.Errorf("%s: facts %s, want %s", p, tr.Facts(), want)
		}
	}
	var tr Traces
	if tr.End(usual(), &Holder{Alone: true}, Serving); tr.Facts() != Dirty {
		t.Error("a session leaves nothing")
	}
	if tr.Reset(); tr.Facts() != 0 {
		t.Error("a reset leaves something")
	}
	tr.Fail()
	if tr.Reset(); tr.Facts() != Failed {
		t.Error("a reset mends what failed")
	}
}

func TestReplay(t *testing.T) {
	value := "x"
	mine, others, buffers := params.Change{Name: "a", Value: &value}, params.Change{Name: "b"}, params.Change{Name: "temp_buffers", Value: &value}
	for _, c := range []struct {
		list    []params.Change
		done    int
		routine string
		want    Facts
	}{
		{[]params.Change{mine}, 0, "parse", Refused},
		{[]params.Change{mine, others}, 0, "parse", Refused},
		{[]params.Change{mine, others}, 1, "parse", Refused | Inherited},
		{[]params.Change{buffers}, 0, "call_int_check_hook", Refused | Inherited},
		{[]params.Change{buffers}, 0, "parse_int", Refused},
		{[]params.Change{mine}, 1, "CommitTransaction", Failed},
	} {
		r := NewReplay(c.list)
		for range c.done {
			r.Completed([]byte("SET")) // of the isolation level, and no change
			r.Completed([]byte("SELECT 1"))
		}
		if got := r.Facts(); got != 0 {
			t.Errorf("%v after %d: facts %s before the error", c.list, c.done, got)
		}
		if r.Erred(c.routine); r.Facts() != c.want {
			t.Errorf("%v after %d, %s: facts %s, want %s", c.list, c.done, c.routine, r.Facts(), c.want)
		}
	}
}

// row is a row of the answer to a question; "" is NULL.
func row(fields ...string) []byte {
	out := []byte{0, byte(len(fields))}
	for _, f := range fields {
		if f == "" {
			out = append(out, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		out = append(append(out, 0, 0, byte(len(f)>>8), byte(len(f))), f...)
	}
	return out
}

func TestInspection(t *testing.T) {
	var i Inspection
	i.Suspect(sqltext.StateSet | sqltext.StateLock)
	for try := 1; ; try++ {
		if kinds := i.Begin(); kinds != sqltext.StateSet|sqltext.StateLock {
			t.Fatal("asks about", kinds.Names())
		}
		i.Erred()
		unknown, again := i.Unknown()
		if !unknown || again != (try < MaxTries) {
			t.Fatalf("after %d errors: unknown %v, again %v", try, unknown, again)
		}
		if !again {
			break
		}
	}
	i.Begin()
	i.Row(row("advisory_lock", "", ""), "app")
	i.Row(row("set", "work_mem", "64MB"), "app")
	long := row("named", "app.long", string(make([]byte, 5000)))
	i.FirstOf(long[:100], len(long))
	i.More(long[100:200], false, "app")
	i.More(long[200:], true, "app")
	i.Row(row("named", "app.known", "x"), "app")
	i.Row(row("unset", "app.known", "x"), "app")
	i.Row(row("set", "session_authorization", "app"), "app")
	i.Row(row("named", "app.nothing", ""), "app")
	if unknown, _ := i.Unknown(); unknown || i.Huge() {
		t.Fatal("not understood")
	}
	set, asked := i.Settings()
	if want := []pgwire.Param{{Name: "work_mem", Value: "64MB"}, {Name: "app.long", Value: string(make([]byte, 5000))}}; !asked || len(set) != 2 || set[0] != want[0] || set[1] != want[1] {
		t.Errorf("set: %.80v", set)
	}
	h := Holder{Pins: sqltext.StateListen | sqltext.StateSet}
	if added := i.Pins(usual(), &h, true); added != sqltext.StateLock || h.Pins != sqltext.StateListen|sqltext.StateLock {
		t.Errorf("pins %v, new %v", h.Pins.Names(), added.Names())
	}
	i.Row(make([]byte, MaxSettings), "app")
	if !i.Huge() {
		t.Error("any length is kept")
	}
	if i.Pins(usual(), &h, true); h.Pins&sqltext.StateSet == 0 {
		t.Error("what is too long to be kept pins nobody")
	}
	i.Begin()
	if i.Row([]byte{0, 9}, "app"); !i.failed {
		t.Error("half a row is understood")
	}
}

// Clients that draw and read numbers in any order, on two servers: nobody reads another's, nobody loses its own.
func TestSequencesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type server struct {
			q     Sequences
			shows int // which number; 0: none
		}
		p := usual()
		servers := [2]server{}
		clients := [4]Holder{}
		latest, count := [4]int{}, 0 // the numbers that they drew last
		discard := func(s *server) {
			s.shows = 0
			if !s.q.Discarded([]byte("DISCARD SEQUENCES")) {
				t.Fatal("not taken note of")
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "leases") {
			s := &servers[rapid.IntRange(0, 1).Draw(t, "server")]
			n := rapid.IntRange(0, 3).Draw(t, "client")
			drawn := false
			s.q.Lend(&clients[n])
			for range rapid.IntRange(0, 4).Draw(t, "statements") {
				if rapid.Bool().Draw(t, "draws") {
					s.q.Sent(sqltext.StateSequence)
					count++
					s.shows, latest[n], drawn = count, count, true
					continue
				}
				if concerns, _ := s.q.Concerns(p, sqltext.StateReads); concerns && s.q.Foreign() {
					s.q.Forgets()
					if rapid.Bool().Draw(t, "fails") {
						s.q.Rest()
						continue // and the text is not read either
					}
					discard(s)
				}
				s.q.Sent(sqltext.StateReads)
				if s.shows != 0 && s.shows != latest[n] {
					t.Fatalf("client %d reads number %d, and drew %d", n+1, s.shows, latest[n])
				}
				if drawn && s.shows == 0 {
					t.Fatalf("client %d has lost its numbers in its own lease", n+1)
				}
			}
			s.q.Rest()
		}
	})
}
