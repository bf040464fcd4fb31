// Waking through every fault: what is returned, after how long, and with how many starts.

package fly

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/test/fakefly"
)

func TestWakeThroughFaults(t *testing.T) {
	ok := machines.Kind(255)
	for name, tt := range map[string]struct {
		faults   []fakefly.Fault
		prepare  func(w world)
		limit    time.Duration // 0: a minute
		want     machines.Kind
		starts   int // asked for
		min, max time.Duration
	}{
		"429: somebody else is starting it": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start).Done()}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"429 and nobody is": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start)}, want: ok, starts: 2, min: 7 * time.Second, max: 8 * time.Second},
		"429 for ever": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start).Always()}, want: machines.RateLimited, starts: 3, min: 10 * time.Second, max: 12 * time.Second},
		"429 of everything but get": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start).Always(), fakefly.TooManyRequests(fakefly.Wait).Always()}, want: machines.RateLimited, starts: 3, min: 10 * time.Second, max: 15 * time.Second},
		"429 with a long Retry-After": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Status: 429, Header: http.Header{"Retry-After": {"600"}}}}, want: machines.RateLimited, starts: 1, min: time.Minute, max: time.Minute},
		"a lease, let go of": {
			faults: []fakefly.Fault{fakefly.LeaseHeld(fakefly.Start), fakefly.LeaseHeld(fakefly.Start), fakefly.StillActive(fakefly.Start)}, want: ok, starts: 4, min: 2 * time.Second, max: 6 * time.Second},
		"a lease for ever": {
			faults: []fakefly.Fault{fakefly.LeaseHeld(fakefly.Start).Always()}, want: machines.Busy, starts: 24, min: time.Minute, max: time.Minute},
		"408, not done": {
			faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Start)}, want: ok, starts: 2, min: 2 * time.Second, max: 3 * time.Second},
		"408, done": {
			faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Start).Done()}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"408 for ever": {
			faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Start).Always()}, want: machines.Unreachable, starts: 2, max: time.Second},
		"answer lost, not done": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Lost: fakefly.LostBefore}}, want: ok, starts: 2, min: 2 * time.Second, max: 3 * time.Second},
		"answer lost, done": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Lost: fakefly.LostAfter}}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"answer cut in half": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Truncate: true}}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"answer is a web page": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Body: "<html>"}}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"every answer lost": {
			faults: []fakefly.Fault{{Lost: fakefly.LostBefore}}, want: machines.Transient, starts: 0, min: time.Second, max: 10 * time.Second},
		"host full": {
			faults: []fakefly.Fault{fakefly.HostFull(fakefly.Start).Always()}, want: machines.Capacity, starts: 1},
		"no capacity": {
			faults: []fakefly.Fault{fakefly.NoCapacity(fakefly.Start).Always()}, want: machines.Capacity, starts: 1},
		"500s, then well": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Start), fakefly.Broken(fakefly.Start), fakefly.Broken(fakefly.Get), fakefly.Broken(fakefly.Wait)}, want: ok, starts: 3, min: 2 * time.Second, max: 6 * time.Second},
		"500s for ever": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Start).Always()}, want: machines.Transient, starts: 4, max: 5 * time.Second},
		"500s of get": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Get).Always()}, want: machines.Transient, starts: 0, max: 10 * time.Second},
		"500s of wait": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Wait).Always()}, want: ok, starts: 1, max: 10 * time.Second},
		"401": {
			faults: []fakefly.Fault{fakefly.Revoked("").Always()}, want: machines.Auth, starts: 0},
		"401 of start": {
			faults: []fakefly.Fault{fakefly.Revoked(fakefly.Start).Always()}, want: machines.Auth, starts: 1},
		"404": {
			faults: []fakefly.Fault{{Status: 404, Body: `{"error":"machine not found"}`}}, want: machines.Gone, starts: 0},
		"the API hangs": {
			faults: []fakefly.Fault{{Delay: time.Hour}}, want: machines.Transient, starts: 0, limit: 25 * time.Second, min: 25 * time.Second, max: 25 * time.Second},
		"start hangs": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Delay: time.Hour}}, want: ok, starts: 2, min: 12 * time.Second, max: 13 * time.Second},
		"it fails to start": {
			prepare: func(w world) { w.fake.FailToStart() }, want: machines.Transient, starts: 1, min: 5 * time.Second, max: 20 * time.Second},
		"it is gone while it starts": {
			prepare: func(w world) { time.AfterFunc(time.Second, w.fake.Destroy) }, want: machines.Gone, starts: 1, max: 11 * time.Second},
		"its host is gone while it starts": {
			faults:  []fakefly.Fault{fakefly.HostSilent(fakefly.Start)},
			prepare: func(w world) { time.AfterFunc(time.Millisecond, func() { w.fake.SetHostStatus("unreachable") }) }, want: machines.Unreachable, starts: 1, max: time.Second},
		"created, and settles": {
			prepare: func(w world) {
				w.fake.SetState("created")
				time.AfterFunc(3*time.Second, func() { w.fake.SetState("stopped") })
			}, want: ok, starts: 8, min: 5 * time.Second, max: 12 * time.Second},
		"stopping": {
			prepare: func(w world) {
				w.fake.SetState("stopping")
				time.AfterFunc(3*time.Second, func() { w.fake.SetState("stopped") })
			}, want: ok, starts: 1, min: 5 * time.Second, max: 5 * time.Second},
		"somebody updates it": {
			prepare: func(w world) {
				w.fake.SetState("replacing")
				time.AfterFunc(15*time.Second, func() { w.fake.SetState("started") })
			}, want: ok, starts: 0, min: 15 * time.Second, max: 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, MachineOptions{}, func(w world) {
				for _, f := range tt.faults {
					w.api.Inject(f)
				}
				if tt.prepare != nil {
					tt.prepare(w)
				}
				if tt.limit == 0 {
					tt.limit = time.Minute
				}
				began := time.Now()
				s, err := w.m.Wake(w.within(tt.limit))
				took := time.Since(began)
				if (tt.want == ok) != (err == nil) || (err != nil && machines.KindOf(err) != tt.want) {
					w.Errorf("%v %v", s, err)
				}
				if took < tt.min || took > tt.max+100*time.Millisecond {
					w.Errorf("took %v", took)
				}
				n := w.api.Count(fakefly.Start, "")
				if n != tt.starts && !(tt.starts > 4 && n <= tt.starts && n >= tt.starts/2) { // of many, jitter decides
					w.Errorf("%d starts", n)
				}
				if w.fake.Starts() > 1 {
					w.Errorf("%d starts were accepted", w.fake.Starts())
				}
				noStorm(w)
				if strings.Contains(w.log.String(), fakefly.DefaultToken) {
					w.Error("the token is in the log")
				}
			})
		})
	}
}

// noStorm checks that starts never overlapped and each came after a look.
func noStorm(w world) {
	w.Helper()
	looked, free := false, time.Time{}
	for _, c := range w.api.Calls() {
		switch c.Action {
		case fakefly.Get:
			looked = true
		case fakefly.Start:
			if !looked || c.At.Before(free) {
				w.Errorf("a start at %v without a look, or before the one before had ended at %v", c.At, free)
			}
			looked, free = false, c.At.Add(c.Took)
		}
	}
}

func TestWakeEndsWithItsContextAndSaysWhatWasInTheWay(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.api.Inject(fakefly.LeaseHeld(fakefly.Start).Always())
		_, err := w.m.Wake(w.within(3 * time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lease currently held") || machines.KindOf(err) != machines.Busy {
			w.Error(err)
		}
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		n := w.api.Count("", "")
		if _, err := w.m.Wake(ctx); !errors.Is(err, context.Canceled) || w.api.Count("", "") != n {
			w.Error(err)
		}
	})
}
