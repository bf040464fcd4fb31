// Every fault of Fly's API and of its machines: what clients see of it, what is asked of the API, and that nothing is left.

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// flyFault is one thing that goes wrong with a machine that sleeps, just before clients need it.
type flyFault struct {
	name   string
	befall func(t *testing.T, f *flyTenant) (over func()) // over ends it; nil: it ends by itself

	told            bool   // clients are told 57P03, rather than served after all
	hint            string // part of what they are told
	atLeast, within time.Duration
	starts, most    int    // calls of start; most 0: exactly starts
	result          string // of the wake, in the metric
	kind            string // of the call that went wrong, in the log; "": none did
	id              bool   // the log has the fly-request-id of a refusal
}

// injected makes a fault of calls.
func injected(fault fakefly.Fault) func(*testing.T, *flyTenant) func() {
	return func(_ *testing.T, f *flyTenant) func() { return f.g.api.Inject(fault.For(f.id)) }
}

const (
	flyMoment = "Try again in a moment."
	flyRoom   = "Try again in a few minutes."
	flyLog    = "The pooler's log says what is wrong."
	flyJunk   = `<html><body>502 Bad Gateway: ` + fakefly.DefaultToken + `</body></html>`
)

// flyFaults are in groups, each for a gate of its own. hasty is the one whose timeouts.wake is short.
var flyFaults = map[string][]flyFault{
	"refused": {
		{name: "500 once", befall: injected(fakefly.Broken(fakefly.Start)), starts: 2, within: 45 * time.Second, result: "ok", kind: "transient", id: true},
		{name: "500 always", befall: injected(fakefly.Broken(fakefly.Start).Always()), told: true, hint: flyMoment, starts: 4, within: 45 * time.Second, result: "transient", kind: "transient", id: true},
		{name: "429 while somebody else starts it", befall: injected(fakefly.TooManyRequests(fakefly.Start).Done()), starts: 1, within: 45 * time.Second, result: "ok", kind: "rate_limited", id: true},
		{name: "409 lease", befall: injected(fakefly.LeaseHeld(fakefly.Start)), starts: 2, within: 45 * time.Second, result: "ok", kind: "busy", id: true},
		{name: "409 no room on the host", befall: injected(fakefly.HostFull(fakefly.Start).Always()), told: true, hint: flyRoom, starts: 1, within: 20 * time.Second, result: "capacity", kind: "capacity", id: true},
		{name: "412 still active", befall: injected(fakefly.StillActive(fakefly.Start)), starts: 2, within: 45 * time.Second, result: "ok", kind: "busy", id: true},
		{name: "422 no room in the region", befall: injected(fakefly.NoCapacity(fakefly.Start).Always()), told: true, hint: flyRoom, starts: 1, within: 20 * time.Second, result: "capacity", kind: "capacity", id: true},
		{name: "401", befall: injected(fakefly.Revoked(fakefly.Start).Always()), told: true, hint: flyLog, starts: 1, within: 20 * time.Second, result: "auth", kind: "auth", id: true},
		{name: "403", befall: injected(fakefly.Fault{Status: http.StatusForbidden, Body: `{"error":"not yours: ` + fakefly.DefaultToken + `"}`}), told: true, hint: flyLog, within: 20 * time.Second, result: "auth", kind: "auth", id: true},
		{name: "404", befall: injected(fakefly.Fault{Status: http.StatusNotFound, Body: `{"error":"machine not found"}`}), told: true, hint: flyLog, within: 20 * time.Second, result: "gone", kind: "gone", id: true},
	},
	"unanswered": {
		{name: "408 although it was done", befall: injected(fakefly.HostSilent(fakefly.Start).Done()), starts: 1, within: 45 * time.Second, result: "ok", kind: "unreachable", id: true},
		{name: "408 always", befall: injected(fakefly.HostSilent(fakefly.Start).Always()), told: true, hint: flyMoment, starts: 2, within: 45 * time.Second, result: "unreachable", kind: "unreachable", id: true},
		{name: "lost before the work", befall: injected(fakefly.Fault{Action: fakefly.Start, Times: 1, Lost: fakefly.LostBefore}), starts: 2, within: 45 * time.Second, result: "ok", kind: "transient"},
		{name: "lost after the work", befall: injected(fakefly.Fault{Action: fakefly.Start, Times: 1, Lost: fakefly.LostAfter}), starts: 1, within: 45 * time.Second, result: "ok", kind: "transient"},
		{name: "garbage after the work", befall: injected(fakefly.Fault{Action: fakefly.Start, Times: 1, Body: flyJunk}), starts: 1, within: 45 * time.Second, result: "ok", kind: "transient", id: true},
		{name: "half an answer after the work", befall: injected(fakefly.Fault{Action: fakefly.Start, Times: 1, Truncate: true}), starts: 1, within: 45 * time.Second, result: "ok", kind: "transient"},
		{name: "garbage always", befall: injected(fakefly.Fault{Body: flyJunk}), told: true, hint: flyMoment, within: 45 * time.Second, result: "transient", kind: "transient", id: true},
		{name: "nothing always", befall: injected(fakefly.Fault{Lost: fakefly.LostBefore}), told: true, hint: flyMoment, within: 45 * time.Second, result: "transient", kind: "transient"},
	},
	"machine": {
		{name: "slow start", befall: injected(fakefly.Fault{Action: fakefly.Start, Times: 1, Delay: 2 * time.Second}), starts: 1, atLeast: 2 * time.Second, within: 45 * time.Second, result: "ok"},
		{name: "Postgres is slower than its machine", befall: func(_ *testing.T, f *flyTenant) func() { f.CloseFor(2 * time.Second); return nil }, starts: 1, atLeast: 2 * time.Second, within: 45 * time.Second, result: "ok"},
		{name: "the host is unreachable", befall: func(_ *testing.T, f *flyTenant) func() {
			f.SetHostStatus("unreachable")
			return func() { f.SetHostStatus("ok") }
		}, told: true, hint: flyMoment, within: 20 * time.Second, result: "unreachable", kind: "unreachable"},
		{name: "destroyed", befall: destroyed, told: true, hint: flyLog, within: 20 * time.Second, result: "gone", kind: "gone"},
	},
	hasty: {
		{name: "429 and nobody starts it", befall: injected(fakefly.TooManyRequests(fakefly.Start).Always()), told: true, hint: flyMoment, atLeast: 3 * time.Second, within: 45 * time.Second, starts: 1, result: "slow", kind: "rate_limited", id: true},
		{name: "409 lease for ever", befall: injected(fakefly.LeaseHeld(fakefly.Start).Always()), told: true, hint: flyMoment, atLeast: 3 * time.Second, within: 45 * time.Second, starts: 2, most: 6, result: "slow", kind: "busy", id: true},
		{name: "Postgres is slower than timeouts.wake", befall: func(_ *testing.T, f *flyTenant) func() { f.CloseFor(6 * time.Second); return nil }, told: true, hint: flyMoment, atLeast: 3 * time.Second, within: 45 * time.Second, starts: 1, result: "slow"},
		{name: "it fails while it starts", befall: func(_ *testing.T, f *flyTenant) func() { f.FailToStart(); return nil }, told: true, hint: flyMoment, atLeast: 3 * time.Second, within: 45 * time.Second, starts: 1, result: "slow", kind: "transient"},
	},
}

