// The limits that nodes share: this node's budget, between its gate and the store, and how the server connections of a node that is gone are
// found. Without `cluster` there is nothing of it.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/configs"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
)

// What is asked.
const (
	askServers = "servers" // which processes of a tenant's Postgres serve a node
	askSeen    = "seen"    // whether it sees who asks
)

const (
	// answersFor is how long it is known which silent nodes answer: one that does not is slow to say so, and there may be many tenants.
	answersFor = 5 * time.Second
	// lingers is how long one that is not seen any more counts as seen: it finds out within that that it is not, and keeps nothing then.
	lingers = 30 * time.Second
	// goneAfter is how long the store had not heard of a node when it was asked last, for it to count as one that will not come back.
	goneAfter = 10 * time.Minute
)

// portions is this node's budget, and where it stands. A nil one is none; its methods do nothing.
type portions struct {
	budget *cluster.Budget
	ledger *postgres.Ledger
}

// divide gives the gate its part of limits, if there is a cluster.
func (p *process) divide(o *proxy.Options, conf *configs.Config, log *slog.Logger) (err error) {
	if p.cluster == nil {
		return nil
	}
	d := &portions{}
	if d.ledger, err = p.cluster.store.Ledger(); err != nil {
		return err
	}
	c := p.cluster.Cluster
	d.budget = cluster.NewBudget(cluster.BudgetOptions{
		Ledger: d.ledger, Node: c.Name(), Boot: c.Boot(), MaxNodes: conf.Cluster.MaxNodes, Log: log,
		Granted: func(tenant string, number int64, g []tenants.Grant) { p.gate.Granted(tenant, number, g) },
		Strangers: func(ctx context.Context, tenant string) (int, bool, error) {
			return p.peers.count(ctx, tenant, d.ledger.HasTenant)
		},
		Floor:  func(tenant string) bool { return hasFloor(p.directory, tenant) },
		Alive:  func(_, boot string) bool { return seen(c.Members(), boot, time.Now()) },
		CutOff: p.peers.cutOff,
		Left:   func() []string { return p.gate.Left() },
	})
	p.peers.log = log
	p.peers.answerSeen(c.Members)
	o.Budget = d.budget
	p.portions = d
	return nil
}

// startCluster takes part until end is called: by then the gate has ended.
func (p *process) startCluster() (end func()) {
	endCluster, endPeers, endPortions := p.cluster.start(), p.peers.start(), p.portions.start()
	return func() {
		endPortions()
		endPeers()
		endCluster()
	}
}

// start divides until end is called, which gives everything back. The gate has ended then.
func (d *portions) start() (end func()) {
	if d == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.budget.Run(ctx) })
	return sync.OnceFunc(func() {
		cancel()
		running.Wait()
		d.ledger.Close()
	})
}

// hasFloor says whether a node may have one server of a tenant while nobody can be asked: one that wakes a machine must not be alone.
func hasFloor(d *tenants.Directory, tenant string) bool {
	conf, ok := d.Tenant(tenant)
	return ok && conf.Machine == nil && !conf.Pool.PerNode
}

// seen reports whether a process is seen to live, or was a moment ago.
func seen(all []cluster.Member, boot string, now time.Time) bool {
	for _, m := range all {
		if m.Boot == boot {
			return m.State != cluster.Left || now.Sub(m.Since) < lingers
		}
	}
	return false
}

// answerSeen has this node tell others whether it sees them in the gossip.
func (p *peers) answerSeen(members func() []cluster.Member) {
	p.nodes.Handle(askSeen, maxQuestion, answering(func(_ context.Context, boot string) (bool, error) {
		return seen(members(), boot, time.Now().Add(lingers)), nil
	}))
}

// cutOff asks the other nodes whether they see this one: unseen says that one does not, or knows another one by its name or key, or cannot say; mute
// names those that do not answer. A node that was away for long when the store was asked last is not asked.
func (p *peers) cutOff(ctx context.Context) (unseen bool, mute []string) {
	last := time.Time{} // by the store's clock
	for _, row := range p.nodes.Nodes() {
		if row.Seen.After(last) {
			last = row.Seen
		}
	}
	gone := make(map[string]bool)
	for _, row := range p.others() {
		gone[row.Name] = last.Sub(row.Seen) >= goneAfter
	}
	answers, failed := askEach[bool](ctx, p, askSeen, func(node string) any {
		if gone[node] {
			return nil
		}
		return p.nodes.Boot()
	})
	for _, sees := range answers {
		unseen = unseen || !sees
	}
	for node, err := range failed {
		late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cluster.ErrAway) && !errors.Is(err, cluster.ErrWrongKey)
		if unseen = unseen || !late; late {
			mute = append(mute, node)
		}
	}
	return unseen, mute
}

