package cluster

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// BenchmarkCompare compares accounts of 100,000 tenants in use with their rows, as is done every 30 s.
func BenchmarkCompare(b *testing.B) {
	const many = 100_000
	budget := NewBudget(BudgetOptions{Node: "a", Boot: "a-1", Granted: func(string, int64, []tenants.Grant) {}, Log: slog.New(slog.DiscardHandler)})
	now := time.Now()
	mine := make(map[string][]tenants.Portion)
	for i := range many {
		id := fmt.Sprintf("t%06d", i)
		budget.Claim(id, 0, []tenants.Demand{{Scope: tenants.ScopeTenant, Limit: 60, Held: 1}, {Scope: tenants.PoolScope("app", "app"), Limit: 20, Held: 1}})
		mine[id] = []tenants.Portion{{Scope: tenants.ScopeTenant, Servers: 1}, {Scope: tenants.PoolScope("app", "app"), Servers: 1}}
	}
	for b.Loop() {
		budget.compare(now.Add(time.Hour), false, mine, nil)
	}
}
