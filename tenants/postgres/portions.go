// Portions of limits in the store: package cluster divides them.

package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/tenants"
)

const (
	portionChannel = "postern_portions"
	// lapseAfter is how long a process is silent until none of its dials can be under way any more: those that it had begun before it
	// was silent, Postgres has ended after its authentication_timeout, and twice that is for clocks and networks.
	lapseAfter = silentAfter + 2*time.Minute
	maxLook    = 1000 // tenants that are named at once, of each kind
)

// Portions hands a tenant's portions to f and writes what f makes of them. Nobody else does the same for this tenant meanwhile.
func (l *Ledger) Portions(ctx context.Context, tenant string, f func(tenants.Portions) tenants.PortionsChange) error {
	_, err := ask(ctx, l, func(ctx context.Context) (struct{}, error) {
		tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}) // each statement sees what was committed before it
		if err != nil {
			return struct{}{}, err
		}
		defer func() { _ = tx.Rollback(ctx) }() // where nothing was written: that waits for no disk
		s, alone, err := l.readPortions(ctx, tx, tenant)
		if err != nil {
			return struct{}{}, err
		}
		noticed := false
		if s.Settling { // or nobody has noticed yet that it is another one
			settled, err := l.settled(ctx, tx)
			if err != nil {
				return struct{}{}, err
			}
			s.Settling, noticed = !settled, true
		}
		before := slices.Clone(s.All)
		b := l.writePortions(tenant, before, f(s))
		if alone {
			b.Queue(`UPDATE postern.portions p SET alone = clock_timestamp() WHERE tenant = $1 AND coalesce(alone > clock_timestamp(), true) AND boot <> $2
				AND NOT EXISTS (SELECT FROM postern.nodes n WHERE n.boot = p.boot)`, tenant, l.boot)
		}
		if b.Len() > 0 {
			if err := tx.SendBatch(ctx, b).Close(); err != nil {
				return struct{}{}, fmt.Errorf("writing portions: %w", err)
			}
		} else if !noticed {
			return struct{}{}, nil
		}
		return struct{}{}, tx.Commit(ctx)
	})
	return err
}

// A process is silent when it has not said for a while that it lives, or has no row any more: then it is alone from when somebody noticed.
const selectPortions = `SELECT p.scope, p.node, p.boot, p.servers, p.wanted,
		coalesce(clock_timestamp() - n.seen > $2, true),
		coalesce(clock_timestamp() - coalesce(n.seen, p.alone) > $3, false),
		coalesce(n.seen, least(p.alone, clock_timestamp()), clock_timestamp()) + $3,
		n.boot IS NULL AND coalesce(p.alone > clock_timestamp(), true)
	FROM postern.portions p LEFT JOIN postern.nodes n ON n.boot = p.boot WHERE p.tenant = $1 ORDER BY p.scope, p.boot`

// readPortions takes the lock of a tenant's portions and reads them. alone reports whether there are some of processes that have no row
// and nobody has noticed yet.
func (l *Ledger) readPortions(ctx context.Context, tx pgx.Tx, tenant string) (s tenants.Portions, alone bool, err error) {
	b := &pgx.Batch{}
	b.Queue(`SET LOCAL idle_in_transaction_session_timeout = '3s'`) // others wait for a process that stands still now
	b.Queue(`INSERT INTO postern.budgets (tenant) VALUES ($1) ON CONFLICT DO NOTHING`, tenant)
	b.Queue(`SELECT FROM postern.budgets WHERE tenant = $1 FOR UPDATE`, tenant)
	b.Queue(`SELECT clock_timestamp(), coalesce((SELECT store <> ` + epochNow + ` OR until > clock_timestamp() FROM postern.leases WHERE key = ''), true)`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&s.Now, &s.Settling)
	})
	b.Queue(selectPortions, tenant, silentAfter, l.lapse).Query(func(rows pgx.Rows) error {
		var p tenants.Portion
		var lapses time.Time
		var unnoticed bool
		_, err := pgx.ForEachRow(rows, []any{&p.Scope, &p.Node, &p.Boot, &p.Servers, &p.Wanted, &p.Silent, &p.Lapsed, &lapses, &unnoticed}, func() error {
			if p.Lapses = (time.Time{}); p.Silent {
				p.Lapses = lapses
			}
			s.All = append(s.All, p)
			alone = alone || unnoticed && p.Boot != l.boot
			return nil
		})
		return err
	})
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return s, false, fmt.Errorf("reading portions: %w", err)
	}
	return s, alone, nil
}

