// Limits of clients that nodes share: never more in sum than the limit, and who waits for what.

package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/postern/postern/tenants"
)

// clerk is a budget that grants what a test says.
type clerk struct {
	mu     sync.Mutex
	nodes  int
	away   bool
	number int64 // that it was told last
	claims [][]tenants.Demand
}

func (c *clerk) Claim(tenant string, number int64, demands []tenants.Demand) {
	if id, ok := tenants.CutClients(tenant); !ok || id != "acme" {
		panic("it claims for " + tenant)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number, c.claims = number, append(c.claims, demands)
}

func (c *clerk) last() (all []tenants.Demand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.claims) > 0 {
		all = c.claims[len(c.claims)-1]
	}
	return all
}

func (c *clerk) MayDial() bool { return true }
func (c *clerk) MaxNodes() int { return c.nodes }
func (c *clerk) Away() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

func newPlaces(c *clerk) *places { return &places{commons: newCommons("acme", c, 3)} }

// settle waits for what is claimed then, and idle until nothing is kept for who may come.
func settle() { time.Sleep(claimPause); synctest.Wait() }
func idle()   { time.Sleep(2 * keepPlaces); synctest.Wait() }

func grantAll(p *places, number int64, n int) {
	p.granted(number, []tenants.Grant{{Scope: tenants.ScopeTenant, Servers: n}})
}

// TestFewClientsAskNobody: what a node has of its own costs nothing, and nothing is claimed where nodes have limits of their own.
func TestFewClientsAskNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := place{"app", "db"}
		for name, conf := range map[string]*tenants.Tenant{
			"few":      {ID: "acme", Pool: tenants.Pool{MaxClients: 1000}},
			"per node": {ID: "acme", Pool: tenants.Pool{MaxClients: 3, PerNode: true}},
		} {
			c := &clerk{nodes: 8}
			p := newPlaces(c)
			for range 3 {
				if d := p.take(t.Context(), conf, at); d != nil {
					t.Fatal(name, d)
				}
			}
			if len(c.claims) > 0 {
				t.Errorf("%s: it claims %v", name, c.claims)
			}
			for range 3 {
				p.give(at)
			}
			idle()
			if len(c.claims) > 0 || p.anyShared() || len(p.taken) > 0 {
				t.Errorf("%s: something is left: %v %+v", name, c.claims, p)
			}
		}
	})
}

// TestAPortionOfClientsIsMeasured: what was granted last, and nothing where nodes share nothing.
func TestAPortionOfClientsIsMeasured(t *testing.T) {
	for _, shared := range []bool{true, false} {
		b, _, _ := newShares(t, tenants.Pool{Size: 1, MaxServers: 1}, 1, shared)
		measured := func() []float64 {
			of, err := b.gate.TenantMetrics("acme")
			if err != nil {
				t.Fatal(err)
			}
			families, err := of.Gather()
			if err != nil {
				t.Fatal(err)
			}
			var out []float64
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if f.GetName() == "postern_client_portion" {
						out = append(out, m.GetGauge().GetValue())
					}
				}
			}
			return out
		}
		for number, n := range []int{0, 31, 7, 0} {
			var want []float64
			if shared {
				b.gate.Granted(tenants.ClientsOf("acme"), int64(number+1), []tenants.Grant{{Scope: tenants.ScopeTenant, Servers: n}, {Scope: tenants.UserScope("app"), Servers: 99}})
				want = []float64{float64(n)}
			}
			if got := measured(); !slices.Equal(got, want) {
				t.Errorf("shared %v, granted %d: it is measured as %v", shared, n, got)
			}
		}
	}
}

