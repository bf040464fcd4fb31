// Having a client of a pool land on another server with every transaction.

package harness

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
)

// Movers is how many clients a Mover has, so how many servers it may hold at a time beside those that are in use: the pool must
// have room for that.
const Movers = 2

// A Mover is what else goes on at a database while clients use it through a pool. Before a transaction of one of them it
// begins one itself on the server which that client used last, so that the pool must lend another; it learns which one that
// was from PostgreSQL, not from the pool. It may also change something on the server itself before whatever is said.
type Mover struct {
	// Meddling, if any, is run on the server itself before each step.
	Meddling string

	gate     *pgx.ConnConfig
	observer *pgx.Conn

	mu      sync.Mutex
	clients []*movingClient
	whose   map[any]*moved
	moves   Moves
}

// Moves are the transactions, but for each client's first, for which it is known where they ran: all; those for which the
// mover held the server of the one before; and those that ran on another server than the one before.
type Moves struct{ All, Held, Moved int }

// movingClient is a client of the mover's own, through the pool.
type movingClient struct {
	conn *pgx.Conn
	on   uint32 // pid of the server on which it is in a transaction; 0: none
}

// moved is what is known of a client.
type moved struct {
	last  uint32    // pid of the server of its last transaction; 0: unknown
	held  bool      // by a client of ours, while this one's transaction ran
	since time.Time // when it began what is measured, by PostgreSQL's clock
}

// Meddling is a [Mover]'s that changes what all plans of a database depend on (its schemas), and nothing that can be seen.
const Meddling = "alter schema meddling rename to meddling_; alter schema meddling_ rename to meddling"

// NewMover makes a mover of the clients of user, with a pool behind address, and a database in which nobody else works.
func NewMover(t testing.TB, c *local.Cluster, address, user, database string) *Mover {
	t.Helper()
	observer, err := c.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	m := &Mover{observer: observer, whose: make(map[any]*moved)}
	if m.gate, err = pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", user, AppPassword, address, database)); err != nil {
		t.Fatal(err)
	}
	if _, err := observer.Exec(t.Context(), "create schema if not exists meddling"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		observer.Close(context.Background())
		for _, client := range m.clients {
			client.conn.Close(context.Background())
		}
	})
	return m
}

// Before is called before a client says something; between means that it begins a transaction.
func (m *Mover) Before(ctx context.Context, who any, between bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Meddling != "" {
		if _, err := m.observer.PgConn().Exec(ctx, m.Meddling).ReadAll(); err != nil {
			return err
		}
	}
	if !between {
		return nil
	}
	w := m.whose[who]
	if w == nil {
		w = new(moved)
		m.whose[who] = w
	}
	var err error
	if w.last != 0 {
		if w.held, err = m.hold(ctx, w.last); err != nil {
			return err
		}
	}
	return m.observer.QueryRow(ctx, "select clock_timestamp()").Scan(&w.since)
}

// After is called when a client has heard that its transaction is over.
func (m *Mover) After(ctx context.Context, who any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.whose[who]
	if w == nil || w.since.IsZero() {
		return nil
	}
	held := []uint32{}
	for _, c := range m.clients {
		held = append(held, c.on)
	}
	rows, err := m.observer.Query(ctx, `select pid from pg_stat_get_activity(null)
		where datid = (select oid from pg_database where datname = current_database()) and usesysid = $1::regrole and state_change > $2 and not pid = any($3)
		order by state_change desc limit 1`, App, w.since, held)
	if err != nil {
		return err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil || len(pids) == 0 { // the pool has answered by itself
		return err
	}
	if w.last != 0 {
		m.moves.All++
		if w.held {
			m.moves.Held++
		}
		if w.last != pids[0] {
			m.moves.Moved++
		}
	}
	w.last, w.since = pids[0], time.Time{}
	return nil
}

// Forget ends what the mover's clients do, forgets all others, and returns how they were moved.
func (m *Mover) Forget(ctx context.Context) (Moves, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	moves := m.moves
	m.moves = Moves{}
	clear(m.whose)
	return moves, m.release(ctx, 0)
}

// hold has one of the mover's clients be in a transaction on a server, and the others in none. It cannot if that server is
// somebody's, or has gone.
func (m *Mover) hold(ctx context.Context, pid uint32) (bool, error) {
	held := func() bool {
		return slices.ContainsFunc(m.clients, func(c *movingClient) bool { return c.on == pid })
	}
	for !held() {
		c, err := m.free(ctx)
		if err != nil {
			return false, err
		}
		if c == nil {
			break
		}
		if err := c.begin(ctx); err != nil {
			return false, err
		}
	}
	return held(), m.release(ctx, pid)
}

// free is a client in no transaction, nil if all are in one.
func (m *Mover) free(ctx context.Context) (*movingClient, error) {
	for _, c := range m.clients {
		if c.on == 0 {
			return c, nil
		}
	}
	if len(m.clients) == Movers {
		return nil, nil
	}
	conn, err := pgx.ConnectConfig(ctx, m.gate)
	if err != nil {
		return nil, err
	}
	c := &movingClient{conn: conn}
	m.clients = append(m.clients, c)
	return c, nil
}

func (c *movingClient) begin(ctx context.Context) error {
	results, err := c.conn.PgConn().Exec(ctx, "begin; select pg_backend_pid()").ReadAll()
	if err != nil {
		return err
	}
	pid, err := strconv.ParseUint(string(results[1].Rows[0][0]), 10, 32)
	c.on = uint32(pid)
	return err
}

// release ends the transactions on all servers but one.
func (m *Mover) release(ctx context.Context, but uint32) error {
	for _, c := range m.clients {
		if c.on == 0 || c.on == but {
			continue
		}
		if _, err := c.conn.PgConn().Exec(ctx, "commit").ReadAll(); err != nil {
			return err
		}
		c.on = 0
	}
	return nil
}
