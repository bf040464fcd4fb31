// Tests of the schedule: when a server is asked, and who waits.

package roles

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is a schedule with a clock of its own.
type clock struct {
	*testing.T
	Schedule
	now time.Time
}

func newClock(t *testing.T) *clock {
	t.Helper()
	return &clock{T: t, now: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
}

func (c *clock) is(what string, due, wait bool) {
	c.Helper()
	if got := c.Due(c.now); got != due {
		c.Errorf("%s: due is %v", what, got)
	}
	if got, _ := c.Wait(c.now); got != wait {
		c.Errorf("%s: wait is %v", what, got)
	}
}

func (c *clock) list(how Outcome) {
	c.Start()
	c.now = c.now.Add(time.Millisecond)
	c.End(c.now, how)
}

func TestAServerThatIsAlwaysThere(t *testing.T) {
	c := newClock(t)
	c.is("nothing is known of it", false, true)
	c.Reach(c.now, There)
	c.is("it is there", true, true)
	c.Start()
	c.is("it is asked first", false, true)
	c.End(c.now, Listed)
	c.is("it has told", false, false)
	c.now = c.now.Add(RefreshEvery - time.Second)
	c.is("before the time", false, false)
	c.now = c.now.Add(time.Second)
	c.is("at the time", true, false)
	c.Start()
	c.is("while it is refreshed", false, false)
	c.End(c.now, Listed)

	c.Doubt(Familiar)
	c.is("doubt, just after", false, true)
	if _, until := c.Wait(c.now); !until.Equal(c.now.Add(Gap)) {
		t.Errorf("to be looked at again at %v", until)
	}
	c.now = c.now.Add(Gap)
	c.is("doubt, later", true, true)
	c.Start()
	c.is("doubt, while it is asked", false, true)
	c.Doubt(Familiar)
	c.End(c.now, Listed)
	c.is("more doubt meanwhile", false, true)
	c.now = c.now.Add(Gap)
	c.list(Listed)
	c.is("no doubt", false, false)
}

// TestStrangersAskEverMoreRarely: while what their failures ask for brings nothing new. Whoever may have been here before does not wait
// for that, nor does anybody longer than until something is new.
func TestStrangersAskEverMoreRarely(t *testing.T) {
	c := newClock(t)
	c.Reach(c.now, There)
	c.list(Listed)
	asks := func(d Doubt, after time.Duration, how Outcome) {
		t.Helper()
		c.Doubt(d)
		if _, until := c.Wait(c.now); !until.Equal(c.now.Add(after)) {
			t.Errorf("asked %v later, want %v", until.Sub(c.now), after)
		}
		if at, wants := c.Again(c.now); !wants || !at.Equal(c.now.Add(after)) {
			t.Errorf("again %v later, %v; want %v", at.Sub(c.now), wants, after)
		}
		c.now = c.now.Add(after - time.Nanosecond)
		c.is("just before", false, true)
		c.now = c.now.Add(time.Nanosecond)
		c.is("then", true, true)
		c.list(how)
	}
	for _, after := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		asks(Strange, after*time.Second, Same)
	}
	asks(Familiar, Gap, Same)
	c.Doubt(Strange)
	asks(Familiar, Gap, Same) // who comes beside strangers
	asks(Strange, GapMax, Listed)
	asks(Strange, Gap, Same)
	asks(Strange, 2*Gap, Same)
	asks(Strange, 4*Gap, Same)
	// Nobody has failed for long, so that the list was asked for again anyhow.
	c.now = c.now.Add(RefreshEvery)
	c.list(Same)
	asks(Strange, Gap, Same)
	// It has slept, and is asked when it wakes, whoever has failed before.
	c.Doubt(Strange)
	c.Reach(c.now, Away)
	c.Reach(c.now, There)
	c.is("woken", true, true)
}

