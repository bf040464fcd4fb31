// The portions row: how often the store can be asked to divide limits, by one node.

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/tenants"
	store "github.com/postern/postern/tenants/postgres"
)

const (
	lookTenants = 10_000 // that are looked at in turns
	lookAtOnce  = 4      // as a node does
)

const (
	lookRate    figure = "looks"        // a second
	lookChanges figure = "look_changes" // of those that change something, and tell other nodes
	lookRow     figure = "portion_bytes"
)

func portionLooks() *measurement {
	return &measurement{run: func(ctx context.Context, r *rig) (figures, error) { return r.portionsCell(ctx) }, columns: []column{
		{"looks a second that change nothing", lookRate, true}, {"that change a row and tell others", lookChanges, true}, {"bytes a row, with indexes", lookRow, false},
	}}
}

// portionsCell has one process look at portions of many tenants as fast as the store answers.
func (r *rig) portionsCell(ctx context.Context) (f figures, err error) {
	if err := r.makeStore(ctx); err != nil {
		return nil, err
	}
	ledger, end, err := r.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	var turn atomic.Int64
	looks := func(change bool, n func() bool) error {
		var group errgroup.Group
		for range lookAtOnce {
			group.Go(func() error {
				for n() {
					i := turn.Add(1)
					err := ledger.Portions(ctx, tenantName(int(i%lookTenants)), func(s tenants.Portions) tenants.PortionsChange {
						c := tenants.PortionsChange{Tell: change}
						c.Mine = []tenants.Portion{{Servers: 1}}
						if change && len(s.All) > 0 {
							c.Mine[0].Servers = 1 + s.All[0].Servers%2
						} else if len(s.All) > 0 {
							c.Mine[0].Servers = s.All[0].Servers
						}
						return c
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	}
	var made atomic.Int64
	if err := looks(true, func() bool { return made.Add(1) <= lookTenants }); err != nil {
		return nil, err
	}
	f = figures{}
	if f[lookRow], err = r.portionBytes(ctx); err != nil {
		return nil, err
	}
	for figure, change := range map[figure]bool{lookRate: false, lookChanges: true} {
		began, before := time.Now(), turn.Load()
		until := began.Add(time.Duration(r.opts.seconds) * time.Second)
		if err := looks(change, func() bool { return time.Now().Before(until) && ctx.Err() == nil }); err != nil {
			return nil, err
		}
		f[figure] = float64(turn.Load()-before) / time.Since(began).Seconds()
	}
	return f, ctx.Err()
}

// follow has this process follow the store, until end is called, which takes the store down.
func (r *rig) follow(ctx context.Context) (ledger *store.Ledger, end func(), err error) {
	conf, err := r.storeConn()
	if err != nil {
		return nil, nil, err
	}
	keys, err := r.storeKeys()
	if err != nil {
		return nil, nil, err
	}
	directory, err := tenants.NewDirectory()
	if err != nil {
		return nil, nil, err
	}
	s, err := store.Open(ctx, store.Options{Conn: conf, Keys: keys, Node: "bench", Boot: rand.Text(), Directory: directory, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	if ledger, err = s.Ledger(); err != nil {
		return nil, nil, err
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { s.Watch(following) })
	return ledger, func() {
		ledger.Close()
		stop()
		running.Wait()
		if err := r.dropStore(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintln(r.progress, "bench:", err)
		}
	}, nil
}

// portionBytes is what a row takes.
func (r *rig) portionBytes(ctx context.Context) (n float64, err error) {
	conn, err := r.pg.cluster.Connect(ctx, storeDatabase)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT (pg_total_relation_size('postern.portions') + pg_total_relation_size('postern.budgets'))::float8 / count(*) FROM postern.portions`).Scan(&n)
	return n, err
}