// answered is what is known of silent nodes for a while.
type answered struct {
	mu   sync.Mutex // held while they are asked: who comes meanwhile waits for that
	at   time.Time
	some string               // the name of one that answers; "": none does
	told map[string]time.Time // when the log was told that one does
}

// tellEvery is how often the log is told that a silent node answers, of each.
const tellEvery = time.Minute

// due reports whether it is time to tell the log of a node, and counts that as told.
func (k *answered) due(node string, now time.Time) bool {
	maps.DeleteFunc(k.told, func(_ string, at time.Time) bool { return now.Sub(at) >= tellEvery })
	if _, told := k.told[node]; told {
		return false
	}
	if k.told == nil {
		k.told = make(map[string]time.Time)
	}
	k.told[node] = now
	return true
}

// silentButAnswers names a node that the store has not heard of for long, and that answers all the same; "": there is none.
func (p *peers) silentButAnswers(ctx context.Context) string {
	k := &p.answered
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); k.at.IsZero() || now.Sub(k.at) >= answersFor {
		if k.at, k.some = now, p.askSilent(ctx); k.some != "" && k.due(k.some, now) {
			p.log.Warn("a node of which the store hears nothing answers its calls: no portions of limits are handed on until the store hears of it, or it has ended", "node", k.some)
		}
	}
	return k.some
}

func (p *peers) askSilent(ctx context.Context) (some string) {
	ctx, stop := context.WithTimeout(ctx, peersWithin)
	defer stop()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, row := range p.others() {
		if !row.Silent {
			continue
		}
		all.Go(func() {
			_, err := askOne[bool](ctx, p.nodes, row.Name, askSeen, p.nodes.Boot())
			if err != nil && (ctx.Err() != nil || errors.Is(err, cluster.ErrAway) || errors.Is(err, cluster.ErrNoNode)) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			some = row.Name
		})
	}
	all.Wait()
	return some
}

// servers answers which processes serve this node.
func (p *peers) servers(_ context.Context, tenant string) ([]uint32, error) {
	return p.gate().ServerPIDs(tenant)
}

// count counts a tenant's strangers, as far as that is for this node to do. has asks the store whether it has the tenant.
func (p *peers) count(ctx context.Context, tenant string, has func(ctx context.Context, tenant string) (bool, error)) (n int, ok bool, err error) {
	n, ok, err = p.strangers(ctx, tenant)
	switch {
	case errors.Is(err, proxy.ErrNoTenant):
		there, failed := has(ctx, tenant)
		if failed != nil {
			return 0, false, failed
		}
		if there { // it was not read yet, or cannot be put in force here
			return 0, false, fmt.Errorf("%w: %w", cluster.ErrNotCounted, err)
		}
		return 0, false, nil // it was removed: nobody can log in to look, and time decides
	case errors.Is(err, proxy.ErrAsleep), errors.Is(err, proxy.ErrElsewhere):
		return 0, ok, fmt.Errorf("%w: %w", cluster.ErrNotCounted, err)
	}
	return n, ok, err
}

// strangers counts a tenant's server connections that no living node says are its own. ok is false if it has no service account, and for
// places of clients: those are gone with their node. While a silent node answers nothing is said: it lives, and is only cut off from the store.
func (p *peers) strangers(ctx context.Context, tenant string) (n int, ok bool, err error) {
	if some := p.silentButAnswers(ctx); some != "" {
		return 0, false, fmt.Errorf("%w: the silent node %s answers", cluster.ErrNotCounted, some)
	}
	if _, clients := tenants.CutClients(tenant); clients {
		return 0, false, nil
	}
	there, ok, err := p.gate().ServicePIDs(ctx, tenant)
	if !ok || err != nil {
		return 0, ok, err
	}
	ours := make(map[uint32]bool)
	note := func(pids []uint32) {
		for _, pid := range pids {
			ours[pid] = true
		}
	}
	own, err := p.gate().ServerPIDs(tenant)
	if err != nil {
		return 0, true, err
	}
	note(own)
	silent := make(map[string]bool)
	for _, row := range p.others() {
		silent[row.Name] = row.Silent
	}
	answers, missing := askAll[[]uint32](ctx, p, askServers, func(node string) any {
		if silent[node] {
			return nil
		}
		return tenant
	})
	if len(missing) > 0 {
		return 0, true, fmt.Errorf("nodes do not say which servers are their own: %s", strings.Join(missing, ", "))
	}
	for _, pids := range answers {
		note(pids)
	}
	for _, pid := range there {
		if !ours[pid] {
			n++
		}
	}
	return n, true, nil
}
