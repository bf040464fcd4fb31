package cluster

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// hoard is a ledger in which two processes that are silent have some of every limit. Its clock is an hour ahead.
type hoard struct {
	grave
	since time.Time // when they are silent for long enough, by our clock
}

func (l hoard) Portions(_ context.Context, tenant string, f func(tenants.Portions) tenants.PortionsChange) error {
	store := func(t time.Time) time.Time { return t.Add(time.Hour) }
	pool := tenants.PoolScope("app", "db")
	f(tenants.Portions{Now: store(time.Now()), All: []tenants.Portion{
		{Node: "c", Boot: "c-1", Servers: 3, Silent: true, Lapses: store(l.since.Add(time.Minute))},
		{Node: "b", Boot: "b-1", Servers: 1, Silent: true, Lapses: store(l.since)},
		{Node: "d", Boot: "d-1", Servers: 1, Wanted: 1},
		{Scope: pool, Node: "c", Boot: "c-1", Servers: 3, Silent: true, Lapses: store(l.since.Add(time.Minute))},
	}})
	return nil
}

// TestTheLogSaysWhatSilentNodesHave of what clients wait for, once a minute; where nobody waits it says nothing.
func TestTheLogSaysWhatSilentNodesHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		since := time.Now().Add(90 * time.Second)
		b, _ := bury(t, BudgetOptions{Ledger: hoard{since: since}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		lines := func() (all []string) {
			after(warnEvery)
			for line := range strings.Lines(log.taken()) {
				if strings.Contains(line, "clients wait for") {
					all = append(all, line)
				}
			}
			return all
		}
		claim := func(tenant string, limit, wanted int) {
			b.Claim(tenant, 0, []tenants.Demand{{Limit: limit, Wanted: wanted}})
		}
		claim("enough", 50, 10)
		claim("unlimited", 0, 10)
		claim(tenants.ClientsOf("acme"), 5, 5)
		if got := lines(); len(got) > 0 {
			t.Errorf("nobody waits for them: %q", got)
		}
		claim("acme", 5, 2)
		claim("globex", 5, 9)
		got := lines()
		if len(got) < 2 || len(got) > 4 { // a minute may end in between
			t.Fatalf("%q", got)
		}
		for i, want := range []string{"level=WARN", "tenant=acme", `scope=""`, `nodes="b, c"`, "connections=4", `handed_on="not before ` + since.UTC().Format(time.RFC3339) + `"`} {
			if !strings.Contains(got[0]+got[1], want) {
				t.Errorf("%d: it does not say %s: %q", i, want, got)
			}
		}
		later := strings.Join(lines(), "")
		if n := strings.Count(later, "tenant=acme"); n < 1 || n > 2 || !strings.Contains(later, "nobody sees them live, no silent node answers,") {
			t.Errorf("%d lines in the next minute, when the time is over: %s", n, later)
		}
		claim("acme", 5, 0)
		claim("globex", 5, 0)
		lines()
		if got := lines(); len(got) > 0 {
			t.Errorf("nobody waits any more: %q", got)
		}
	})
}

// TestNobodyWaitsForItself: a node that the store has not heard of for a moment finds its own row silent.
func TestNobodyWaitsForItself(t *testing.T) {
	b := NewBudget(BudgetOptions{Node: "me", Boot: "me-2", Log: slog.New(slog.DiscardHandler)})
	a := b.open("acme")
	p := a.part("")
	p.limit, p.wanted = 5, 5
	s := tenants.Portions{All: []tenants.Portion{{Node: "me", Boot: "me-2", Servers: 3, Silent: true}}}
	if h := a.withheldFrom(&s, time.Now(), b.me); h.servers != 0 {
		t.Errorf("it waits for %d servers of %v", h.servers, h.nodes)
	}
	s.All = append(s.All, tenants.Portion{Node: "me", Boot: "me-1", Servers: 2, Silent: true})
	if h := a.withheldFrom(&s, time.Now(), b.me); h.servers != 2 {
		t.Errorf("it waits for %d servers of the process before it", h.servers)
	}
}