func TestAServerThatSleeps(t *testing.T) {
	c := newClock(t)
	c.Reach(c.now, Away)
	c.is("it sleeps, and nothing is known", false, false)
	c.Doubt(Familiar)
	c.is("and somebody has failed", false, false)
	if !c.TakeDoubt() || c.TakeDoubt() {
		t.Error("the doubt is not taken once")
	}
	c.Reach(c.now, There)
	c.is("it has woken", true, true)
	c.list(Listed)
	c.Reach(c.now, Away)
	c.now = c.now.Add(1000 * time.Hour)
	c.is("it has slept for long", false, false)
	if c.Expired(c.now) {
		t.Error("what is known has expired in its sleep")
	}
	c.Reach(c.now, There)
	c.is("woken again: who knows what has happened", true, false)
	c.Start()
	c.Reach(c.now, Away)
	c.End(c.now, Listed)
	c.Reach(c.now, There)
	c.is("told in its last moment", true, false)
	if c.Doubt(Familiar); c.TakeDoubt() {
		t.Error("a doubt is taken of a server that can be asked")
	}
}

func TestAServerThatFails(t *testing.T) {
	c := newClock(t)
	c.Reach(c.now, There)
	pause := pauseMin
	for range 8 {
		c.list(Unreachable)
		c.is("it has failed", false, false)
		c.now = c.now.Add(pause - time.Nanosecond)
		c.is("before the pause is over", false, false)
		c.now = c.now.Add(time.Nanosecond)
		c.is("after it", true, false)
		pause = min(2*pause, pauseMax)
	}
	c.Start()
	c.is("asked again", false, true)
	c.End(c.now, Listed)
	c.list(Unreachable)
	c.is("its first failure since", false, false)
	c.Moved()
	c.is("it is another one", true, false)
}

// TestRefusals: what a server has said counts for an hour of refusals, however it sleeps in between.
func TestRefusals(t *testing.T) {
	c := newClock(t)
	c.Reach(c.now, There)
	c.list(Listed)
	c.now = c.now.Add(RefreshEvery)
	c.list(Unreachable)
	c.now = c.now.Add(10 * ExpireAfter)
	if c.Expired(c.now) {
		t.Error("one that cannot be reached has refused")
	}
	c.list(Refused)
	c.now = c.now.Add(ExpireAfter - time.Minute)
	if c.Expired(c.now) {
		t.Error("too early")
	}
	c.Reach(c.now, Away)
	c.now = c.now.Add(10 * ExpireAfter)
	c.Reach(c.now, There)
	if c.Expired(c.now) {
		t.Error("its sleep was counted")
	}
	c.list(Refused)
	if c.Expired(c.now) {
		t.Error("too early, after its sleep")
	}
	c.now = c.now.Add(time.Minute)
	if !c.Expired(c.now) {
		t.Error("never")
	}
	c.list(Listed)
	if c.Expired(c.now) {
		t.Error("it has told, and still")
	}
}

// TestScheduleAlways holds whatever happens: a server that cannot be asked is not, nothing is asked twice at a time or without a pause,
// and nobody waits for what will not come.
func TestScheduleAlways(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var s Schedule
		now := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
		reach, running, ended := Unknown, false, time.Time{}
		for range rapid.IntRange(1, 50).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "what") {
			case 0:
				reach = rapid.SampledFrom([]Reach{Unknown, Away, There, There}).Draw(r, "reach")
				if s.Reach(now, reach); reach == There {
					ended = time.Time{}
				}
			case 1:
				s.Doubt(rapid.SampledFrom([]Doubt{Strange, Familiar}).Draw(r, "doubt"))
			case 2:
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(6*time.Minute)).Draw(r, "time")))
			case 3:
				if running {
					how := rapid.SampledFrom([]Outcome{Listed, Same, Unreachable, Refused}).Draw(r, "how")
					s.End(now, how)
					running, ended = false, now
				}
			}
			due := s.Due(now)
			if due && (reach != There || running || !ended.IsZero() && now.Sub(ended) < Gap) {
				r.Fatalf("due: reach %d, running %v, %v since the last", reach, running, now.Sub(ended))
			}
			wait, _ := s.Wait(now)
			if wait && reach == Away && !running {
				r.Fatal("somebody waits for a server that is not asked")
			}
			if due {
				s.Start()
				running = true
			}
		}
	})
}
