// What looks like an intrusion, and may be a node that has just started and that its store was not asked about yet: it is logged when it has
// stayed unexplained for some seconds.

package cluster

import (
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	doubtFor  = 5 * time.Second // longer than a row takes to be written and read at all nodes
	maxDoubts = 64              // at a time; what is more is logged at once
)

// doubts are what has no explanation yet. Safe for concurrent use.
type doubts struct {
	wait time.Duration // for an explanation

	mu  sync.Mutex
	all map[string]doubt // of one kind and one key each
}

func newDoubts() *doubts { return &doubts{wait: doubtFor, all: make(map[string]doubt)} }

type doubt struct {
	until     time.Time
	explained func() bool
	say       func()
}

// add keeps one, unless it is there already.
func (d *doubts) add(what string, now time.Time, explained func() bool, say func()) {
	d.mu.Lock()
	_, known := d.all[what]
	full := len(d.all) >= maxDoubts
	if !known && !full {
		d.all[what] = doubt{now.Add(d.wait), explained, say}
	}
	d.mu.Unlock()
	if !known && full {
		say()
	}
}

// resolve says that one is explained.
func (d *doubts) resolve(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, what)
}

// judge forgets those that are explained, and logs those whose time is over.
func (d *doubts) judge(now time.Time) {
	var say []func()
	d.mu.Lock()
	for what, one := range d.all {
		switch {
		case one.explained():
			delete(d.all, what)
		case !now.Before(one.until):
			delete(d.all, what)
			say = append(say, one.say)
		}
	}
	d.mu.Unlock()
	for _, one := range say {
		one()
	}
}

// doubtStranger is for a key that no row had when it came: its row may have been written just now.
func (c *Cluster) doubtStranger(fingerprint, address string) {
	c.log.Debug("refused a connection to the nodes' port", "address", address, "fingerprint", fingerprint)
	c.doubts.add("stranger "+fingerprint, time.Now(), func() bool {
		_, ok := c.rows.pinned(fingerprint)
		return ok
	}, func() {
		c.warn("refused a connection to the nodes' port: its key is that of no node in the store", "address", address)
	})
}

// refusedBy is the doubt about a process that does not let this one in. A call that it answers resolves it.
func refusedBy(row tenants.Node) string { return "refused by " + row.Boot }

// doubtRefusal is for a node that does not know this one's key: it may not have read the row yet. Nodes that were not greeted are called again soon.
func (c *Cluster) doubtRefusal(row tenants.Node, alert error) {
	c.log.Debug("another node refuses this one", "node", row.Name, "error", alert)
	c.doubts.add(refusedBy(row), time.Now(), func() bool { return !c.still(row) }, func() {
		c.warn("another node refuses this one: its store does not know this node's key", "node", row.Name, "error", alert)
	})
}

// keyOf is the doubt about what answers at a process's address. A call that the process answers resolves it, too.
func keyOf(row tenants.Node) string { return "key of " + row.Boot }

// doubtKey is for another key than that of a node, at its address: that of a process that was started there after it, whose row was not read yet.
func (c *Cluster) doubtKey(row tenants.Node) {
	c.log.Debug("what answers at the address of a node is not that node", "node", row.Name, "address", row.Address.String())
	c.doubts.add(keyOf(row), time.Now(), func() bool { return !c.still(row) }, func() {
		c.warn("what answers at the address of a node is not that node: no byte was sent", "node", row.Name, "address", row.Address.String())
	})
}

// still reports whether a row is that of the same process as before.
func (c *Cluster) still(row tenants.Node) bool {
	now, ok := c.rows.named(row.Name)
	return ok && sameRow(now, row)
}
