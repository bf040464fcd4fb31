// lib/pq as a client of the matrix.

package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/postern/postern/test/harness"
)

// visitPQ leaves channel binding out, which lib/pq does not have.
func visitPQ(t *testing.T, v visit) {
	db := openPQ(t, v)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var sum int
	if err := db.QueryRowContext(ctx, "select $1::int + $2::int", 40, 2).Scan(&sum); err != nil || sum != 42 {
		t.Fatalf("parameters: %d, %v", sum, err)
	}
	var pqErr *pq.Error
	if _, err := db.ExecContext(ctx, "select 1/$1::int", 0); !asPQ(err, &pqErr) || pqErr.Code != "22012" {
		t.Fatalf("error: %v", err)
	}
	rows, err := db.QueryContext(ctx, bigQuery)
	if err != nil {
		t.Fatal(err)
	}
	var size int
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		size += len(s)
	}
	if err := rows.Err(); err != nil || size != bigRow*bigRows {
		t.Fatalf("large result: %d bytes, %v", size, err)
	}
	if v.mode == "statement" {
		return
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	table := harness.Unique("pq")
	if _, err := tx.ExecContext(ctx, "create table "+table+"(a int, b text)"); err != nil {
		t.Fatal(err)
	}
	pqCopy(ctx, t, tx, table)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if v.mode == "session" {
		pqCopyInSession(ctx, t, db)
	}
}

func openPQ(t *testing.T, v visit) *sql.DB {
	t.Helper()
	connector, err := pq.NewConnector(v.goDSN("channel_binding"))
	if err != nil {
		t.Fatal(err)
	}
	connector.Dialer(loopback{})
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// pqQuerier is a transaction or a connection of database/sql.
type pqQuerier interface {
	PrepareContext(context.Context, string) (*sql.Stmt, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

// pqCopy copies a hundred rows into a table and looks at half of them.
func pqCopy(ctx context.Context, t *testing.T, q pqQuerier, table string) {
	t.Helper()
	stmt, err := q.PrepareContext(ctx, pq.CopyIn(table, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := stmt.ExecContext(ctx, i, fmt.Sprint("row ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stmt.ExecContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := stmt.Close(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := q.QueryRowContext(ctx, "select count(*) from "+table+" where a < $1", 50).Scan(&n); err != nil || n != 50 {
		t.Fatalf("copied %d, %v", n, err)
	}
}

// pqCopyInSession copies without a transaction of database/sql. lib/pq itself refuses to copy while the server says that
// no transaction is open; what it can do is to send the COPY as any other statement, which leaves the session in the
// middle of one. The gate must close the server then, and the next session must know nothing of it.
func pqCopyInSession(ctx context.Context, t *testing.T, db *sql.DB) {
	t.Helper()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	do := func(statement string) {
		t.Helper()
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	table := harness.Unique("pqsession")
	do("create table " + table + "(a int, b text)")
	if _, err := conn.PrepareContext(ctx, pq.CopyIn(table, "a", "b")); err == nil || !strings.Contains(err.Error(), "only allowed inside a transaction") {
		t.Errorf("COPY outside of transactions: %v", err)
	}
	do("begin")
	pqCopy(ctx, t, conn, table)
	do("commit")
	if _, err := conn.ExecContext(ctx, "copy "+table+" from stdin"); err == nil {
		t.Error("a COPY in the middle of which nothing came is said to have worked")
	}
	conn.Close()
	var n int
	if err := db.QueryRowContext(ctx, "select count(*) from "+table).Scan(&n); err != nil || n != 100 {
		t.Errorf("the next session sees %d rows, %v", n, err)
	}
	if _, err := db.ExecContext(ctx, "drop table "+table); err != nil {
		t.Error(err)
	}
}

// visitPQWithoutALPN is refused: lib/pq's direct TLS names no protocol, and so might be meant for another service that has
// the same certificate. Postgres refuses it as well.
func visitPQWithoutALPN(t *testing.T, v visit) {
	refused := func() float64 { return v.g.metric("postern_refusals_total", "reason", "startup") }
	before := refused()
	if err := openPQ(t, v).PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
		t.Errorf("got %v, want an alert", err)
	}
	harness.Eventually(t, harness.Patience, "the refusal is counted", func() bool { return refused() > before })
}

func asPQ(err error, target **pq.Error) bool {
	e, ok := err.(*pq.Error)
	*target = e
	return ok
}

// loopback is a dialer of lib/pq that finds localhost at 127.0.0.1 only.
type loopback struct{}

func (loopback) Dial(network, address string) (net.Conn, error) {
	return loopback{}.DialTimeout(network, address, harness.Patience)
}

func (loopback) DialTimeout(_, address string, limit time.Duration) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", port), limit)
}
