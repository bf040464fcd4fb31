package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// grave is a ledger in which a dead node has portions of all tenants but one.
type grave struct {
	survey []string
	looks  func(tenant string) // called in each look
}

const living = "living"

func (l grave) Portions(_ context.Context, tenant string, f func(tenants.Portions) tenants.PortionsChange) error {
	if l.looks != nil {
		l.looks(tenant)
	}
	s := tenants.Portions{Now: time.Now()}
	if tenant != living {
		s.All = []tenants.Portion{{Node: "dead", Boot: "dead", Servers: 5, Silent: true, Lapsed: true}}
	}
	f(s)
	return nil
}

func (l grave) Unheard(context.Context) (time.Duration, error) { return 0, nil }
func (l grave) Survey(context.Context) (map[string][]tenants.Portion, []string, error) {
	return nil, l.survey, nil
}
func (l grave) Hear(ctx context.Context, _ func(), _ func(string)) error {
	<-ctx.Done()
	return ctx.Err()
}
func (l grave) Return(context.Context, []string) error { return nil }

// bury runs a budget on it, and returns what waits until a tenant has something, and for how long that was.
func bury(t *testing.T, o BudgetOptions) (b *Budget, granted func(tenant string) time.Duration) {
	var mu sync.Mutex
	at := make(map[string]time.Time)
	o.Node, o.Boot = "me", "me"
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Granted = func(tenant string, _ int64, g []tenants.Grant) {
		mu.Lock()
		defer mu.Unlock()
		if _, there := at[tenant]; !there && len(g) > 0 {
			at[tenant] = time.Now()
		}
	}
	b = NewBudget(o)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return b, func(tenant string) time.Duration {
		began := time.Now()
		b.Claim(tenant, 0, []tenants.Demand{{Limit: 50, Wanted: 1}})
		after(5 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		got, ok := at[tenant]
		if !ok {
			t.Fatalf("%s has nothing", tenant)
		}
		return got.Sub(began)
	}
}

// TestCountsDoNotHoldUpLooks: a tenant's Postgres that says nothing costs others nothing.
func TestCountsDoNotHoldUpLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, granted := bury(t, BudgetOptions{Ledger: grave{}, Strangers: func(ctx context.Context, _ string) (int, bool, error) {
			<-ctx.Done()
			return 0, true, ctx.Err()
		}})
		after(time.Second)
		for i := range 2 * countAtOnce {
			b.Claim(fmt.Sprint("mute-", i), 0, []tenants.Demand{{Limit: 5, Wanted: 1}})
		}
		after(time.Second)
		if d := granted(living); d > lookEvery {
			t.Errorf("granted after %v", d)
		}
	})
}

// TestDemandDoesNotWaitForCleanUp: what nobody waits for has turns of its own.
func TestDemandDoesNotWaitForCleanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := grave{looks: func(tenant string) {
			if tenant != living {
				<-time.After(lookEvery) // a slow store
			}
		}}
		for i := range 40 {
			l.survey = append(l.survey, fmt.Sprint("t", i))
		}
		counted := make(map[string]bool)
		var mu sync.Mutex
		_, granted := bury(t, BudgetOptions{Ledger: l, Strangers: func(_ context.Context, tenant string) (int, bool, error) {
			mu.Lock()
			defer mu.Unlock()
			counted[tenant] = true
			return 0, true, nil
		}})
		after(lookEvery)
		if d := granted(living); d > lookEvery {
			t.Errorf("granted after %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(counted) != len(l.survey) {
			t.Errorf("%d of %d were counted", len(counted), len(l.survey))
		}
	})
}

// TestATenantIsCountedOnceAtATime: and less often if that fails; its limit goes on being shared.
func TestATenantIsCountedOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, all := 0, 0, 0
		_, granted := bury(t, BudgetOptions{Ledger: grave{}, Strangers: func(ctx context.Context, _ string) (int, bool, error) {
			mu.Lock()
			now, all = now+1, all+1
			most = max(most, now)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			now--
			return 0, true, ctx.Err()
		}})
		after(time.Second)
		if d := granted("mute"); d > time.Second {
			t.Errorf("granted after %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		// At 0, 20, 60, 120, ... 300 s; the last ones may not have been reached.
		if most != 1 || all < 5 || all > 7 {
			t.Errorf("counted %d times in 5 min, %d at once", all, most)
		}
	})
}

// TestWhoIsCountedFirst: a tenant that others wait for, and none that has failed before.
func TestWhoIsCountedFirst(t *testing.T) {
	b := NewBudget(BudgetOptions{Ledger: grave{}, Log: slog.New(slog.DiscardHandler)})
	for _, c := range []struct {
		tenant         string
		waits, failing bool
	}{{"4", false, true}, {"3", true, true}, {"2", false, false}, {"1", true, false}} {
		a := b.open(c.tenant)
		if c.waits {
			a.part("").wanted = 1
		}
		if c.failing {
			a.failures = 1
		}
		b.uncounted = append(b.uncounted, a)
	}
	order := ""
	for a := b.next(); a != nil; a = b.next() {
		order += a.tenant
	}
	if order != "1234" {
		t.Errorf("in the order %s", order)
	}
}

// TestNotToBeCountedIsNoFault: the log has no warning, and portions are kept.
func TestNotToBeCountedIsNoFault(t *testing.T) {
	for err, want := range map[error]int{fmt.Errorf("%w: asleep", ErrNotCounted): 0, errors.New("refused"): 1} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			var mu sync.Mutex
			counted := 0
			b, _ := bury(t, BudgetOptions{Ledger: grave{survey: []string{"asleep"}}, Log: slog.New(slog.NewTextHandler(&log, nil)),
				Strangers: func(context.Context, string) (int, bool, error) {
					mu.Lock()
					defer mu.Unlock()
					counted++
					return 0, true, err
				}})
			after(surveyEvery / 2)
			b.mu.Lock()
			defer b.mu.Unlock()
			if got := strings.Count(log.String(), "cannot be counted"); counted != 1 || got != want || len(b.accounts) > 0 {
				t.Errorf("%v: counted %d times, %d warnings, %d accounts", err, counted, got, len(b.accounts))
			}
		})
	}
}
