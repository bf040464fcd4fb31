// Why clients wait for servers that nobody uses: a node that is gone, or seems to be, has them still. The log says so, and until when.

package cluster

import (
	"slices"
	"strings"
	"time"

	"github.com/postern/postern/tenants"
)

// warnEvery is how often the log is told of one tenant.
const warnEvery = time.Minute

// withheld is what silent processes have of a limit of which the gate has less than its clients want.
type withheld struct {
	scope   string
	nodes   []string // in order; one that has restarted is here because of the process before
	servers int      // 0: there is none
	until   time.Time
}

// withheldFrom is what clients wait for after a look: of the widest limit, if of several. Nobody waits for clients, logins go on without;
// and a node that has stood still may find itself silent, but waits for others only.
func (a *account) withheldFrom(s *tenants.Portions, now time.Time, me self) (h withheld) {
	if _, clients := tenants.CutClients(a.tenant); clients {
		return h
	}
	for _, row := range s.All {
		p := a.parts[row.Scope]
		if !row.Silent || row.Boot == me.boot || row.Servers == 0 || p == nil || p.limit == 0 || p.want() <= p.newTold || h.servers > 0 && row.Scope != h.scope {
			continue
		}
		until := now.Add(row.Lapses.Sub(s.Now))
		if h.servers == 0 || until.Before(h.until) {
			h.until = until
		}
		h.scope, h.servers = row.Scope, h.servers+row.Servers
		if !slices.Contains(h.nodes, row.Node) {
			h.nodes = append(h.nodes, row.Node)
		}
	}
	slices.Sort(h.nodes)
	return h
}

// warned are the tenants that the log was told of in this minute.
type warned struct {
	since   time.Time
	tenants map[string]struct{}
}

// first reports whether a tenant was not told of yet.
func (w *warned) first(tenant string, now time.Time) bool {
	if now.Sub(w.since) >= warnEvery {
		w.since, w.tenants = now, make(map[string]struct{})
	}
	_, told := w.tenants[tenant]
	w.tenants[tenant] = struct{}{}
	return !told
}

// complain tells the log of what the last look at a tenant has found withheld.
func (b *Budget) complain(a *account) {
	now := b.now()
	b.mu.Lock()
	h := a.withheld
	say := h.servers > 0 && b.warned.first(a.tenant, now)
	b.mu.Unlock()
	if !say {
		return
	}
	handedOn := "once nobody sees them live, no silent node answers, and their connections have ended"
	if h.until.After(now) {
		handedOn = "not before " + h.until.UTC().Format(time.RFC3339)
	}
	b.o.Log.Warn("clients wait for server connections that silent nodes have", "tenant", a.tenant, "scope", h.scope, "nodes", strings.Join(h.nodes, ", "),
		"connections", h.servers, "handed_on", handedOn)
}
