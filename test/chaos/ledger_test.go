// Load that keeps books: each client moves money in transactions and writes down which were acknowledged.

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

const (
	accounts = 80
	common   = 16   // of them are everybody's, so that clients wait for each other
	opening  = 1000 // of each account
)

// transfer is what a client knows about the end of a transaction.
type transfer uint8

const (
	acknowledged transfer = iota // COMMIT was answered: it is there, once
	refused                      // it is not there
	unknown                      // the connection ended while COMMIT was under way
)

// ledger is what all clients know together.
type ledger struct {
	t       *testing.T
	connect func(ctx context.Context, tag string) (*pgx.Conn, error)
	expects func(tag, what string, err error) bool // whether an error may come of the fault; nil: none may
	think   time.Duration                          // between two transactions of a client
	apart   bool                                   // each client has two accounts of its own, so that nobody waits for anybody's locks

	mu     sync.Mutex
	ends   map[string][]transfer // of each client's transfers, in their order
	errors map[string]int        // by SQLSTATE
	last   map[string]time.Time  // when each client's last transaction was acknowledged
	own    map[string]int        // the first account of each, if they are apart

	lastOK  atomic.Int64 // when a transaction was last acknowledged: Unix nanoseconds
	reached atomic.Int64 // how often a client connected
}

// newLedger makes the tables. direct goes past the gate.
func newLedger(t *testing.T, direct *pgx.Conn, connect func(ctx context.Context, tag string) (*pgx.Conn, error)) *ledger {
	t.Helper()
	run(t, direct, `create table account (id int primary key, balance bigint not null);
		create table transfer (client text, seq int);
		insert into account select id, `+strconv.Itoa(opening)+` from generate_series(1, `+strconv.Itoa(accounts)+`) id;
		grant all on account, transfer to `+harness.App)
	return &ledger{t: t, connect: connect, ends: make(map[string][]transfer), errors: make(map[string]int), last: make(map[string]time.Time), own: make(map[string]int)}
}

// work has so many clients at it until ctx ends; what they do then they finish.
func (l *ledger) work(ctx context.Context, clients int) (wait func()) {
	return l.each(clients, func(i int, r *rand.Rand) { l.client(ctx, fmt.Sprintf("c%d", i), r, false) })
}

// churn is the same with clients that connect for each transaction.
func (l *ledger) churn(ctx context.Context, clients int) (wait func()) {
	return l.each(clients, func(i int, r *rand.Rand) { l.client(ctx, fmt.Sprintf("n%d", i), r, true) })
}

