// The limits of the model: what it knows of users, databases and the tenant.

package pool

import (
	"time"

	"pgregory.net/rapid"
)

const reserveAfter = 3 * time.Second

// limits are of everybody with the model's pools; 0 is none.
type limits struct {
	tenant, reserve int
	user, database  [2]int
	users           [2]*Group
	databases       [2]*Group

	// Portions of the same; -1: the whole.
	ofTenant           int
	ofUser, ofDatabase [2]int
}

// least of a limit, which 0 is none, and a portion; -1: there is none.
func least(limit, portion int) int {
	switch {
	case limit == 0:
		return portion
	case portion < 0:
		return limit
	}
	return min(limit, portion)
}

func (m *model) sizeOf(p *modelPool) int {
	if p.size >= 0 {
		return min(p.size, p.limit)
	}
	return p.limit
}

func (m *model) reserveOf(p *modelPool) int {
	if p.reserve >= 0 {
		return min(p.reserve, m.limits.reserve)
	}
	return m.limits.reserve
}

// hasPlace says whether one more server of p may be at the other end.
func (m *model) hasPlace(p *modelPool) bool {
	if p.used() >= m.sizeOf(p)+m.reserveOf(p) {
		return false
	}
	for _, c := range m.crowds(p) {
		if used := c.used(); c.limit >= 0 && used >= c.limit {
			return false
		}
	}
	return true
}

// portions changes how much of the limits is ours.
func (m *model) portions(t *rapid.T) {
	l := &m.limits
	give := func(q *Quota, name string) int {
		n := rapid.IntRange(-1, 4).Draw(t, name)
		if n < 0 {
			q.Unshare()
		} else {
			q.SetPortion(n, rapid.Bool().Draw(t, "short"))
		}
		return n
	}
	l.ofTenant = give(m.tenant.Quota(), "of the tenant")
	for i := range 2 {
		l.ofUser[i], l.ofDatabase[i] = give(&l.users[i].Quota, "of the user"), give(&l.databases[i].Quota, "of the database")
	}
	for _, p := range m.pools {
		p.size, p.reserve = give(p.Quota(), "of the size"), give(p.Reserve(), "of the reserve")
	}
}

// checkQuotas compares what is held and wanted with what there is.
func (m *model) checkQuotas(t *rapid.T) {
	m.tenant.Reckon(m.now)
	all, wanted := 0, 0
	for _, p := range m.pools {
		size, reserve := p.Quota(), p.Reserve()
		if size.Held()+reserve.Held() != p.used() || min(size.Held(), reserve.Held()) < 0 {
			t.Fatalf("%v holds %d and %d of %d", p.Pool, size.Held(), reserve.Held(), p.used())
		}
		if want := min(len(p.active)+len(p.cleaning)+len(p.waiting), p.limit); size.Wanted() != want {
			t.Fatalf("%v wants %d, not %d", p.Pool, size.Wanted(), want)
		}
		all, wanted = all+p.used(), wanted+size.Wanted()+reserve.Wanted()
	}
	q := m.tenant.Quota()
	if q.Held() != all || q.Held() != m.tenant.Used() {
		t.Fatalf("the tenant holds %d, and %d, of %d", q.Held(), m.tenant.Used(), all)
	}
	if q.Wanted() > min(wanted, m.limits.tenant) {
		t.Fatalf("the tenant wants %d, its pools %d, its limit is %d", q.Wanted(), wanted, m.limits.tenant)
	}
}

// populate makes the pools of two users and two databases.
func (m *model) populate(t *rapid.T) {
	l := &m.limits
	for i := range 2 {
		l.users[i], l.databases[i] = m.tenant.NewGroup(ByUser, 0), m.tenant.NewGroup(ByDatabase, 0)
	}
	for user := range 2 {
		for database := range 2 {
			p := m.tenant.NewPool(rapid.IntRange(1, 4).Draw(t, "size"), l.users[user], l.databases[database])
			m.pools = append(m.pools, &modelPool{Pool: p, user: user, database: database, limit: p.Size(), size: -1, reserve: -1})
		}
	}
	l.ofTenant, l.ofUser, l.ofDatabase = -1, [2]int{-1, -1}, [2]int{-1, -1}
	m.limit(t)
}