// TestALoginWaitsForItsPlace: it is let in with the grant, or when somebody leaves; in vain it waits for two seconds, and others not at all then.
func TestALoginWaitsForItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 10}}
		at, c := place{"app", "db"}, &clerk{nodes: 8}
		p := newPlaces(c)
		came := make(chan *denied, 1)
		come := func() { came <- p.take(context.WithoutCancel(t.Context()), conf, at) }
		go come()
		synctest.Wait()
		if want := []tenants.Demand{{Limit: 10, Wanted: 2}}; !slices.Equal(c.last(), want) {
			t.Fatalf("it claims %+v, want %+v", c.last(), want)
		}
		grantAll(p, 1, 2)
		if d := <-came; d != nil || c.number != 1 {
			t.Fatal(d, c.number)
		}
		if d := p.take(t.Context(), conf, at); d != nil { // that was asked for ahead
			t.Fatal(d)
		}
		start := time.Now()
		go come()
		time.Sleep(time.Second)
		p.give(at)
		if d := <-came; d != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", d, time.Since(start))
		}
		start = time.Now()
		if d := p.take(t.Context(), conf, at); d == nil || d.why != denyTenantClients || time.Since(start) != placePatience {
			t.Errorf("%v after %v", d, time.Since(start))
		}
		start = time.Now()
		for range 3 {
			if d := p.take(t.Context(), conf, at); d == nil || time.Since(start) != 0 {
				t.Errorf("after somebody has waited in vain: %v after %v", d, time.Since(start))
			}
		}
		settle()
		if want := (tenants.Demand{Limit: 10, Held: 2, Wanted: 6}); c.last()[0] != want { // who was refused may come back
			t.Errorf("it claims %+v, want %+v", c.last(), want)
		}
		grantAll(p, 2, 3)
		if d := p.take(t.Context(), conf, at); d != nil {
			t.Errorf("with a grant: %v", d)
		}
		time.Sleep(refuseFor)
		go come()
		synctest.Wait()
		p.give(at)
		if d := <-came; d != nil {
			t.Errorf("one may wait again: %v", d)
		}
		// The whole limit is here: there is nothing to wait for.
		grantAll(p, 3, 10)
		for range 7 {
			if d := p.take(t.Context(), conf, at); d != nil {
				t.Fatal(d)
			}
		}
		start = time.Now()
		if d := p.take(t.Context(), conf, at); d == nil || time.Since(start) != 0 {
			t.Errorf("at the limit: %v after %v", d, time.Since(start))
		}
		for range 10 {
			p.give(at)
		}
		idle()
		if len(c.last()) > 0 {
			t.Errorf("nobody is there, and it claims %+v", c.last())
		}
		grantAll(p, 4, 0)
		if idle(); p.anyShared() || len(p.commons.of) > 0 {
			t.Errorf("%+v", p.commons)
		}
	})
}

// TestNothingIsAskedAheadWhereItIsScarce: else nodes would take from each other what nobody uses.
func TestNothingIsAskedAheadWhereItIsScarce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 10}}
		at, c := place{"app", "db"}, &clerk{nodes: 8}
		p := newPlaces(c)
		claims := func(what string, held, wanted int) {
			t.Helper()
			if want := (tenants.Demand{Limit: 10, Held: held, Wanted: wanted}); len(c.last()) != 1 || c.last()[0] != want {
				t.Errorf("%s: it claims %+v, want %+v", what, c.last(), want)
			}
		}
		p.commons.of[party{of: ofTenant}] = &common{limit: 10, nodes: 8}
		grantAll(p, 1, 6)
		for range 5 {
			if d := p.take(t.Context(), conf, at); d != nil {
				t.Fatal(d)
			}
		}
		settle()
		claims("one is kept for who may come", 6, 5)
		grantAll(p, 2, 5)
		settle()
		claims("another node needed it", 5, 5)
		time.Sleep(scarceFor)
		p.give(at)
		p.take(t.Context(), conf, at)
		settle()
		claims("later", 5, 6)
		time.Sleep(askFor)
		settle()
		claims("it was not granted", 5, 5)
	})
}

// TestNotTooManyWait, so that one tenant's logins do not take the places of all handshakes.
func TestNotTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 10}}
		p := newPlaces(&clerk{nodes: 8})
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() { p.take(context.WithoutCancel(t.Context()), conf, place{"app", "db"}) })
		}
		synctest.Wait()
		start := time.Now()
		if d := p.take(t.Context(), conf, place{"app", "db"}); d == nil || time.Since(start) != 0 {
			t.Errorf("%v after %v", d, time.Since(start))
		}
		waiting.Wait()
	})
}

