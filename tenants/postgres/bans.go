// Bans between nodes: what begins or ends here is written to the store, and what others have written there holds here.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/netrestrict"
)

// Strangers can cause bans, so the store must not feel how many: a node writes so many rows in one go, with a pause after it, and what
// is more than the store holds of a tenant holds on its node alone.
const (
	banBatch      = 50
	banPause      = 250 * time.Millisecond
	maxBanNews    = 2048
	maxTenantBans = 200 // but for manual ones, of which there are netrestrict.MaxManual
	maxBans       = 1 << 16
	maxNotedBans  = 1000 // above it all are read
	compareBans   = time.Minute
	pingBans      = 5 * time.Second
)

// bans is what this node tells of bans, and hears. Its own goroutine and connection have nothing to do with the feed.
type bans struct {
	conn  *pgx.ConnConfig
	node  string
	log   *slog.Logger
	apply func(netrestrict.Ban) // nil: bans are nobody's here

	mu   sync.Mutex // guards what follows; held briefly
	news map[banKey]banNews
	poke chan struct{} // holds one if there is news

	// Of watch, and everything that it calls.
	known map[banKey]time.Time // bans that the store had, until when
	noted map[banKey]bool      // bans that were written since they were looked at
	wrote time.Time
}

type banKey struct {
	tenant string
	net    netip.Prefix
}

// banNews is something that the store was not told yet.
type banNews struct {
	netrestrict.Ban
	until time.Time // zero: it is over
}

// urgent news are not caused by strangers.
func (n banNews) urgent() bool { return n.Manual || n.until.IsZero() }

func newBans(o *Options) *bans {
	return &bans{conn: o.Conn, node: o.Node, log: o.Log, apply: o.ApplyBan, news: make(map[banKey]banNews), poke: make(chan struct{}, 1),
		known: make(map[banKey]time.Time), noted: make(map[banKey]bool)}
}

// TellBan has other nodes told of a ban that has begun here or, with nothing left of it, is over. It returns at once.
func (s *Store) TellBan(b netrestrict.Ban) { s.bans.tell(b, time.Now()) }

func (b *bans) tell(ban netrestrict.Ban, now time.Time) {
	if b.apply == nil {
		return
	}
	n := banNews{Ban: ban}
	if ban.Left > 0 {
		n.until = now.Add(ban.Left)
	}
	b.put(banKey{ban.Tenant, ban.Address}, n)
	select {
	case b.poke <- struct{}{}:
	default:
	}
}

// put keeps news. Where there is too much of it, what strangers have caused is left out.
func (b *bans) put(key banKey, n banNews) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.news[key]; !there && len(b.news) >= maxBanNews {
		if !n.urgent() {
			return
		}
		for other, o := range b.news {
			if !o.urgent() {
				delete(b.news, other)
				break
			}
		}
	}
	b.news[key] = n
}

// take takes some news, what is urgent first.
func (b *bans) take(now time.Time) map[banKey]banNews {
	b.mu.Lock()
	defer b.mu.Unlock()
	some := make(map[banKey]banNews)
	for _, urgent := range []bool{true, false} {
		for key, n := range b.news {
			if n.urgent() != urgent || len(some) == banBatch {
				continue
			}
			delete(b.news, key)
			if n.until.IsZero() || n.until.After(now) {
				some[key] = n
			}
		}
	}
	return some
}

// back puts news back that could not be told.
func (b *bans) back(some map[banKey]banNews) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, n := range some {
		if _, newer := b.news[key]; !newer {
			b.news[key] = n
		}
	}
}

// untold reports whether there is news about a ban, which is newer than what the store has.
func (b *bans) untold(key banKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.news[key]
	return ok
}

func (b *bans) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.news)
}

// watch tells and hears until ctx ends. While the store is away bans hold where they are, and what is still news then is told later.
func (b *bans) watch(ctx context.Context) {
	if b.apply == nil {
		return
	}
	pause := firstPause
	for told := false; ; {
		err := b.follow(ctx, func() { pause, told = firstPause, false })
		if ctx.Err() != nil {
			return
		}
		if !told {
			b.log.Warn("bans are not shared with other nodes for now", "error", err)
			told = true
		}
		if !sleep(ctx, pauseBefore(pause)) {
			return
		}
		pause = min(2*pause, longestOther)
	}
}