// writePortions is what has to be done so that what was becomes what shall be.
func (l *Ledger) writePortions(tenant string, was []tenants.Portion, c tenants.PortionsChange) *pgx.Batch {
	b := &pgx.Batch{}
	var scopes, gone []string
	var servers, wanted []int32
	same := func(p tenants.Portion) func(tenants.Portion) bool {
		return func(o tenants.Portion) bool { return o.Boot == l.boot && o.Scope == p.Scope }
	}
	for _, p := range c.Mine {
		if i := slices.IndexFunc(was, same(p)); i >= 0 && was[i].Servers == p.Servers && was[i].Wanted == p.Wanted && was[i].Node == l.node {
			continue
		}
		scopes, servers, wanted = append(scopes, p.Scope), append(servers, int32(p.Servers)), append(wanted, int32(p.Wanted))
	}
	for _, p := range was {
		if p.Boot == l.boot && !slices.ContainsFunc(c.Mine, same(p)) {
			gone = append(gone, p.Scope)
		}
	}
	if len(gone) > 0 {
		b.Queue(`DELETE FROM postern.portions WHERE tenant = $1 AND boot = $2 AND scope = ANY ($3)`, tenant, l.boot, gone)
	}
	if len(scopes) > 0 {
		b.Queue(`INSERT INTO postern.portions (tenant, scope, boot, node, servers, wanted) SELECT $1, scope, $2, $3, servers, wanted
			FROM unnest($4::text[], $5::int[], $6::int[]) p (scope, servers, wanted)
			ON CONFLICT (tenant, scope, boot) DO UPDATE SET node = excluded.node, servers = excluded.servers, wanted = excluded.wanted, alone = NULL`,
			tenant, l.boot, l.node, scopes, servers, wanted)
	}
	for _, p := range c.Gone {
		if p.Servers > 0 {
			b.Queue(`UPDATE postern.portions SET servers = $4, wanted = 0 WHERE tenant = $1 AND scope = $2 AND boot = $3`, tenant, p.Scope, p.Boot, p.Servers)
		} else {
			b.Queue(`DELETE FROM postern.portions WHERE tenant = $1 AND scope = $2 AND boot = $3`, tenant, p.Scope, p.Boot)
		}
	}
	if c.Tell {
		b.Queue(`SELECT pg_notify($1, $2)`, portionChannel, l.boot+" "+tenant)
	}
	return b
}

// Unheard says for how long the store has not heard that this process lives: tenants.ErrUnannounced.
func (l *Ledger) Unheard(ctx context.Context) (time.Duration, error) {
	return ask(ctx, l, func(ctx context.Context) (d time.Duration, err error) {
		var ms *int64
		err = l.pool.QueryRow(ctx, `SELECT max(1000 * extract(epoch FROM clock_timestamp() - seen))::bigint FROM postern.nodes WHERE boot = $1`, l.boot).Scan(&ms)
		if err == nil && ms == nil {
			err = tenants.ErrUnannounced
		}
		if err != nil {
			return 0, err
		}
		return time.Duration(max(*ms, 0)) * time.Millisecond, nil
	})
}

// selectShort names tenants of which somebody wants more than it has, if this process has some.
const selectShort = `SELECT DISTINCT s.tenant FROM postern.portions s JOIN postern.portions m ON m.tenant = s.tenant
	WHERE s.wanted > s.servers AND s.boot <> $1 AND m.boot = $1 AND s.tenant > $2 ORDER BY s.tenant LIMIT $3`

// selectSilent names tenants with portions of processes that are silent. The processes are read by steps along the index, and so are the tenants
// of each.
const selectSilent = `WITH RECURSIVE boots (boot) AS (
		(SELECT boot FROM postern.portions ORDER BY boot LIMIT 1)
		UNION ALL SELECT next.boot FROM boots b, LATERAL (SELECT boot FROM postern.portions p WHERE p.boot > b.boot ORDER BY boot LIMIT 1) next
	), silent (boot) AS (
		SELECT b.boot FROM boots b LEFT JOIN postern.nodes n ON n.boot = b.boot WHERE coalesce(clock_timestamp() - n.seen > $4, true)
	)
	SELECT DISTINCT p.tenant FROM silent s, LATERAL (
		SELECT DISTINCT tenant FROM postern.portions p WHERE p.boot = s.boot AND p.tenant > $2 ORDER BY tenant LIMIT $3) p
	WHERE s.boot <> $1 ORDER BY p.tenant LIMIT $3`

