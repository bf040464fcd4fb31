// The ledger: what nodes write down for each other, over a few connections of its own, and one that listens. Leases are in leases.go,
// portions in portions.go.

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

	lapse   time.Duration // until portions of who is silent may end
	maxLook int

	others  atomic.Int32 // other nodes that the store knew when it was asked last; unknownOthers: it never was
	reached *atomic.Bool // this process has reached the store, with whatever connection

	again   atomic.Bool  // Watch writes down and looks again now
	pruned  bool         // old leases were removed; of Watch, as is what follows
	orphans map[use]bool // that it has seen when it looked last

	mu    sync.Mutex               // guards what follows; held briefly
	uses  map[string]bool          // keys of what this process uses; true: the store knows
	turns map[string]chan struct{} // keys whose use is being changed; closed when that is over

	shortAfter, silentAfter string // the tenants that Survey has named last
}

// use is a row of postern.uses.
type use struct {
	Key, Boot string
	Over      bool
}

const unknownOthers = -1

// Ledger makes a ledger for the process that follows the store. The caller closes it.
func (s *Store) Ledger() (*Ledger, error) { return newLedger(&s.opts, s.node.boot, &s.reached) }

func newLedger(o *Options, boot string, reached *atomic.Bool) (*Ledger, error) {
	pool, err := newPool(o)
	if err != nil {
		return nil, err
	}
	l := &Ledger{asker: asker{pool: pool, log: o.Log}, conn: o.Conn, node: o.Node, boot: boot, reached: reached, lapse: lapseAfter, maxLook: maxLook, uses: make(map[string]bool),
		turns: make(map[string]chan struct{})}
	l.others.Store(unknownOthers)
	return l, nil
}

// Close says that this process uses nothing any more, so that another one puts to sleep what it leaves awake, and closes the connections.
func (l *Ledger) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWithin)
	defer cancel()
	if _, err := l.pool.Exec(ctx, `UPDATE postern.uses SET over = true WHERE boot = $1`, l.boot); err != nil {
		l.log.Warn("the store was not told that this node uses no machine any more", "error", plain(err))
	}
	l.pool.Close()
}

// Discard closes a ledger in which nothing was written.
func (l *Ledger) Discard() { l.pool.Close() }

// Alone reports whether the store knew no other node when it was asked last, or was never reached. Of one that was reached, but not asked yet,
// nothing is known: others may have reached it as well.
func (l *Ledger) Alone() bool {
	others := l.others.Load()
	return others == 0 || others == unknownOthers && !l.reached.Load()
}

// Watcher is told what other processes write down, by one goroutine, and must not block.
type Watcher struct {
	Told func(tenants.LeaseNews)
	// Idle reports whether something is not used here and will not be before Use or TakeToUse: then it need not be written down that it is.
	Idle func(key string) bool
}

// Watch tells of what other processes write down, until ctx ends. It writes down again what this one uses whenever the store may have
// lost it, and strikes out what it does not use any more.
func (l *Ledger) Watch(ctx context.Context, w Watcher) {
	pause := firstPause
	for said := false; ; {
		err := l.follow(ctx, w, func() { pause, said = firstPause, false })
		if ctx.Err() != nil {
			return
		}
		if !said {
			l.log.Warn("this node is not told what others do to machines for now", "error", err)
			said = true
		}
		if !sleep(ctx, pauseBefore(pause)) {
			return
		}
		pause = min(2*pause, longestOther)
	}
}

// follow does so for as long as one connection lasts.
func (l *Ledger) follow(ctx context.Context, w Watcher, reached func()) error {
	conf := l.conn.Copy()
	conf.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { l.hear(n.Payload, w.Told) }
	conn, err := listen(ctx, conf, leaseChannel)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	var asserted time.Time
	for last := time.Now(); ; {
		now := time.Now()
		all := now.Sub(asserted) >= assertEvery || stoodStill(last, now) || l.again.Swap(false)
		last = now
		if _, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.assert(ctx, conn, all, w) }); err != nil {
			return err
		}
		if all {
			asserted = time.Now().Add(-rand.N(assertEvery / 4)) // not all nodes at once
		}
		reached()
		l.hears()
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