// follow does so for as long as one connection lasts. reached is called when everything was read.
func (b *bans) follow(ctx context.Context, reached func()) error {
	conf := b.conn.Copy()
	conf.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { b.note(n.Payload) }
	conn, err := listen(ctx, conf, "postern_bans") // before anything is read: nothing falls between
	if err != nil {
		return err
	}
	defer closeConn(conn)
	var compared time.Time
	for {
		_, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) {
			if err := b.flush(ctx, conn); err != nil {
				return struct{}{}, err
			}
			if len(b.noted) > maxNotedBans || time.Since(compared) >= compareBans {
				compared = time.Now()
				return struct{}{}, b.readAll(ctx, conn)
			}
			return struct{}{}, b.readNoted(ctx, conn)
		})
		if err != nil {
			return err
		}
		reached()
		if err := b.await(ctx, conn); err != nil {
			return err
		}
	}
}

// note remembers which ban was written. What is not a ban's name has all looked at.
func (b *bans) note(payload string) {
	tenant, text, _ := strings.Cut(payload, " ")
	if net, err := netip.ParsePrefix(text); err == nil {
		b.noted[banKey{tenant, net}] = true
	}
}

// await returns when there may be something to do.
func (b *bans) await(ctx context.Context, conn *pgx.Conn) error {
	if len(b.noted) > 0 { // while others were read
		return nil
	}
	patience, quiet := banPause-time.Since(b.wrote), b.waiting() == 0
	if quiet {
		patience = pingBans
	}
	bound, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if quiet {
		go func() {
			select {
			case <-b.poke:
				cancel()
			case <-bound.Done():
			}
		}()
	}
	err := conn.PgConn().WaitForNotification(bound)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case quiet && errors.Is(bound.Err(), context.DeadlineExceeded):
		_, err = bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, conn.Ping(ctx) })
		return err
	case bound.Err() != nil:
		return nil
	}
	return err
}

// The statements of who writes. Rows go in one order, so that no two nodes wait for each other.
const (
	deleteExpired = `DELETE FROM postern.bans WHERE (tenant, address) IN
		(SELECT tenant, address FROM postern.bans WHERE until <= clock_timestamp() ORDER BY until LIMIT 500 FOR UPDATE SKIP LOCKED)`
	deleteBans = `DELETE FROM postern.bans WHERE (tenant, address) IN
		(SELECT b.tenant, b.address FROM postern.bans b JOIN unnest($1::text[], $2::text[]) k (tenant, address) ON b.tenant = k.tenant AND b.address = k.address::cidr
			ORDER BY 1, 2 FOR UPDATE)`
	// What is there already needs no room.
	insertBans = `INSERT INTO postern.bans AS b (tenant, address, until, failures, manual, made_by)
		SELECT tenant, address, clock_timestamp() + ms * interval '1 ms', failures, manual, $6::text FROM (
			SELECT *, row_number() OVER (PARTITION BY tenant, manual, there) AS nth FROM (
				SELECT tenant, address::cidr, ms, failures, manual, EXISTS (SELECT FROM postern.bans x
					WHERE x.tenant = k.tenant AND x.address = k.address::cidr AND (x.manual OR NOT k.manual)) AS there
				FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[], $5::bool[]) k (tenant, address, ms, failures, manual)) k) k
		WHERE (tenant = '' OR EXISTS (SELECT FROM postern.tenants t WHERE t.id = k.tenant)) AND (there OR
			nth + (SELECT count(*) FROM postern.bans x WHERE x.tenant = k.tenant AND x.manual = k.manual) <= CASE WHEN manual THEN $7::bigint ELSE $8 END)
		ORDER BY 1, 2
		ON CONFLICT (tenant, address) DO UPDATE SET until = greatest(b.until, excluded.until), failures = greatest(b.failures, excluded.failures),
			manual = b.manual OR excluded.manual, made_by = excluded.made_by`
)