// page reads the next tenants that a query names, after the one that was named last: those of which nothing can be done now hide no others.
func (l *Ledger) page(ctx context.Context, after *string, sql string, args ...any) ([]string, error) {
	l.mu.Lock()
	from := *after
	l.mu.Unlock()
	rows, err := l.pool.Query(ctx, sql, append([]any{l.boot, from, l.maxLook}, args...)...)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	next := "" // from the first one again
	if len(all) == l.maxLook {
		next = all[len(all)-1]
	}
	l.mu.Lock()
	*after = next
	l.mu.Unlock()
	return all, nil
}

// HasTenant reports whether the store has a tenant, whether or not it is in force here.
func (l *Ledger) HasTenant(ctx context.Context, id string) (bool, error) {
	return ask(ctx, l, func(ctx context.Context) (has bool, err error) {
		err = l.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM postern.tenants WHERE id = $1)`, id).Scan(&has)
		return has, err
	})
}

// Survey returns all portions of this process by tenant, and tenants that somebody should look at: others want some, or processes are silent.
func (l *Ledger) Survey(ctx context.Context) (mine map[string][]tenants.Portion, look []string, err error) {
	mine = make(map[string][]tenants.Portion)
	_, err = ask(ctx, l, func(ctx context.Context) (struct{}, error) {
		rows, err := l.pool.Query(ctx, `SELECT tenant, scope, node, boot, servers, wanted FROM postern.portions WHERE boot = $1`, l.boot)
		if err != nil {
			return struct{}{}, err
		}
		var tenant string
		var p tenants.Portion
		if _, err := pgx.ForEachRow(rows, []any{&tenant, &p.Scope, &p.Node, &p.Boot, &p.Servers, &p.Wanted}, func() error {
			mine[tenant] = append(mine[tenant], p)
			return nil
		}); err != nil {
			return struct{}{}, err
		}
		short, err := l.page(ctx, &l.shortAfter, selectShort)
		if err != nil {
			return struct{}{}, err
		}
		silent, err := l.page(ctx, &l.silentAfter, selectSilent, silentAfter)
		look = slices.Concat(short, silent)
		slices.Sort(look)
		look = slices.Compact(look)
		return struct{}{}, err
	})
	return mine, look, err
}

// Hear tells of tenants whose portions others want this process to look at, until ctx ends or the store is away. ready is called when it
// has begun. Neither may block.
func (l *Ledger) Hear(ctx context.Context, ready func(), heard func(tenant string)) error {
	return hear(ctx, l.conn, portionChannel, func(payload string) {
		if boot, tenant, ok := strings.Cut(payload, " "); ok && boot != l.boot {
			heard(tenant)
		}
	}, ready)
}

// hear listens to a channel until ctx ends or the connection is lost.
func hear(ctx context.Context, to *pgx.ConnConfig, channel string, heard func(payload string), ready func()) error {
	conf := to.Copy()
	conf.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { heard(n.Payload) }
	conn, err := listen(ctx, conf, channel)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	ready()
	for {
		bound, cancel := context.WithTimeout(ctx, pingLedger)
		err := conn.PgConn().WaitForNotification(bound)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !pgconn.Timeout(err) {
			return err
		}
		if err != nil { // silence: is it there?
			if _, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, conn.Ping(ctx) }); err != nil {
				return err
			}
		}
	}
}

// Return says that this process has no portions any more but of these tenants: those lapse, as those of a process that is gone.
func (l *Ledger) Return(ctx context.Context, but []string) error {
	_, err := ask(ctx, l, func(ctx context.Context) (struct{}, error) {
		_, err := l.pool.Exec(ctx, `DELETE FROM postern.portions WHERE boot = $1 AND tenant <> ALL ($2)`, l.boot, append([]string{}, but...))
		return struct{}{}, err
	})
	return err
}