const hasty = "hasty"

// destroyed: the machine is gone for good. It is over when the tenant has another.
func destroyed(t *testing.T, f *flyTenant) func() {
	f.Destroy()
	return func() {
		next := f.id + "next"
		verifier := harness.Verifier(t, f.g.cluster, harness.App)
		f.Machine = f.g.api.AddMachine(flyApp, next, f.vm)
		f.tenant = f.on(next, f.Port(), f.g.database, verifier)
		var all []harness.Map
		for _, other := range f.g.tenants {
			all = append(all, other.tenant)
		}
		f.g.reload(all...)
	}
}

// TestFlyFaults has each fault meet clients of every kind. The groups run side by side however many tests may: what they do
// is mostly to wait.
func TestFlyFaults(t *testing.T) {
	t.Parallel()
	var groups sync.WaitGroup
	for group := range flyFaults {
		groups.Go(func() { t.Run(group, func(t *testing.T) { runFlyFaults(t, group) }) })
	}
	groups.Wait()
}

func runFlyFaults(t *testing.T, group string) {
	faults := flyFaults[group]
	var ids []string
	for i := range faults {
		ids = append(ids, fmt.Sprintf("%s%d", group, i))
	}
	g := newFly(t, fakefly.Options{}, ids...)
	timeouts := harness.Map{"drain": "5s"}
	if group == hasty {
		timeouts["wake"] = "3s"
	}
	g.serve(t, harness.Map{"timeouts": timeouts})
	for i, fault := range faults {
		t.Run(fault.name, func(t *testing.T) { fault.run(t, g.tenants[i]) })
	}
	if _, page := g.Admin(t, http.MethodGet, "/metrics", nil); strings.Contains(string(page), fakefly.DefaultToken) {
		t.Error("the token is in the metrics")
	}
}

