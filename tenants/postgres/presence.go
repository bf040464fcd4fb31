// The node: this process as the store knows it. It says every second that it lives, and which version is in force here.

package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/tenants"
)

const (
	beatEvery      = time.Second
	beatTimeout    = 5 * time.Second
	silentAfter    = 5 * time.Second        // a node that was not heard of for as long is silent
	reportPause    = 150 * time.Millisecond // between two reports
	settleTimeout  = 500 * time.Millisecond // for loops to judge their sessions, then it is tried again with the next beat
	goodbyeWithin  = time.Second
	pruneEvery     = time.Hour
	appliedKept    = 7 * 24 * time.Hour // what is told of when versions came into force
	maxRefused     = 1000               // tenants that a node names
	maxRefusedKept = 100                // and with a time when a version came into force
)

// presence is this process. Whoever follows the store says what was reached; attend tells the store.
type presence struct {
	log     *slog.Logger
	settled func(context.Context) error
	boot    string // of this process
	here    func() tenants.Here
	started time.Time
	keys    *Keys
	cache   func() string // id of the key that the cache file needs

	// Of attend, and announce before it.
	name  string
	quiet time.Time // until then another process of the same name may be there that has not noticed us yet

	mu      sync.Mutex // guards what follows; held briefly
	reached report
	poke    chan struct{} // holds one if there is something to tell
}

// report is which version was put in force.
type report struct {
	at      head     // no epoch: none, on this connection
	refused []string // in order
}

func (r report) same(o report) bool { return r.at == o.at && slices.Equal(r.refused, o.refused) }

func newPresence(o *Options, cache func() string) *presence {
	p := &presence{log: o.Log, settled: o.Settled, boot: cmp.Or(o.Boot, rand.Text()), here: o.Here, started: time.Now(), name: o.Node, keys: o.Keys, cache: cache, poke: make(chan struct{}, 1)}
	if p.settled == nil {
		p.settled = func(context.Context) error { return nil }
	}
	if p.here == nil {
		p.here = func() tenants.Here { return tenants.Here{} }
	}
	return p
}

// reach says that everything up to a version was put in force, except for what was refused.
func (p *presence) reach(h head, bad map[string]refused) {
	r := report{at: h}
	if len(bad) > maxRefused {
		r.refused = []string{everyTenant}
	} else {
		r.refused = slices.Sorted(maps.Keys(bad))
	}
	p.mu.Lock()
	same := p.reached.same(r)
	p.reached = r
	p.mu.Unlock()
	if !same {
		p.hurry()
	}
}

// hurry has the node's row written soon.
func (p *presence) hurry() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// everyTenant stands for all ids where there are too many.
const everyTenant = "*"

func (p *presence) pending() report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached
}

// announce takes the row of the node's name. Until something is reached again nothing is in force: what was in force may have been in
// another store.
func (p *presence) announce(ctx context.Context, conn *pgx.Conn) error {
	p.mu.Lock()
	p.reached = report{}
	p.mu.Unlock()
	_, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return p.take(ctx, tx) })
	})
	if err != nil {
		return fmt.Errorf("announcing this node to the store: %w", err)
	}
	return nil
}

func (p *presence) take(ctx context.Context, tx pgx.Tx) error {
	// Of two that come at once the second sees the first. All others wait, but not for one that stands still or was cut off in the middle of it.
	if _, err := tx.Exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = '2s'; LOCK TABLE postern.nodes IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	var boot string
	var silent float64 // seconds
	err := tx.QueryRow(ctx, `SELECT boot, extract(epoch FROM clock_timestamp() - seen)::float8 FROM postern.nodes WHERE name = $1`, p.name).Scan(&boot, &silent)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if err == nil && boot != p.boot {
		// The process before this one did not say goodbye. If it is there still, it finds out with its next beat, and takes another name:
		// until then, or until it would be silent, nothing can be in force on "all" nodes.
		p.quiet = time.Now().Add(silentAfter - time.Duration(silent*float64(time.Second)))
	}
	h := p.here()
	_, err = tx.Exec(ctx, `INSERT INTO postern.nodes (name, boot, started, seen, epoch, applied, refused, keys, cache, address, gossip, fingerprint, region, protocol, leaving)
		VALUES ($1, $2, $3, clock_timestamp(), '', 0, '{}', $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (name) DO UPDATE SET boot = excluded.boot, started = excluded.started, seen = excluded.seen, epoch = excluded.epoch,
		applied = excluded.applied, refused = excluded.refused, keys = excluded.keys, cache = excluded.cache, address = excluded.address,
		gossip = excluded.gossip, fingerprint = excluded.fingerprint, region = excluded.region, protocol = excluded.protocol, leaving = excluded.leaving`,
		p.name, p.boot, p.started, p.keys.IDs(), p.cache(), addressText(h.Address), addressText(h.Gossip), h.Fingerprint, h.Region, h.Protocol, h.Leaving)
	return err
}