// stoodStill reports whether this process has done nothing for so long that it may have been forgotten, and what it uses struck out. If its
// computer stood still, only the clock on the wall says so.
func stoodStill(last, now time.Time) bool {
	return max(now.Sub(last), now.Round(0).Sub(last.Round(0))) >= 2*pingLedger
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
// it strikes out what it does not use, and takes over what is nobody's.
func (l *Ledger) assert(ctx context.Context, conn *pgx.Conn, all bool, w Watcher) error {
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
	if err := l.prune(ctx, conn); err != nil {
		return err
	}
	if err := l.strike(ctx, conn, w.Idle); err != nil {
		return err
	}
	return l.adopt(ctx, conn, w.Told)
}

// prune removes leases that nobody has taken for long, once: there is one for each machine that there ever was. The next epoch of such a one is
// greater all the same, by the clock.
func (l *Ledger) prune(ctx context.Context, conn *pgx.Conn) error {
	if l.pruned {
		return nil
	}
	_, err := conn.Exec(ctx, `DELETE FROM postern.leases WHERE owner = '' AND key <> '' AND until < clock_timestamp() - interval '30 days'`)
	l.pruned = err == nil
	return err
}

// strike strikes out what is not used here: a wake has failed, a machine has stopped by itself, or it is not known whether a use was
// written down.
func (l *Ledger) strike(ctx context.Context, conn *pgx.Conn, idle func(key string) bool) error {
	mine, err := readUses(ctx, conn, `SELECT key, boot, over FROM postern.uses WHERE boot = $1`, l.boot)
	if err != nil {
		return err
	}
	for _, u := range mine {
		if !idle(u.Key) {
			continue
		}
		if err := l.strikeIdle(ctx, conn, u.Key, idle); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) strikeIdle(ctx context.Context, conn *pgx.Conn, key string, idle func(key string) bool) error {
	if l.begin(key) != nil {
		return nil // somebody is about to use it
	}
	defer l.end(key)
	if !idle(key) { // it may have been used and be idle again, but not have begun: that waits for its turn
		return nil
	}
	l.mu.Lock()
	delete(l.uses, key)
	l.mu.Unlock()
	_, err := conn.Exec(ctx, `DELETE FROM postern.uses WHERE key = $1 AND boot = $2`, key, l.boot)
	return err
}

// begin begins to change whether a key is used. If somebody else does, it returns what is closed when that is over.
func (l *Ledger) begin(key string) (busy <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.turns[key]; ok {
		return other
	}
	l.turns[key] = make(chan struct{})
	return nil
}

// await begins when nobody else does any more.
func (l *Ledger) await(ctx context.Context, key string) error {
	for {
		busy := l.begin(key)
		if busy == nil {
			return nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Ledger) end(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.turns[key])
	delete(l.turns, key)
}

// insertUses writes down what a process uses.
const insertUses = `INSERT INTO postern.uses (key, boot, node, since) SELECT key, $2, $3, clock_timestamp() FROM unnest($1::text[]) k (key) ON CONFLICT DO NOTHING`

// adopt answers for what was used by processes that have ended, or have no row among the nodes any more: they were forgotten, or started
// anew. A process that lives has one again within moments, so that none counts as gone before it was seen twice so.
func (l *Ledger) adopt(ctx context.Context, conn *pgx.Conn, told func(tenants.LeaseNews)) error {
	orphans, err := readUses(ctx, conn, `SELECT key, boot, over FROM postern.uses u WHERE over OR NOT EXISTS (SELECT FROM postern.nodes n WHERE n.boot = u.boot)`)
	if err != nil {
		return err
	}
	var keys, boots []string
	now := make(map[use]bool)
	for _, u := range orphans {
		if u.Over || l.orphans[u] {
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
		RETURNING u.key, u.boot, u.over`, keys, boots) // of several that try, one is told what it has deleted
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