// TestClientsWithoutTheStore: an even part of the limit may come, and who is there stays.
func TestClientsWithoutTheStore(t *testing.T) {
	conf := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 16}}
	c := &clerk{nodes: 8, away: true}
	p, at := newPlaces(c), place{"app", "db"}
	for range 2 {
		if d := p.take(t.Context(), conf, at); d != nil {
			t.Fatal(d)
		}
	}
	p.commons.of[party{of: ofTenant}].refuseUntil = time.Now().Add(time.Hour)
	if d := p.take(t.Context(), conf, at); d == nil {
		t.Error("more than an even part")
	}
	grantAll(p, 1, 3)
	if d := p.take(t.Context(), conf, at); d != nil {
		t.Errorf("what was granted stays: %v", d)
	}
	if d := p.take(t.Context(), conf, at); d == nil {
		t.Error("more than was granted")
	}
}

// TestEachLimitOfClientsIsShared: a user's and a database's, which come and go with the configuration.
func TestEachLimitOfClientsIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clerk{nodes: 8}
		p, at := newPlaces(c), place{"app", "db"}
		conf := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 1000, MaxDatabaseClients: 5}, Users: map[string]*tenants.User{"app": {Name: "app", MaxClients: 4}}}
		user, database := tenants.UserScope("app"), tenants.DatabaseScope("db")
		number := int64(0)
		grant := func(ofUser, ofDatabase int) {
			number++
			p.granted(number, []tenants.Grant{{Scope: user, Servers: ofUser}, {Scope: database, Servers: ofDatabase}})
		}
		for _, step := range []struct {
			ofUser, ofDatabase int
			why                denial
		}{{0, 1, denyUserClients}, {1, 0, denyDatabaseClients}} {
			grant(step.ofUser, step.ofDatabase)
			if d := p.take(t.Context(), conf, at); d == nil || d.why != step.why {
				t.Errorf("%+v: %v", step, d)
			}
		}
		time.Sleep(2 * refuseFor)
		grant(1, 1)
		if d := p.take(t.Context(), conf, at); d != nil {
			t.Error(d)
		}
		if settle(); len(c.last()) != 2 || c.last()[0].Limit != 5 || c.last()[1].Limit != 4 {
			t.Errorf("it claims %+v", c.last())
		}
		// A limit that is gone, and back: what was granted is still known.
		free := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 1000}}
		for range 2 {
			if d := p.take(t.Context(), free, at); d != nil {
				t.Error(d)
			}
		}
		grant(3, 3)
		if settle(); len(c.last()) != 0 {
			t.Errorf("it claims %+v", c.last())
		}
		p.give(at)
		if d := p.take(t.Context(), conf, at); d != nil {
			t.Error(d)
		}
		if settle(); len(c.last()) != 2 || c.last()[1].Held != 3 {
			t.Errorf("it claims %+v", c.last())
		}
		own := *conf
		own.Pool.PerNode = true
		if d := p.take(t.Context(), &own, at); d != nil {
			t.Error(d)
		}
		if settle(); len(c.last()) != 0 {
			t.Errorf("each node has its limits for itself, and it claims %+v", c.last())
		}
	})
}

// TestAFullUserRefusesNobodyElse: who has waited for a user's limit in vain keeps those from waiting who want that, and nobody else of the tenant.
func TestAFullUserRefusesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := &tenants.Tenant{ID: "acme", Users: map[string]*tenants.User{"few": {Name: "few", MaxClients: 2}, "app": {Name: "app"}}, Pool: tenants.Pool{MaxClients: 100}}
		few, app, c := place{"few", "db"}, place{"app", "db"}, &clerk{nodes: 8}
		p := newPlaces(c)
		grantAll(p, 1, 10) // and others have all of few
		for _, patience := range []time.Duration{placePatience, 0} {
			start := time.Now()
			if d := p.take(t.Context(), conf, few); d == nil || d.why != denyUserClients || time.Since(start) != patience {
				t.Fatalf("%v after %v, not %v", d, time.Since(start), patience)
			}
		}
		for range 10 {
			if d := p.take(t.Context(), conf, app); d != nil {
				t.Fatal(d)
			}
		}
		came := make(chan *denied, 1)
		go func() { came <- p.take(context.WithoutCancel(t.Context()), conf, app) }()
		synctest.Wait()
		grantAll(p, 2, 20)
		if d := <-came; d != nil {
			t.Errorf("another user's client does not wait: %v", d)
		}
		for range 11 {
			p.give(app)
		}
		idle()
	})
}