func (l *ledger) each(clients int, do func(i int, r *rand.Rand)) (wait func()) {
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { do(i, rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	return all.Wait
}

// client connects as often as it must, or anew for each transfer, and goes on with its next one.
func (l *ledger) client(ctx context.Context, tag string, r *rand.Rand, anew bool) {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for ctx.Err() == nil {
		attempt, stop := context.WithTimeout(patient, harness.Patience)
		conn, err := l.connect(attempt, tag)
		stop()
		if err != nil {
			l.failed(tag, "connecting", err)
			pause(ctx, 50*time.Millisecond)
			continue
		}
		l.reached.Add(1)
		for ctx.Err() == nil && !conn.IsClosed() {
			l.transfer(patient, conn, tag, r)
			if l.think > 0 {
				pause(ctx, l.think)
			}
			if anew {
				break
			}
		}
		goodbye(conn)
	}
}

// transfer is a transaction, and what became of it.
func (l *ledger) transfer(ctx context.Context, conn *pgx.Conn, tag string, r *rand.Rand) {
	ctx, cancel := context.WithTimeout(ctx, 2*harness.Patience)
	defer cancel()
	l.mu.Lock()
	seq := len(l.ends[tag])
	l.ends[tag] = append(l.ends[tag], refused)
	from, to := 1+r.IntN(common), 1+r.IntN(common)
	if l.apart {
		if l.own[tag] == 0 {
			l.own[tag] = 1 + 2*len(l.own)
		}
		from, to = l.own[tag], l.own[tag]+1
	}
	l.mu.Unlock()
	end, what, err := l.try(ctx, conn, tag, seq, from, to)
	l.mu.Lock()
	l.ends[tag][seq] = end
	if err == nil {
		l.last[tag] = time.Now()
	}
	l.mu.Unlock()
	if err != nil {
		l.failed(tag, what, err)
		return
	}
	l.lastOK.Store(time.Now().UnixNano())
}

func (l *ledger) try(ctx context.Context, conn *pgx.Conn, tag string, seq, from, to int) (end transfer, what string, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return refused, "begin", err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	var heard string
	if err := tx.QueryRow(ctx, "select $1::text || current_setting('application_name')", tag+"/").Scan(&heard); err != nil {
		return refused, "select", err
	}
	if heard != tag+"/"+tag {
		l.t.Errorf("%s heard %q", tag, heard)
	}
	if _, err := tx.Exec(ctx, "insert into transfer values ($1, $2)", tag, seq); err != nil {
		return refused, "insert", err
	}
	// In the order of the accounts, so that nobody waits for each other.
	for _, side := range [][2]int{{min(from, to), 1}, {max(from, to), -1}} {
		if _, err := tx.Exec(ctx, "update account set balance = balance + $2 where id = $1", side[0], side[1]); err != nil {
			return refused, "update", err
		}
	}
	switch err := tx.Commit(ctx); {
	case err == nil:
		return acknowledged, "", nil
	case conn.IsClosed():
		return unknown, "commit", err
	default:
		return refused, "commit", err
	}
}

// failed takes note of an error, which the fault must explain.
func (l *ledger) failed(tag, what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[state(err)]++
	if l.expects == nil || !l.expects(tag, what, err) {
		l.t.Errorf("%s, %s: %v", tag, what, err)
	}
}

// check compares what the clients know with what is there.
func (l *ledger) check(t *testing.T, direct *pgx.Conn) {
	t.Helper()
	rows, err := direct.Query(t.Context(), "select client, seq, count(*) from transfer group by 1, 2")
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		client string
		seq    int
	}
	there := make(map[key]int)
	for rows.Next() {
		var k key
		var n int
		if err := rows.Scan(&k.client, &k.seq, &n); err != nil {
			t.Fatal(err)
		}
		there[k] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var counts [3]int
	for client, ends := range l.ends {
		for seq, end := range ends {
			counts[end]++
			n := there[key{client, seq}]
			if n > 1 || end == acknowledged && n == 0 || end == refused && n > 0 {
				t.Errorf("%s's transfer %d, %v, is there %d times", client, seq, end, n)
			}
		}
	}
	if sum := text(t, direct, "select sum(balance) from account"); sum != strconv.Itoa(accounts*opening) {
		t.Errorf("the accounts have %s in all, want %d", sum, accounts*opening)
	}
	if counts[acknowledged] == 0 {
		t.Error("nothing was acknowledged")
	}
	t.Logf("%d acknowledged, %d refused, %d unknown; %d connections; errors %v", counts[acknowledged], counts[refused], counts[unknown], l.reached.Load(), l.errors)
}

func (e transfer) String() string { return [...]string{"acknowledged", "refused", "of unknown end"}[e] }

// since says whether a transaction that was acknowledged began to end after a time.
func (l *ledger) since(at time.Time) func() bool {
	return func() bool { return l.lastOK.Load() > at.UnixNano() }
}

// allSince says whether every one of some clients has had a transaction acknowledged that ended after a time.
func (l *ledger) allSince(at time.Time, which func(tag string) bool) func() bool {
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for tag := range l.ends {
			if which(tag) && !l.last[tag].After(at) {
				return false
			}
		}
		return len(l.ends) > 0
	}
}

// state is the SQLSTATE in an error, or that the network has failed.
func state(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return "network"
}

// oneOf allows errors with these SQLSTATEs; "network" is a connection that ends, or does not come about.
func oneOf(codes ...string) func(error) bool {
	return func(err error) bool {
		for _, code := range codes {
			if state(err) == code {
				return true
			}
		}
		return false
	}
}

// anywhere allows them whoever was doing whatever.
func anywhere(codes ...string) func(tag, what string, err error) bool {
	may := oneOf(codes...)
	return func(_, _ string, err error) bool { return may(err) }
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// goodbye closes a connection; where nobody answers any more it does not wait long.
func goodbye(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// text runs a query of one value and returns it.
func text(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	v, err := tryText(t.Context(), conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func tryText(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

// run runs statements.
func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	text(t, conn, sql)
}
