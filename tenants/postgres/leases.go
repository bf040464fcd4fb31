// Leases in the store: who may change something, and that nobody who uses it is overlooked.

package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
)

// settleAfter is for how long nothing counts as unused, and no limit as free, once the store has become another one: in what was restored, or
// has not got the last commits of a primary that died, rows are missing until nodes have written them again.
const settleAfter = 30 * time.Second

// TakeLease takes a lease for a time that begins after the call: *tenants.HeldError if another process has it. The process that has it
// already gets a new one, by takeover.
func (l *Ledger) TakeLease(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error) {
	return l.take(ctx, key, ttl, func(context.Context, pgx.Tx) (refused, err error) { return nil, nil })
}

// TakeToUse takes a lease of what this process uses from now on.
func (l *Ledger) TakeToUse(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error) {
	if err := l.await(ctx, key); err != nil {
		return tenants.Lease{}, err
	}
	defer l.end(key)
	lease, err := l.take(ctx, key, ttl, func(ctx context.Context, tx pgx.Tx) (refused, err error) { return nil, l.addUse(ctx, tx, key) })
	if err == nil {
		l.used(key)
	}
	return lease, err
}

func (l *Ledger) used(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uses[key] = true
}

// TakeUnused takes a lease of what this process does not use any more, if no other process does either: *tenants.UsedError,
// tenants.ErrUnsettled.
func (l *Ledger) TakeUnused(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error) {
	if err := l.await(ctx, key); err != nil {
		return tenants.Lease{}, err
	}
	defer l.end(key)
	return l.take(ctx, key, ttl, func(ctx context.Context, tx pgx.Tx) (refused, err error) {
		l.mu.Lock()
		delete(l.uses, key) // before, because it may be done although nobody says so
		l.mu.Unlock()
		if _, err := tx.Exec(ctx, `DELETE FROM postern.uses WHERE key = $1 AND (boot = $2 OR over)`, key, l.boot); err != nil {
			return nil, err
		}
		if settled, err := l.settled(ctx, tx); err != nil || !settled {
			return tenants.ErrUnsettled, err
		}
		var nodes []string
		if err := tx.QueryRow(ctx, `SELECT coalesce(array_agg(DISTINCT node ORDER BY node), '{}') FROM postern.uses WHERE key = $1`, key).Scan(&nodes); err != nil || len(nodes) == 0 {
			return nil, err
		}
		return &tenants.UsedError{Nodes: nodes}, nil
	})
}

// Use says that this process uses something, until TakeUnused: *tenants.HeldError while another process changes it,
// tenants.ErrAbandoned, tenants.ErrUnannounced. What is known to be written down costs nothing, and needs no store.
func (l *Ledger) Use(ctx context.Context, key string) error {
	if err := l.await(ctx, key); err != nil {
		return err
	}
	defer l.end(key)
	if l.Uses(key) {
		return nil
	}
	err := l.locked(ctx, key, func(ctx context.Context, tx pgx.Tx, abandoned bool) error {
		if abandoned {
			return tenants.ErrAbandoned
		}
		return l.addUse(ctx, tx, key)
	})
	if err == nil {
		l.used(key)
	}
	return err
}

// Uses reports whether the store knows that this process uses something.
func (l *Ledger) Uses(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.uses[key]
}

// UseUnwritten says that this process uses something although the store could not be told. It is as soon as it is there.
func (l *Ledger) UseUnwritten(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uses[key] = l.uses[key]
}

// RenewLease has a lease last for a time that begins after the call: tenants.ErrLeaseLost.
func (l *Ledger) RenewLease(ctx context.Context, lease tenants.Lease, ttl time.Duration) error {
	return l.own(ctx, lease, `UPDATE postern.leases SET until = greatest(until, clock_timestamp() + $4::interval)
		WHERE key = $1 AND boot = $2 AND epoch = $3 AND until > clock_timestamp() AND store = `+epochNow, ttl)
}

// DropLease ends a lease before its time and tells other nodes that it is free, or that what it is about was changed.
func (l *Ledger) DropLease(ctx context.Context, lease tenants.Lease, changed bool) error {
	return l.own(ctx, lease, `WITH dropped AS (UPDATE postern.leases SET owner = '', until = clock_timestamp() WHERE key = $1 AND boot = $2 AND epoch = $3 RETURNING key)
		SELECT pg_notify('`+leaseChannel+`', $4) FROM dropped`, l.says(changed, lease.Key))
}

// LeaveLease ends a lease before its time, unfinished: whoever takes it next has it by takeover.
func (l *Ledger) LeaveLease(ctx context.Context, lease tenants.Lease, changed bool) error {
	return l.own(ctx, lease, `WITH left_ AS (UPDATE postern.leases SET until = clock_timestamp() WHERE key = $1 AND boot = $2 AND epoch = $3 RETURNING key)
		SELECT pg_notify('`+leaseChannel+`', $4) FROM left_`, l.says(changed, lease.Key))
}