// limit changes all limits.
func (m *model) limit(t *rapid.T) {
	l := &m.limits
	l.tenant, l.reserve = rapid.IntRange(1, 10).Draw(t, "max"), rapid.IntRange(0, 2).Draw(t, "reserve")
	for i := range 2 {
		l.user[i], l.database[i] = rapid.IntRange(0, 5).Draw(t, "of the user"), rapid.IntRange(0, 5).Draw(t, "of the database")
		l.users[i].SetLimit(l.user[i])
		l.databases[i].SetLimit(l.database[i])
	}
	settings := m.tenant.Settings()
	settings.MaxServers, settings.Reserve, settings.ReserveAfter = l.tenant, l.reserve, reserveAfter
	m.tenant.SetSettings(settings)
}

// crowd is all pools that a limit concerns; -1: there is none.
type crowd struct {
	limit int
	pools []*modelPool
}

func (c crowd) used() (n int) {
	for _, p := range c.pools {
		n += p.used()
	}
	return n
}

func (c crowd) n() (n int) {
	for _, p := range c.pools {
		n += p.n()
	}
	return n
}

func (c crowd) full() bool { return c.limit >= 0 && c.n() >= c.limit }

// crowds are those that a pool belongs to: its user's, its database's and its tenant's.
func (m *model) crowds(p *modelPool) []crowd {
	l := &m.limits
	user, database := crowd{limit: least(l.user[p.user], l.ofUser[p.user])}, crowd{limit: least(l.database[p.database], l.ofDatabase[p.database])}
	for _, q := range m.pools {
		if q.user == p.user {
			user.pools = append(user.pools, q)
		}
		if q.database == p.database {
			database.pools = append(database.pools, q)
		}
	}
	return []crowd{user, database, {least(l.tenant, l.ofTenant), m.pools}}
}

// over says whether there are more servers than a limit of p's allows.
func (m *model) over(p *modelPool) bool {
	if p.n() > m.sizeOf(p)+m.reserveOf(p) {
		return true
	}
	for _, c := range m.crowds(p) {
		if c.limit >= 0 && c.n() > c.limit {
			return true
		}
	}
	return false
}

// sharesNothing says whether p is in no limited crowd with q, so that it can make no room for it.
func (m *model) sharesNothing(p, q *modelPool) bool {
	for _, c := range m.crowds(q) {
		for _, other := range c.pools {
			if c.limit >= 0 && other == p && p != q {
				return false
			}
		}
	}
	return true
}

// stopsSomebody says whether somebody waits elsewhere because of a full limit of p's.
func (m *model) stopsSomebody(p *modelPool) bool {
	for _, c := range m.crowds(p) {
		for _, q := range c.pools {
			if q != p && len(q.waiting) > 0 && c.full() {
				return true
			}
		}
	}
	return false
}

// expectNoneCould fails if a pool could dial, at once or after closing what is idle for a while. Room that was given up
// may be kept for somebody.
func (m *model) expectNoneCould(t *rapid.T) {
	if m.now.Sub(m.yielded) <= yieldAfter {
		return
	}
pools:
	for _, p := range m.pools {
		if len(p.waiting) <= len(p.dialing) || !p.DialAfter().IsZero() {
			continue
		}
		waited := m.now.Sub(p.waiting[len(p.dialing)].since)
		if p.n() >= m.sizeOf(p)+m.reserveOf(p) || p.n() >= m.sizeOf(p) && waited < reserveAfter {
			continue
		}
		for _, c := range m.crowds(p) {
			if c.full() && (c.n() > c.limit || !m.idles(c, p.n() == 0 && m.now.Sub(p.waiting[0].since) > yieldAfter)) {
				continue pools
			}
		}
		t.Fatalf("nobody may dial, although %v could", p.Pool)
	}
}

// idles says whether a server has been idle for a second, or at all if somebody starves.
func (m *model) idles(c crowd, starves bool) bool {
	for _, p := range c.pools {
		if len(p.idle) > 0 && (starves || m.now.Sub(p.idle[0].IdleSince()) >= yieldAfter) {
			return true
		}
	}
	return false
}
