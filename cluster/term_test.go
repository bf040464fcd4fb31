package cluster

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTerm(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	at := func(mono, wall time.Duration) moment { return moment{start.Add(wall), mono} }
	const s = time.Second
	for _, c := range []struct {
		mono, wall time.Duration
		want       error
	}{
		{0, 0, nil},
		{11 * s, 11 * s, nil},
		{12 * s, 12 * s, ErrLeaseOver}, // of 16 s, a quarter is the margin
		{time.Hour, time.Hour, ErrLeaseOver},
		{s, s + maxDrift, nil},
		{s, 2 * s, ErrClockJumped},      // it was frozen with its computer, or the clock was set
		{s, -time.Hour, ErrClockJumped}, // set back
	} {
		term := newTerm(16*s, at(0, 0))
		if err := term.over(at(c.mono, c.wall)); !errors.Is(err, c.want) {
			t.Errorf("after %v, and %v on the wall: %v, want %v", c.mono, c.wall, err, c.want)
		}
	}

	term := newTerm(16*s, at(0, 0))
	if term.due(at(5*s, 5*s)) || !term.due(at(6*s, 6*s)) || term.due(at(7*s, 7*s)) || !term.due(at(8*s, 8*s)) {
		t.Error("it is not renewed after a third of its time, and then a few times")
	}
	term.renewed(at(6*s, 6*s))
	if term.over(at(17*s, 17*s)) != nil || term.over(at(18*s, 18*s)) == nil {
		t.Error("renewed, it does not count from before the request that has renewed it")
	}
	term.renewed(at(0, 0)) // an answer that was overtaken
	if term.over(at(17*s, 17*s)) != nil {
		t.Error("an older answer shortens it")
	}
}

// TestTermsDoNotOverlap: processes that freeze, computers that stand still and requests that take their time never have two processes
// act by the store's leave at once: when one acts, by what its clocks say at that moment, no other lease is out.
func TestTermsDoNotOverlap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const ttl = 16 * time.Second
		type process struct {
			mono, wall time.Duration // its clocks' lag behind true time
			has        bool
			term       term
		}
		var now time.Duration // true time, and the store's
		start := time.Unix(0, 0)
		all := make([]process, 3)
		clock := func(p *process) moment { return moment{start.Add(now - p.wall), now - p.mono} }
		owner, until := -1, time.Duration(0)
		check := func(i int) {
			p := &all[i]
			if !p.has {
				return
			}
			if p.term.over(clock(p)) != nil {
				p.has = false
			} else if owner != i || now > until {
				t.Fatalf("at %v process %d acts, and the lease is %d's until %v", now, i, owner, until)
			}
		}
		pass := func(what string) { now += time.Duration(rapid.IntRange(0, 8000).Draw(t, what)) * time.Millisecond }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, len(all)-1).Draw(t, "process")
			p := &all[i]
			switch what := rapid.SampledFrom([]string{"take", "take", "renew", "act", "act", "stand still", "set"}).Draw(t, "what"); what {
			case "take", "renew":
				if what == "renew" && !p.has {
					break
				}
				sent := clock(p)
				pass("on its way")
				granted := owner == i && now < until || what == "take" && now >= until
				if granted {
					owner, until = i, now+ttl
				}
				pass("back")
				switch {
				case granted && what == "take":
					p.has, p.term = true, newTerm(ttl, sent)
				case granted:
					p.term.renewed(sent)
				case what == "renew":
					p.has = false
				}
			case "act":
				pass("meanwhile")
			case "stand still": // the computer does; it is told the time when it goes on
				before := now
				pass("standing")
				p.mono += now - before
			case "set":
				p.wall += time.Duration(rapid.IntRange(-5000, 5000).Draw(t, "by")) * time.Millisecond
			}
			check(i)
		}
	})
}