// flyEnd is how it ended for a client, and when.
type flyEnd struct {
	who  string
	err  error
	took time.Duration
}

func (fault flyFault) run(t *testing.T, f *flyTenant) {
	g := f.g
	// The first visit ever, so that what its Postgres reports is known and clients are greeted while it sleeps.
	if err := f.visit(t.Context(), "transaction"); err != nil {
		t.Fatal(err)
	}
	f.sleep(t)
	goroutines, descriptors := g.Goroutines(t), g.FDs(t)
	calls, starts, oks, wakes := g.api.Count("", ""), f.starts(), f.wakes("ok"), f.wakes(fault.result)

	connected := []*flyClient{f.enter(t, "transaction"), f.enter(t, "transaction")}
	if n := g.api.Count("", "") - calls; n != 0 {
		t.Fatalf("%d calls for logins that need none", n)
	}
	over := fault.befall(t, f)
	ends := f.crowd(t, connected)
	var first, last time.Time
	for range cap(ends) {
		fault.judge(t, <-ends)
		if last = time.Now(); first.IsZero() {
			first = last
		}
	}
	harness.Eventually(t, harness.Patience, "the wake is counted", func() bool { return f.wakes(fault.result) > wakes })
	// One for all of them, unless this computer was so slow that somebody came when the failure was forgotten.
	n := int(f.wakes(fault.result) - wakes)
	if n != 1 && (!fault.told || last.Sub(first) < time.Second) {
		t.Errorf("%d wakes ended %s", n, fault.result)
	}
	if asked := f.starts() - starts; asked < n*fault.starts || asked > n*max(fault.starts, fault.most) {
		t.Errorf("%d starts were asked for in %d wakes", asked, n)
	}
	fault.judgeLog(t, f)
	if fault.told {
		fault.again(t, f)
	}
	if over != nil {
		over()
	}
	f.recovers(t)
	if n := f.wakes("ok") - oks; n > 1 {
		t.Errorf("%v wakes for one sleep", n)
	}
	for _, c := range connected {
		c.leave()
	}
	f.sleep(t)
	harness.Eventually(t, harness.Patience, "no client waits", func() bool {
		return g.metric("postern_waiting_clients", "tenant", f.id) == 0 && g.metric("postern_client_connections", "tenant", f.id) == 0
	})
	// A kept connection to the API may be there that was not before: one descriptor, two goroutines.
	harness.Eventually(t, harness.Patience, "nothing is left over", func() bool {
		return g.Goroutines(t) <= goroutines+2 && g.FDs(t) <= descriptors+1
	})
}

// crowd sends clients of every kind at once, and returns how it ends for each.
func (f *flyTenant) crowd(t *testing.T, connected []*flyClient) <-chan flyEnd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	visits := map[string]func() error{}
	for i, c := range connected {
		visits[fmt.Sprintf("connected %d", i)] = func() error { _, err := c.ask(ctx, "select 1"); return err }
	}
	for i := range 2 {
		visits[fmt.Sprintf("new %d", i)] = func() error { return f.visit(ctx, "transaction") }
		visits[fmt.Sprintf("new session %d", i)] = func() error { return f.visit(ctx, "session") }
	}
	ends := make(chan flyEnd, len(visits))
	began := time.Now() // for all: who is late to ask waits for no longer than the first
	for who, visit := range visits {
		go func() {
			err := visit()
			ends <- flyEnd{who, err, time.Since(began)}
		}()
	}
	return ends
}