// addressText is an address as a row has it; "": there is none.
func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// attend tells the store how the node is, until ctx ends or the store cannot be told any more.
func (p *presence) attend(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	var told report
	var last, pruned time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.poke:
			if !sleep(ctx, reportPause-time.Since(last)) {
				return nil
			}
		}
		last = time.Now()
		now := p.pending()
		if !now.same(told) && !p.inForce(ctx) {
			now = told // and again with the next beat
		}
		there, err := p.tell(ctx, conn, now, !now.same(told))
		if err != nil {
			return fmt.Errorf("telling the store that this node lives: %w", err)
		}
		told = now
		if !there {
			told = report{}
			if err := p.retake(ctx, conn); err != nil {
				return err
			}
		}
		if time.Since(pruned) > pruneEvery {
			pruned = time.Now()
			if err := p.exec(ctx, conn, `DELETE FROM postern.applied WHERE at < clock_timestamp() - $1::interval`, appliedKept); err != nil {
				return err
			}
		}
	}
}

// sleep reports false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// inForce waits until sessions that were open when the last change was put in force have been judged by it.
func (p *presence) inForce(ctx context.Context) bool {
	if time.Now().Before(p.quiet) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return p.settled(ctx) == nil
}

// tell writes the node's row, which may not be its own any more.
func (p *presence) tell(ctx context.Context, conn *pgx.Conn, r report, news bool) (there bool, err error) {
	// Not ended by ctx: an interrupted statement ends the connection, which is wanted for the goodbye.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatTimeout)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(`UPDATE postern.nodes SET seen = clock_timestamp(), epoch = $3, applied = $4, refused = $5, keys = $6, cache = $7, leaving = $8 WHERE name = $1 AND boot = $2`,
		p.name, p.boot, r.at.epoch, r.at.version, append([]string{}, r.refused...), p.keys.IDs(), p.cache(), p.here().Leaving).
		Exec(func(tag pgconn.CommandTag) error { there = tag.RowsAffected() == 1; return nil })
	if news && r.at.epoch != "" {
		b.Queue(`INSERT INTO postern.applied (node, epoch, version, at, refused)
			SELECT name, epoch, applied, clock_timestamp(), CASE WHEN cardinality(refused) > $3 THEN ARRAY[$4] ELSE refused END FROM postern.nodes WHERE name = $1 AND boot = $2
			ON CONFLICT (node, epoch, version) DO UPDATE SET at = excluded.at, refused = excluded.refused WHERE applied.refused <> excluded.refused`,
			p.name, p.boot, maxRefusedKept, everyTenant)
	}
	return there, conn.SendBatch(ctx, b).Close()
}

// retake announces a node whose row is not its own any more. Whoever follows the store says soon again what was reached.
func (p *presence) retake(ctx context.Context, conn *pgx.Conn) error {
	var taken bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM postern.nodes WHERE name = $1)`, p.name).Scan(&taken); err != nil {
		return err
	}
	if taken {
		other := fmt.Sprintf("%s-%s", p.name, p.boot[:6])
		p.log.Error("another process follows the store under the name of this node, which takes another one: set cluster.name, or tenants.postgres.node where there is no cluster", "name", p.name, "now", other)
		p.name = other
	} else {
		p.log.Warn("this node was forgotten by the store: it announces itself anew", "name", p.name)
	}
	return p.announce(ctx, conn)
}

// goodbye says that the node does not serve any more.
func (p *presence) goodbye(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWithin)
	defer cancel()
	if err := p.exec(ctx, conn, `DELETE FROM postern.nodes WHERE name = $1 AND boot = $2`, p.name, p.boot); err != nil {
		p.log.Warn("the store was not told that this node has ended: it will be waited for", "node", p.name, "error", err)
	}
}

func (p *presence) exec(ctx context.Context, conn *pgx.Conn, sql string, args ...any) error {
	_, err := conn.Exec(ctx, sql, args...)
	return err
}
