// Following the store: one goroutine with one connection, which listens, reads what is new, and puts it in force.

package postgres

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Watch follows the store until ctx ends. Call it once.
func (s *Store) Watch(ctx context.Context) {
	defer close(s.ended)
	defer s.cache.close(s.snapshot)
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { s.watchKeys(ctx) })
	reading.Go(func() { s.bans.watch(ctx) })
	pause := firstPause
	for told := false; ; {
		err := s.follow(ctx, func() { pause, told = firstPause, false })
		if ctx.Err() != nil {
			return
		}
		s.confirmed(err)
		answer(s.questions(), err)
		if !told {
			s.opts.Log.Error("the store of tenants is away: what is known goes on", "error", err)
			told = true // of this absence
		}
		if s.opts.Directory.Filling() { // the store went away before all was read
			if err := s.fromCache(); err == nil {
				s.opts.Directory.SetFilling(false)
			}
		}
		if !sleep(ctx, pauseBefore(pause)) {
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// follow does so for as long as its connections last: one that listens and reads, and one that says meanwhile how this node is.
// Either ends with the other, so that what is told as read was read from where it is told. reached is called when everything is
// read.
func (s *Store) follow(ctx context.Context, reached func()) error {
	l := &listener{}
	conf := s.opts.Conn.Copy()
	conf.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { l.noted.Store(true) }
	conn, err := listen(ctx, conf, "postern_tenants") // before anything is read: nothing falls between
	if err != nil {
		return err
	}
	defer closeConn(conn)
	s.reached.Store(true)
	l.conn = conn
	teller, err := connect(ctx, s.opts.Conn)
	if err != nil {
		return err
	}
	defer closeConn(teller)
	if err := s.node.announce(ctx, teller); err != nil {
		return err
	}
	both, end := context.WithCancelCause(ctx)
	var attending sync.WaitGroup
	attending.Go(func() {
		end(s.node.attend(both, teller))
		if ctx.Err() != nil {
			s.node.goodbye(teller)
		}
	})
	err = s.read(both, l, reached)
	end(err)
	attending.Wait()
	return context.Cause(both)
}

// read puts in force what is there and what comes, until ctx ends.
func (s *Store) read(ctx context.Context, l *listener, reached func()) error {
	var compared time.Time
	for {
		asked := s.questions()
		compare := len(asked) > 0 || time.Since(compared) >= compareEvery
		l.noted.Store(false)
		err := s.sync(ctx, l.conn, compare)
		if compare {
			s.compared(err)
			compared = time.Now()
			answer(asked, err)
		}
		if err != nil {
			return err
		}
		s.confirmed(nil)
		s.node.reach(s.mirror.at(), s.bad)
		reached()
		s.cache.offer(s.snapshot)
		if err := l.await(ctx, s.beat); err != nil {
			return err
		}
	}
}

// listener notes that there was a notification. What it says is not kept: what is new is asked for, and one question is enough for
// all notifications that have come before the answer.
type listener struct {
	conn  *pgx.Conn
	noted atomic.Bool
}

// await returns when there may be something to read.
func (l *listener) await(ctx context.Context, beat time.Duration) error {
	if l.noted.Load() { // while the last was read
		return nil
	}
	bound, cancel := context.WithTimeout(ctx, beat)
	defer cancel()
	err := l.conn.PgConn().WaitForNotification(bound)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil || pgconn.Timeout(err) {
		return nil
	}
	return err
}

// sync reads what has to be read and puts it in force.
func (s *Store) sync(ctx context.Context, conn *pgx.Conn, compare bool) error {
	h, err := bounded(ctx, answerTimeout, func(ctx context.Context) (head, error) { return readHead(ctx, conn) })
	if err != nil || s.mirror.next(h, compare) == readNothing {
		return err
	}
	_, err = bounded(ctx, readTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, snapshot(ctx, conn, func(tx pgx.Tx) error {
			h, err := readHead(ctx, tx)
			if err != nil {
				return err
			}
			switch s.mirror.next(h, compare) {
			case readNothing:
				return nil
			case readNewer:
				err = s.readNewer(ctx, tx)
			case readMarks:
				err = s.readDiffering(ctx, tx)
			case readAll:
				err = s.readAll(ctx, tx)
			}
			if err != nil {
				return err
			}
			s.mirror.reached(h)
			s.cache.dirty()
			return nil
		})
	})
	if err == nil && s.opts.Directory.Filling() {
		s.opts.Directory.SetFilling(false)
		s.opts.Log.Info("tenants loaded", "tenants", s.opts.Directory.Len(), "from", "store")
	}
	return err
}

func bounded[T any](ctx context.Context, d time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// readNewer reads what was changed since. With it comes another chance for the rows whose machine another tenant had: it may have
// let go of it.
func (s *Store) readNewer(ctx context.Context, tx pgx.Tx) error {
	b := s.newBatch()
	if err := readRows(ctx, tx, b.take, selectNewer, s.mirror.seen); err != nil {
		return err
	}
	var again []string
	for id, r := range s.bad {
		if r.blocked {
			again = append(again, id)
		}
	}
	if len(again) > 0 {
		if err := readRows(ctx, tx, b.take, selectThese, again); err != nil {
			return err
		}
	}
	b.finish()
	return nil
}

// readAll reads every tenant, each of which is in force as soon as it is read.
func (s *Store) readAll(ctx context.Context, tx pgx.Tx) error {
	b := s.newBatch()
	there := make(map[string]struct{})
	if err := readRows(ctx, tx, func(r row) error {
		there[r.ID] = struct{}{}
		return b.take(r)
	}, selectAll); err != nil {
		return err
	}
	for _, id := range s.mirror.missing(func(id string) bool { _, ok := there[id]; return ok }) {
		b.remove(id)
	}
	b.finish()
	return nil
}

// readDiffering compares all marks, and reads what differs.
func (s *Store) readDiffering(ctx context.Context, tx pgx.Tx) error {
	all := make(map[string]int64)
	rows, err := tx.Query(ctx, `SELECT t.id, coalesce(c.mark, 0) FROM postern.tenants t LEFT JOIN postern.changes c ON c.tenant = t.id`)
	if err != nil {
		return err
	}
	var id string
	var mark int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &mark}, func() error { all[id] = mark; return nil }); err != nil {
		return err
	}
	b := s.newBatch()
	read, gone := s.mirror.differing(all)
	for _, id := range gone {
		b.remove(id)
	}
	for some := range slices.Chunk(read, 1000) {
		if err := readRows(ctx, tx, b.take, selectThese, some); err != nil {
			return err
		}
	}
	b.finish()
	return nil
}