// judge compares what a client was told with what it should be.
func (fault flyFault) judge(t *testing.T, end flyEnd) {
	t.Helper()
	if end.took > fault.within {
		t.Errorf("%s: told after %v", end.who, end.took)
	}
	if !fault.told {
		if end.err != nil {
			t.Errorf("%s: %v", end.who, end.err)
		}
		return
	}
	wantUnavailable(t, end.who, end.err, fault.hint)
}

// wantUnavailable fails unless err is a FATAL 57P03 with the hint and nothing that is nobody's affair.
func wantUnavailable(t *testing.T, who string, err error, hint string) {
	t.Helper()
	var e *pgconn.PgError
	if !asPG(err, &e) || e.Code != "57P03" || e.Severity != "FATAL" || !strings.Contains(e.Hint, hint) {
		t.Errorf("%s: %v (%s)", who, err, errText(err))
	}
	for _, secret := range []string{fakefly.DefaultToken, flyApp, "127.", "01FAKE", "fly"} {
		if strings.Contains(errText(err), secret) {
			t.Errorf("%s was told %s: %s", who, secret, errText(err))
		}
	}
}

// judgeLog wants the cause in the log.
func (fault flyFault) judgeLog(t *testing.T, f *flyTenant) {
	t.Helper()
	if fault.kind == "" {
		return
	}
	if fault.told && fault.result == fault.kind {
		harness.Eventually(t, harness.Patience, "the log has a failed call of kind "+fault.kind, func() bool {
			return f.g.logged("machine call failed", "machine", "fly/"+flyApp+"/"+f.id, "kind", fault.kind) > 0
		})
	}
	if !fault.id {
		return
	}
	harness.Eventually(t, harness.Patience, "the log has a fly-request-id of a call that ended "+fault.kind, func() bool {
		found := f.g.Log().Find("call of Fly's Machines API", harness.Map{"machine": f.id, "result": fault.kind})
		return slices.ContainsFunc(found, func(e harness.Map) bool { return strings.Contains(fmt.Sprint(e["error"]), "[request 01FAKE") })
	})
}

// again is a client that comes while the failure is remembered: it is told fast, and nobody is asked. A computer that was
// too slow to come in time tries once more; each failure is remembered for longer than the one before.
func (fault flyFault) again(t *testing.T, f *flyTenant) {
	t.Helper()
	for range 5 {
		before, began := f.g.api.Count("", ""), time.Now()
		err := f.visit(t.Context(), "transaction")
		took := time.Since(began)
		if err == nil {
			if until := f.until(t); began.Add(took).Before(until) {
				t.Errorf("served while the failure is remembered until %v", until)
			}
			return // it has ended by itself, perhaps while this one logged in
		}
		wantUnavailable(t, "the next", err, fault.hint)
		if time.Now().After(f.until(t)) || began.Add(took).After(f.until(t)) {
			continue
		}
		if n := f.g.api.Count("", "") - before; n == 0 {
			if took > 20*time.Second {
				t.Errorf("the next was told after %v", took)
			}
			return
		}
	}
	t.Error("nobody was told of a failure that was remembered")
}

// until is how long the machine's last failure is remembered, by the log.
func (f *flyTenant) until(t *testing.T) (until time.Time) {
	t.Helper()
	for _, e := range f.g.Log().Find("machine", harness.Map{"tenant": f.id, "state": "failed"}) {
		at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(e["until"]))
		if err != nil {
			t.Fatal(err)
		}
		until = at
	}
	return until
}

// recovers returns when clients are served again; until then they are told so.
func (f *flyTenant) recovers(t *testing.T) {
	t.Helper()
	harness.Eventually(t, harness.Patience, f.id+" is served again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		defer cancel()
		err := f.visit(ctx, "transaction")
		if err != nil {
			wantUnavailable(t, "after it", err, "")
		}
		return err == nil
	})
}
