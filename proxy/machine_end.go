// Leaving a machine: it is put to sleep once no connection of its former tenant leads to it. Loop thread only.

package proxy

import (
	"slices"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/pool"
	"github.com/postern/postern/tenants"
)

// removedFor is how long what is left of a removed tenant may keep its machine
// awake: a client that does not read the message it is in the middle of, say.
const removedFor = 30 * time.Second

// former is a machine that is not the tenant's any more.
type former struct {
	holder *machines.Holder
	since  time.Time
}

// leaveMachine ends the tenant's part in its machine, for which next comes; nil:
// none does.
func (t *tenant) leaveMachine(next *tenants.Machine) {
	h := t.machine.holder
	if h == nil {
		return
	}
	t.machine.holder = nil
	if next != nil && next.Key() == h.Key() {
		h.Release() // it is the same one, run in another way
		return
	}
	h.Use(true, false) // by what still leads to it
	t.machine.former = append(t.machine.former, former{h, t.loop.Now()})
	t.keepSweeping()
}

// retireFormer gives up former machines to which nothing of the tenant's leads
// any more. One that another tenant names by now is that one's affair.
func (t *tenant) retireFormer(now time.Time) {
	if len(t.machine.former) == 0 {
		return
	}
	if t.conf == nil {
		t.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("tenant removed") }) // those that were busy when it was
	}
	t.machine.former = slices.DeleteFunc(t.machine.former, func(f former) bool {
		left := t.serversOn(f.holder.Key())
		if len(left) > 0 {
			if t.conf == nil && now.Sub(f.since) >= removedFor {
				for _, s := range left {
					s.lost("tenant removed")
				}
			}
			return false
		}
		if t.gate.names(f.holder.Key()) {
			f.holder.Release()
		} else {
			f.holder.Retire("removed")
		}
		return true
	})
}

// reclaim ends what is left of an earlier part in a machine that is the
// tenant's again.
func (t *tenant) reclaim(key string) {
	t.machine.former = slices.DeleteFunc(t.machine.former, func(f former) bool {
		if f.holder.Key() != key {
			return false
		}
		f.holder.Release()
		return true
	})
}

// serversOn are the connections that lead to a machine.
func (t *tenant) serversOn(key string) (list []*server) {
	for s := range t.servers {
		if s.machine == key {
			list = append(list, s)
		}
	}
	return list
}

// machineKey names the tenant's machine; "": it has none.
func (t *tenant) machineKey() string {
	if t.machine.holder == nil {
		return ""
	}
	return t.machine.holder.Key()
}

// names reports whether a tenant in force names a machine.
func (g *Gate) names(key string) bool {
	_, ok := g.opts.Directory.Machine(key)
	return ok
}