// flush writes some news, and whoever writes deletes what is over.
func (b *bans) flush(ctx context.Context, conn *pgx.Conn) error {
	if b.waiting() == 0 || time.Since(b.wrote) < banPause {
		return nil
	}
	now := time.Now()
	some := b.take(now)
	if len(some) == 0 {
		return nil
	}
	b.wrote = now
	var over, begun struct{ tenants, nets []string }
	var left []int64
	var failures []int32
	var manual []bool
	for key, n := range some {
		to := &begun
		if n.until.IsZero() {
			to = &over
		} else {
			left, failures, manual = append(left, n.until.Sub(now).Milliseconds()), append(failures, int32(n.Failures)), append(manual, n.Manual)
		}
		to.tenants, to.nets = append(to.tenants, key.tenant), append(to.nets, key.net.String())
	}
	work := &pgx.Batch{} // which is a transaction
	work.Queue(deleteExpired)
	work.Queue(deleteBans, over.tenants, over.nets)
	work.Queue(insertBans, begun.tenants, begun.nets, left, failures, manual, b.node, netrestrict.MaxManual, maxTenantBans)
	if err := conn.SendBatch(ctx, work).Close(); err != nil {
		b.back(some)
		return fmt.Errorf("telling the store of bans: %w", err)
	}
	return nil
}

// columnsOfBans are a ban's, of the alias b.
const columnsOfBans = `b.tenant, b.address::text, ceil(1000 * extract(epoch FROM least(b.until, clock_timestamp() + interval '31 days') - clock_timestamp()))::bigint, b.failures, b.manual`

// readNoted looks at what was written.
func (b *bans) readNoted(ctx context.Context, conn *pgx.Conn) error {
	if len(b.noted) == 0 {
		return nil
	}
	asked := b.noted
	b.noted = make(map[banKey]bool)
	var ids, nets []string
	for key := range asked {
		ids, nets = append(ids, key.tenant), append(nets, key.net.String())
	}
	there, err := readBans(ctx, conn, `SELECT `+columnsOfBans+` FROM postern.bans b JOIN unnest($1::text[], $2::text[]) k (tenant, address)
		ON b.tenant = k.tenant AND b.address = k.address::cidr WHERE b.until > clock_timestamp()`, ids, nets)
	if err != nil {
		maps.Copy(b.noted, asked)
		return err
	}
	for key := range asked {
		b.hear(key, there[key])
	}
	return nil
}

// readAll looks at all that there is.
func (b *bans) readAll(ctx context.Context, conn *pgx.Conn) error {
	clear(b.noted)
	there, err := readBans(ctx, conn, `SELECT `+columnsOfBans+` FROM postern.bans b WHERE b.until > clock_timestamp() ORDER BY b.manual DESC, b.until DESC LIMIT $1`, maxBans)
	if err != nil {
		return err
	}
	for key, until := range b.known {
		if _, ok := there[key]; !ok {
			if until.After(time.Now()) {
				b.hear(key, netrestrict.Ban{})
			}
			delete(b.known, key)
		}
	}
	for key, ban := range there {
		b.hear(key, ban)
	}
	return nil
}

// hear has a ban hold as the store has it, or end if the store does not have it.
func (b *bans) hear(key banKey, ban netrestrict.Ban) {
	if b.untold(key) {
		return
	}
	ban.Tenant, ban.Address = key.tenant, key.net
	if ban.Left > 0 {
		b.known[key] = time.Now().Add(ban.Left)
	} else {
		delete(b.known, key)
	}
	b.apply(ban)
}

func readBans(ctx context.Context, conn *pgx.Conn, sql string, args ...any) (map[banKey]netrestrict.Ban, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	out := make(map[banKey]netrestrict.Ban)
	var ban netrestrict.Ban
	var address string
	var left int64
	_, err = pgx.ForEachRow(rows, []any{&ban.Tenant, &address, &left, &ban.Failures, &ban.Manual}, func() (err error) {
		if ban.Address, err = netip.ParsePrefix(address); err == nil {
			ban.Left = time.Duration(left) * time.Millisecond
			out[banKey{ban.Tenant, ban.Address}] = ban
		}
		return err
	})
	return out, err
}