// own runs a statement that does something with one row if the lease is this process's.
func (l *Ledger) own(ctx context.Context, lease tenants.Lease, sql string, arg any) error {
	_, err := ask(ctx, l, func(ctx context.Context) (struct{}, error) {
		tag, err := l.pool.Exec(ctx, sql, lease.Key, lease.Boot, lease.Epoch, arg)
		if err == nil && tag.RowsAffected() == 0 {
			err = tenants.ErrLeaseLost
		}
		return struct{}{}, err
	})
	return err
}

// take takes a lease unless refused says why not. What may has written down stays even so.
func (l *Ledger) take(ctx context.Context, key string, ttl time.Duration, may func(context.Context, pgx.Tx) (refused, err error)) (tenants.Lease, error) {
	lease := tenants.Lease{Key: key, Owner: l.node, Boot: l.boot}
	var refused error
	err := l.locked(ctx, key, func(ctx context.Context, tx pgx.Tx, abandoned bool) (err error) {
		lease.Takeover = abandoned
		if refused, err = may(ctx, tx); err != nil || refused != nil {
			return err
		}
		return tx.QueryRow(ctx, `UPDATE postern.leases SET owner = $2, boot = $3, store = `+epochNow+`, until = clock_timestamp() + $4::interval,
			epoch = greatest(epoch + 1, (1000000 * extract(epoch FROM clock_timestamp()))::bigint) -- a restored store hands out none a second time
			WHERE key = $1 RETURNING epoch`, key, l.node, l.boot, ttl).Scan(&lease.Epoch)
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return tenants.Lease{}, err
	}
	return lease, nil
}

// locked runs a transaction that has the lock of a lease's row, which no other process holds the lease of. abandoned says that a process did,
// this one or another, and has not given it back: what it does may not have ended. So it is where this store has not given it out before:
// the one that it was restored from may have.
func (l *Ledger) locked(ctx context.Context, key string, f func(ctx context.Context, tx pgx.Tx, abandoned bool) error) error {
	_, err := ask(ctx, l, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { // each statement sees what was committed before it
			if _, err := tx.Exec(ctx, insertLease, key); err != nil {
				return err
			}
			var owner string
			var abandoned bool
			var left float64 // seconds
			var others int32
			if err := tx.QueryRow(ctx, selectLease, key, l.boot).Scan(&owner, &abandoned, &left, &others); err != nil {
				return err
			}
			l.others.Store(others)
			if left > 0 {
				return &tenants.HeldError{Owner: owner, For: time.Duration(left * float64(time.Second))}
			}
			return f(ctx, tx, abandoned)
		})
	})
	return err
}

const (
	insertLease = `INSERT INTO postern.leases (key, owner, boot, epoch, store, until) VALUES ($1, '', '', 0, '', '-infinity') ON CONFLICT DO NOTHING`
	// A lease that lasts for longer than any was ever taken is of before the clock was set back.
	selectLease = `SELECT owner, owner <> '' OR store <> ` + epochNow + `, CASE WHEN owner <> '' AND boot <> $2 AND until > clock_timestamp() AND until <= clock_timestamp() + interval '1 hour' AND store = ` + epochNow + `
			THEN extract(epoch FROM until - clock_timestamp())::float8 ELSE 0 END,
		(SELECT count(*) FROM postern.nodes WHERE boot <> $2)
		FROM postern.leases WHERE key = $1 FOR UPDATE OF leases`
)

// addUse writes down that this process uses something.
func (l *Ledger) addUse(ctx context.Context, tx pgx.Tx, key string) error {
	var announced bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM postern.nodes WHERE boot = $1)`, l.boot).Scan(&announced); err != nil {
		return err
	}
	if !announced {
		return tenants.ErrUnannounced
	}
	_, err := tx.Exec(ctx, insertUses, []string{key}, l.boot, l.node)
	return err
}

// settled reports whether the store has been this one for a while, or always. The lease of the empty key stands for it: it is of the store's
// last epoch, and until then nothing counts as unused.
func (l *Ledger) settled(ctx context.Context, tx pgx.Tx) (settled bool, err error) {
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO postern.leases (key, owner, boot, epoch, store, until) VALUES ('', '', '', 0, ` + epochNow + `, '-infinity') ON CONFLICT DO NOTHING`)
	b.Queue(`UPDATE postern.leases SET store = `+epochNow+`, until = clock_timestamp() + $1::interval WHERE key = '' AND store <> `+epochNow, settleAfter)
	b.Queue(`SELECT until <= clock_timestamp() FROM postern.leases WHERE key = ''`).QueryRow(func(row pgx.Row) error { return row.Scan(&settled) })
	err = tx.SendBatch(ctx, b).Close()
	return settled, err
}
