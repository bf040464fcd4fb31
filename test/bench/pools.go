// The pools row: what a node of a cluster keeps for tenants that are in use.

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/tenants"
)

const usedMany = serverSlots - 60 // the others are for the store, and for us

const usedHeap figure = "heap_kib_per_tenant"

func usedTenants() *measurement {
	return &measurement{run: func(ctx context.Context, r *rig) (figures, error) { return r.poolsCell(ctx) }, columns: []column{
		{"heap KiB each", usedHeap, true},
	}}
}

// poolsCell has one client come for each tenant, and stay.
func (r *rig) poolsCell(ctx context.Context) (f figures, err error) {
	var many []*tenants.Tenant
	for i := range usedMany {
		many = append(many, r.tenant(tenantName(i)))
	}
	all, err := r.fellows(ctx, 1, many...)
	defer func() { err = errors.Join(err, r.leave(ctx, all)) }()
	if err != nil {
		return nil, err
	}
	t := all[0]
	before, err := t.liveHeap(ctx)
	if err != nil {
		return nil, err
	}
	clients := make([]*pgconn.PgConn, usedMany)
	defer func() { closeAll(ctx, clients) }()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(idleLogins)
	for i := range clients {
		group.Go(func() (err error) {
			of := *t
			of.user = benchRole + "." + tenantName(i)
			clients[i], err = r.connect(groupCtx, &of, false)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("%w%s", err, t.logTail())
	}
	after, err := t.liveHeap(ctx)
	if err != nil {
		return nil, err
	}
	return figures{usedHeap: (after - before) / usedMany / 1024}, t.alive()
}
