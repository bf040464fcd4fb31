// The ledger: what nodes write down for each other, over a few connections of its own, and one that listens. Leases are in leases.go.

package postgres

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/tenants"
)

const (
	pingLedger   = 5 * time.Second
	assertEvery  = 20 * time.Second // what this process uses is written again, and orphans are looked for
	leaseChannel = "postern_machines"
)

// Ledger is this process among those that share the store. Its methods may be called by any number of goroutines.
type Ledger struct {
	asker
	conn *pgx.ConnConfig
	node string // for people
	boot string // tells this process from all others, as its row among postern.nodes does

	others atomic.Int32 // other nodes that the store knew when it was asked last; unknownOthers: it never was

	orphans map[use]bool // that Watch has seen when it looked last

	mu   sync.Mutex      // guards what follows; held briefly
	uses map[string]bool // keys of what this process uses; true: the store knows
}

// use is a row of postern.uses.
type use struct{ Key, Boot string }

const unknownOthers = -1

// Ledger makes a ledger for the process that follows the store. The caller closes it.
func (s *Store) Ledger() (*Ledger, error) { return newLedger(&s.opts, s.node.boot) }

func newLedger(o *Options, boot string) (*Ledger, error) {
	pool, err := newPool(o)
	if err != nil {
		return nil, err
	}
	l := &Ledger{asker: asker{pool: pool, log: o.Log}, conn: o.Conn, node: o.Node, boot: boot, uses: make(map[string]bool)}
	l.others.Store(unknownOthers)
	return l, nil
}

// Close says that this process uses nothing any more, and closes the connections.
func (l *Ledger) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWithin)
	defer cancel()
	if _, err := l.pool.Exec(ctx, `DELETE FROM postern.uses WHERE boot = $1`, l.boot); err != nil {
		l.log.Warn("the store was not told that this node uses no machine any more", "error", plain(err))
	}
	l.pool.Close()
}

// Alone reports whether the store knew no other node when it was asked last, or was never asked.
func (l *Ledger) Alone() bool { return l.others.Load() <= 0 }

// Watch tells of what other processes write down, until ctx ends, and writes down again what this one uses whenever the store may have
// lost it. told is called by one goroutine and must not block.
func (l *Ledger) Watch(ctx context.Context, told func(tenants.LeaseNews)) {
	pause := firstPause
	for said := false; ; {
		err := l.follow(ctx, told, func() { pause, said = firstPause, false })
		if ctx.Err() != nil {
			return
		}
		if !said {
			l.log.Warn("this node is not told what others do to machines for now", "error", err)
			said = true
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// follow does so for as long as one connection lasts.
func (l *Ledger) follow(ctx context.Context, told func(tenants.LeaseNews), reached func()) error {
	conf := l.conn.Copy()
	conf.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { l.hear(n.Payload, told) }
	conn, err := connect(ctx, conf)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if _, err := conn.Exec(ctx, "LISTEN "+leaseChannel); err != nil {
		return err
	}
	var asserted time.Time
	for {
		all := time.Since(asserted) >= assertEvery
		if _, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.assert(ctx, conn, all, told) }); err != nil {
			return err
		}
		if all {
			asserted = time.Now().Add(-rand.N(assertEvery / 4)) // not all nodes at once
		}
		reached()
		bound, cancel := context.WithTimeout(ctx, pingLedger)
		err := conn.PgConn().WaitForNotification(bound)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !pgconn.Timeout(err):
			return err
		}
	}
}

// The payload of a notification: what it is about, who says so, and the key.
const (
	saysFree    = "free"
	saysChanged = "changed"
)

func (l *Ledger) says(changed bool, key string) string {
	what := saysFree
	if changed {
		what = saysChanged
	}
	return what + " " + l.boot + " " + key
}

func (l *Ledger) hear(payload string, told func(tenants.LeaseNews)) {
	what, rest, _ := strings.Cut(payload, " ")
	boot, key, ok := strings.Cut(rest, " ")
	if ok && boot != l.boot {
		told(tenants.LeaseNews{Key: key, Changed: what == saysChanged})
	}
}

// assert counts the other nodes. With all, or where the store does not know it yet, it writes down what this process uses; and with all
// it takes over what is nobody's.
func (l *Ledger) assert(ctx context.Context, conn *pgx.Conn, all bool, told func(tenants.LeaseNews)) error {
	var others int32
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM postern.nodes WHERE boot <> $1`, l.boot).Scan(&others); err != nil {
		return fmt.Errorf("counting nodes: %w", err)
	}
	l.others.Store(others)
	if keys := l.unwritten(all); len(keys) > 0 {
		if _, err := conn.Exec(ctx, insertUses, keys, l.boot, l.node); err != nil {
			return fmt.Errorf("telling the store what this node uses: %w", err)
		}
		l.written(keys)
	}
	if !all {
		return nil
	}
	return l.adopt(ctx, conn, told)
}

// insertUses writes down what a process uses.
const insertUses = `INSERT INTO postern.uses (key, boot, node, since) SELECT key, $2, $3, clock_timestamp() FROM unnest($1::text[]) k (key) ON CONFLICT DO NOTHING`

// adopt answers for what was used by processes that have no row among the nodes any more: they were forgotten, or started anew. A
// process that lives has one again within moments, so that none counts as gone before it was seen twice so.
func (l *Ledger) adopt(ctx context.Context, conn *pgx.Conn, told func(tenants.LeaseNews)) error {
	orphans, err := readUses(ctx, conn, `SELECT key, boot FROM postern.uses u WHERE NOT EXISTS (SELECT FROM postern.nodes n WHERE n.boot = u.boot)`)
	if err != nil {
		return err
	}
	var keys, boots []string
	now := make(map[use]bool)
	for _, u := range orphans {
		if l.orphans[u] {
			keys, boots = append(keys, u.Key), append(boots, u.Boot)
		} else {
			now[u] = true
		}
	}
	l.orphans = now
	if len(keys) == 0 {
		return nil
	}
	gone, err := readUses(ctx, conn, `DELETE FROM postern.uses u USING unnest($1::text[], $2::text[]) o (key, boot) WHERE u.key = o.key AND u.boot = o.boot
		RETURNING u.key, u.boot`, keys, boots) // of several that try, one is told what it has deleted
	for _, u := range gone {
		told(tenants.LeaseNews{Key: u.Key, Changed: true, Orphaned: true})
	}
	return err
}

func readUses(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]use, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[use])
	if err != nil {
		return nil, fmt.Errorf("looking for what nobody uses any more: %w", err)
	}
	return all, nil
}

// unwritten are the keys of what is used here and may be unknown to the store.
func (l *Ledger) unwritten(all bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	some := maps.Clone(l.uses)
	maps.DeleteFunc(some, func(_ string, known bool) bool { return known && !all })
	return slices.Sorted(maps.Keys(some))
}

func (l *Ledger) written(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if _, still := l.uses[key]; still {
			l.uses[key] = true
		}
	}
}
