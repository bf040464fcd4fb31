// The limits that nodes share: this node's budget, between its gate and the store, and how the server connections of a node that is gone are
// found. Without `cluster` there is nothing of it.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/configs"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
)

// askServers asks a node which processes of a tenant's Postgres serve it.
const askServers = "servers"

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
		Granted:   func(tenant string, number int64, g []tenants.Grant) { p.gate.Granted(tenant, number, g) },
		Strangers: p.peers.count,
		Floor:     func(tenant string) bool { return hasFloor(p.directory, tenant) },
		Alive:     func(_, boot string) bool { return seen(c.Members(), boot) },
		Alone:     func() bool { return alone(c.Nodes(), c.Members(), c.Boot()) },
		Left:      func() []string { return p.gate.Left() },
	})
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

// seen reports whether a process is seen to live.
func seen(all []cluster.Member, boot string) bool {
	for _, m := range all {
		if m.Boot == boot {
			return m.State == cluster.Alive
		}
	}
	return false
}

// alone reports whether none of the other nodes of the store is seen.
func alone(rows []tenants.Node, all []cluster.Member, me string) bool {
	others := false
	for _, row := range rows {
		if row.Boot == me || !row.Address.IsValid() {
			continue
		}
		if others = true; seen(all, row.Boot) {
			return false
		}
	}
	return others
}

// servers answers which processes serve this node.
func (p *peers) servers(_ context.Context, tenant string) ([]uint32, error) {
	return p.gate().ServerPIDs(tenant)
}

// count counts a tenant's strangers, as far as that is for this node to do.
func (p *peers) count(ctx context.Context, tenant string) (n int, ok bool, err error) {
	n, ok, err = p.strangers(ctx, tenant)
	switch {
	case errors.Is(err, proxy.ErrNoTenant): // it was removed: nobody can log in to look, and time decides
		return 0, false, nil
	case errors.Is(err, proxy.ErrAsleep), errors.Is(err, proxy.ErrElsewhere):
		return 0, ok, fmt.Errorf("%w: %w", cluster.ErrNotCounted, err)
	}
	return n, ok, err
}

// strangers counts a tenant's server connections that no living node says are its own. ok is false if it has no service account, and for
// places of clients: those are gone with their node.
func (p *peers) strangers(ctx context.Context, tenant string) (n int, ok bool, err error) {
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
	for _, row := range p.others() {
		pids, err := askOne[[]uint32](ctx, p.nodes, row.Name, askServers, tenant)
		switch {
		case err == nil:
			note(pids)
		case !row.Silent:
			return 0, true, fmt.Errorf("node %s does not say which servers are its own: %w", row.Name, err)
		}
	}
	for _, pid := range there {
		if !ours[pid] {
			n++
		}
	}
	return n, true, nil
}