// TestClientsNeverExceedTheLimit: three nodes and a store that divides in any way it may; whatever they do, there are never more than the
// limit, and when one of them wants all, it gets all that is not set aside for the others.
func TestClientsNeverExceedTheLimit(t *testing.T) {
	rapid.Check(t, commonsModel)
}

func commonsModel(t *rapid.T) {
	const nodes = 3
	conf := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: rapid.SampledFrom([]int{1, 5, 60, 200}).Draw(t, "limit")}}
	limit, at := conf.Pool.MaxClients, place{"app", "db"}
	var all [nodes]*places
	var clerks [nodes]*clerk
	var rows, granted [nodes]int
	var number [nodes]int64
	gone, leave := context.WithCancel(context.Background()) // nobody waits here
	leave()
	now := time.Now()
	pass := func(d time.Duration) {
		now = now.Add(d)
		for _, p := range all {
			p.claimAgain()
		}
	}
	for i := range all {
		clerks[i] = &clerk{nodes: nodes}
		all[i] = newPlaces(clerks[i])
		all[i].commons.timer = time.AfterFunc(time.Hour, func() {}) // time passes where the test says so
		all[i].commons.now = func() time.Time { return now }
	}
	demand := func(i int) (d tenants.Demand) {
		for _, d = range clerks[i].last() {
		}
		return d
	}
	said := func() { // what nodes have said is in the rows
		for i := range all {
			if clerks[i].number == number[i] {
				rows[i] = max(granted[i], demand(i).Held)
			}
		}
	}
	grant := func(i, n int) {
		rows[i], granted[i] = max(rows[i], n), n
		number[i]++
		grantAll(all[i], number[i], n)
	}
	check := func() {
		sum := 0
		for _, p := range all {
			sum += p.taken[party{of: ofTenant}]
		}
		if sum > limit {
			t.Fatalf("%d of %d are there; rows %v, granted %v", sum, limit, rows, granted)
		}
	}
	free := func() int {
		n := (&common{limit: limit, nodes: nodes}).shared()
		for _, r := range rows {
			n -= r
		}
		return n
	}
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		i := rapid.IntRange(0, nodes-1).Draw(t, "node")
		switch rapid.IntRange(0, 4).Draw(t, "what") {
		case 0, 1:
			for range rapid.IntRange(1, 1+limit/2).Draw(t, "come") {
				all[i].take(gone, conf, at)
			}
		case 2:
			for range rapid.IntRange(0, all[i].taken[party{of: ofTenant}]).Draw(t, "leave") {
				all[i].give(at)
			}
		case 3:
			pass(rapid.SampledFrom([]time.Duration{time.Millisecond, claimPause, 2 * keepPlaces}).Draw(t, "time"))
			said()
		default:
			said()
			grant(i, rapid.IntRange(0, max(0, rows[i]+free())).Draw(t, "grant"))
		}
		check()
	}
	// One wants all.
	i := rapid.IntRange(0, nodes-1).Draw(t, "last")
	for j, p := range all {
		for range p.taken[party{of: ofTenant}] {
			p.give(at)
		}
		grant(j, 0)
	}
	for range 50 {
		pass(claimPause)
		said()
		grant(i, min(demand(i).Wanted, rows[i]+free()))
		for all[i].take(gone, conf, at) == nil {
		}
		check()
	}
	if got, want := all[i].taken[party{of: ofTenant}], limit-(nodes-1)*(limit/ownPart/nodes); got != want {
		t.Fatalf("one has %d, want %d of %d; rows %v, granted %v, it claims %+v", got, want, limit, rows, granted, slices.Collect(maps.Values(all[i].commons.of)))
	}
	for range all[i].taken[party{of: ofTenant}] {
		all[i].give(at)
	}
	pass(refuseFor)
	pass(2 * claimPause)
	pass(3 * keepPlaces)
	if said(); fmt.Sprint(demand(i)) != fmt.Sprint(tenants.Demand{}) {
		t.Fatalf("nobody is there, and it claims %+v", demand(i))
	}
}
