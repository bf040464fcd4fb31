// Tests of Check, which must find each kind of fault in the books, and of the names of states and reasons.

package pool

import (
	"strings"
	"testing"
	"time"
)

func TestCheckFindsBrokenBooks(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(t *Tenant, p *Pool, s []*Server, c []Client) // s: active, idle, idle; c: served; two wait in another pool
		want  string
	}{
		{"nothing", func(*Tenant, *Pool, []*Server, []Client) {}, ""},
		{"state", func(_ *Tenant, _ *Pool, s []*Server, _ []Client) { s[1].state = Cleaning }, "stands among the idle"},
		{"pool", func(t *Tenant, _ *Pool, s []*Server, _ []Client) { s[1].pool = nil }, "stands among the idle"},
		{"active without client", func(_ *Tenant, _ *Pool, s []*Server, _ []Client) { s[0].client = nil }, "has a client: false"},
		{"idle with client", func(_ *Tenant, _ *Pool, s []*Server, c []Client) { s[1].client = &c[0] }, "has a client: true"},
		{"client elsewhere", func(_ *Tenant, _ *Pool, s []*Server, c []Client) { c[0].server = s[1] }, "not served by it alone"},
		{"waiting with server", func(_ *Tenant, _ *Pool, s []*Server, c []Client) { c[1].server = s[1] }, "has a server"},
		{"queue order", func(_ *Tenant, _ *Pool, _ []*Server, c []Client) { c[1].since = start.Add(time.Hour) }, "clients are out of order"},
		{"idle order", func(_ *Tenant, _ *Pool, s []*Server, _ []Client) { s[1].idleSince = start.Add(time.Hour) }, "servers are out of order"},
		{"tenant's servers", func(t *Tenant, _ *Pool, _ []*Server, _ []Client) { t.all.servers[Active]++ }, "servers by state"},
		{"group's servers", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.groups[ByUser].servers[Idle]-- }, "servers by state"},
		{"group's pools", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.groups[ByDatabase].pools.n++ }, "counts 2 members, has 1"},
		{"pool's group", func(t *Tenant, p *Pool, _ []*Server, _ []Client) { p.groups[ByUser] = t.NewGroup(ByUser, 0) }, "does not stand in its group"},
		{"tenant's waiters", func(t *Tenant, _ *Pool, _ []*Server, _ []Client) { t.waiting-- }, "waiting clients"},
		{"pool's tenant", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.tenant = NewTenant(Settings{}) }, "another tenant"},
		{"queued pools", func(t *Tenant, p *Pool, _ []*Server, _ []Client) { t.queued.pushBack(&p.queued, p) }, "among the pools with waiters"},
		{"idle and waiting", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.enqueue(&Client{}) }, "idle servers and waiting clients"},
		{"group's dials that wait", func(t *Tenant, _ *Pool, _ []*Server, _ []Client) { t.all.parked++ }, "do not connect yet"},
		{"pool's dials that wait", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.parked++ }, "0 dials do not connect yet, counted are 1"},
		{"who waits to connect", func(t *Tenant, p *Pool, s []*Server, _ []Client) { t.park(s[1]) }, "a idle server is yet to connect"},
		{"dials that wait", func(t *Tenant, _ *Pool, _ []*Server, _ []Client) { t.parked.n++ }, "counts 1 members, has 0"},
		{"closed kept", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) {
			s := &Server{pool: p}
			p.servers[Closed].pushBack(&s.node, s)
		}, "keeps closed servers"},
		{"list length", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.servers[Idle].n++ }, "counts 3 members, has 2"},
		{"list too long", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.servers[Idle].n-- }, "counts 1 members, has 2"},
		{"list tail", func(_ *Tenant, p *Pool, _ []*Server, _ []Client) { p.servers[Idle].tail = nil }, "ends right: false"},
		{"list links", func(_ *Tenant, _ *Pool, s []*Server, _ []Client) { s[1].node.prev = nil }, "linked wrongly"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Settings{})
			p, other := w.tenant.NewPool(3, nil, nil), w.tenant.NewPool(3, nil, nil)
			s, c := w.connect(p, 3), make([]Client, 3)
			s[0], s[1], s[2] = s[2], s[0], s[1]
			// The idle list is s[2], s[1]; a minute lies between them, so that the order can be broken.
			s[2].idleSince = start.Add(time.Minute)
			w.acquire(p, &c[0], s[0])
			w.acquire(other, &c[1], nil)
			w.acquire(other, &c[2], nil)
			test.spoil(w.tenant, p, s, c)
			err := w.tenant.Check()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Check = %v, want %q", err, test.want)
			}
		})
	}
}

func TestNamesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for s := Closed; s <= numStates; s++ {
		seen[s.String()] = true
	}
	for r := Keep; r <= Removed+1; r++ {
		seen[r.String()] = true
	}
	if want := int(numStates) + 1 + int(Removed) + 2; len(seen) != want {
		t.Errorf("%d names, want %d: %v", len(seen), want, seen)
	}
}
