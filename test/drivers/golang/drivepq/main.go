// Drivepq drives lib/pq through database/sql: its prepared statements are called 1, 2, ...; queries with values use the
// unnamed one, parsed in one round and bound in the next.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/lib/pq"

	. "github.com/postern/postern/test/drivers/golang/checks"
)

// ctx bounds nothing: the test ends a program that takes too long.
var ctx = context.Background()

// A driver makes the checks.
type driver struct{ target Target }

func main() {
	d := driver{ReadTarget()}
	var l List
	l.Add("connect", d.connect)
	l.Add("prepared", d.prepared)
	l.Add("prepared_equal", func() { d.byTwo(Plus, Plus) })
	l.Add("prepared_different", func() { d.byTwo(Plus, Times) })
	l.Add("prepared_closed", d.closed)
	l.Add("prepared_error", d.preparedError)
	l.Add("unnamed", d.unnamed)
	l.Add("transaction", d.transaction)
	l.Add("error", d.failure)
	l.Add("copy_in", d.copyIn)
	l.Add("cancel", d.cancel)
	l.Add("notice", d.notice)
	l.Add("large", d.large)
	l.Add("parameters", d.parameters)
	l.Add("cursor", d.cursor)
	l.Add("driver_pool", d.driverPool)
	if d.target.TLS {
		l.Add("tls_stranger", d.stranger)
	}
	l.Run()
}

// database is a pool of the driver's, of any number of connections.
func (d driver) database() *sql.DB {
	return sql.OpenDB(Got(pq.NewConnector(d.target.DSN(d.target.CA))))
}

// session is one connection, and what ends it.
func (d driver) session() (*sql.Conn, func()) {
	db := d.database()
	c := Got(db.Conn(ctx))
	return c, func() {
		c.Close() // or the pool's own end would leave it open
		db.Close()
	}
}

func do(c *sql.Conn, text string) { Got(c.ExecContext(ctx, text)) }

func integer(c *sql.Conn, text string, values ...any) (n int) {
	Must(c.QueryRowContext(ctx, text, values...).Scan(&n))
	return n
}

// pair executes a statement for a value and the server's process.
func pair(s *sql.Stmt, n int) (value, pid int) {
	Must(s.QueryRowContext(ctx, n).Scan(&value, &pid))
	return value, pid
}

func fails(err error, sqlstate string) *pq.Error {
	var e *pq.Error
	if !errors.As(err, &e) || string(e.Code) != sqlstate {
		panic(fmt.Errorf("got %w, want %s", err, sqlstate))
	}
	return e
}

func (d driver) connect() {
	c, end := d.session()
	defer end()
	var who, where string
	Must(c.QueryRowContext(ctx, "select current_user, current_database()").Scan(&who, &where))
	Same([]string{who, where}, []string{"app", d.target.Database})
}

func (d driver) stranger() {
	db := sql.OpenDB(Got(pq.NewConnector(d.target.DSN(d.target.Stranger))))
	defer db.Close()
	err := db.PingContext(ctx)
	Same(err != nil && strings.Contains(err.Error(), "certificate signed by unknown authority"), true)
}

func (d driver) prepared() {
	c, end := d.session()
	defer end()
	holder, endHolder := d.session()
	defer endHolder()
	s := Got(c.PrepareContext(ctx, Plus))
	var pids []int
	for n := range 6 {
		value, pid := pair(s, n)
		Same(value, n+1)
		do(holder, "begin") // on the server that was used last
		again, other := pair(s, -n)
		Same(again, 1-n)
		do(holder, "rollback")
		pids = append(pids, pid, other)
	}
	d.target.Lands(pids...)
	if d.target.Mode == "direct" {
		Same(integer(c, "select count(*) from pg_prepared_statements where statement like 'select $1::int + 1%'"), 1)
	}
}

func (d driver) byTwo(mine, theirs string) {
	one, endOne := d.session()
	defer endOne()
	other, endOther := d.session()
	defer endOther()
	holder, endHolder := d.session()
	defer endHolder()
	s, o := Got(one.PrepareContext(ctx, mine)), Got(other.PrepareContext(ctx, theirs))
	check := func(s *sql.Stmt, text string, n int) {
		value, _ := pair(s, n)
		Same(value, map[string]int{Plus: n + 1, Times: n * 10}[text])
	}
	for n := range 5 {
		check(s, mine, n)
		check(o, theirs, n)
		do(holder, "begin")
		check(o, theirs, n)
		check(s, mine, n)
		do(holder, "rollback")
	}
}

func (d driver) closed() {
	c, end := d.session()
	defer end()
	for n := range 6 {
		s := Got(c.PrepareContext(ctx, Plus))
		value, _ := pair(s, n)
		Same(value, n+1)
		Must(s.Close())
	}
}

func (d driver) preparedError() {
	c, end := d.session()
	defer end()
	s := Got(c.PrepareContext(ctx, "select 1 / $1::int"))
	for range 3 {
		Got(s.ExecContext(ctx, 1))
		_, err := s.ExecContext(ctx, 0)
		fails(err, "22012")
		_, err = c.PrepareContext(ctx, "select nothing, $1::int")
		fails(err, "42703")
	}
}

func (d driver) unnamed() {
	c, end := d.session()
	defer end()
	for n := range 5 {
		Same(integer(c, "select $1::int + 1", n), n+1)
	}
}

func (d driver) transaction() {
	c, end := d.session()
	defer end()
	do(c, "drop table if exists tx; create table tx(a int)")
	tx := Got(c.BeginTx(ctx, nil))
	Got(tx.ExecContext(ctx, "insert into tx values ($1)", 1))
	Must(tx.Rollback())
	tx = Got(c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable}))
	Got(tx.ExecContext(ctx, "insert into tx values ($1)", 2))
	Got(tx.ExecContext(ctx, "savepoint s"))
	Got(tx.ExecContext(ctx, "insert into tx values ($1)", 3))
	_, err := tx.ExecContext(ctx, "select 1/$1::int", 0)
	fails(err, "22012")
	Got(tx.ExecContext(ctx, "rollback to savepoint s"))
	Got(tx.ExecContext(ctx, "insert into tx values ($1)", 4))
	Must(tx.Commit())
	Same(integer(c, "select sum(a) from tx"), 6)
}

func (d driver) failure() {
	c, end := d.session()
	defer end()
	do(c, "drop table if exists err; create table err(a int constraint err_key primary key); insert into err values (1)")
	_, err := c.ExecContext(ctx, "insert into err values ($1)", 1)
	Same(fails(err, "23505").Constraint, "err_key")
	_, err = c.ExecContext(ctx, "selec 1")
	fails(err, "42601")
	tx := Got(c.BeginTx(ctx, nil))
	_, err = tx.ExecContext(ctx, "select 1/$1::int", 0)
	fails(err, "22012")
	_, err = tx.ExecContext(ctx, "select 1")
	fails(err, "25P02")
	Must(tx.Rollback())
	Same(integer(c, "select 1"), 1)
}

func (d driver) copyIn() {
	c, end := d.session()
	defer end()
	do(c, "drop table if exists copied; create table copied(a int, b text)")
	tx := Got(c.BeginTx(ctx, nil))
	s := Got(tx.PrepareContext(ctx, "copy copied (a, b) from stdin"))
	for n := range 20000 {
		Got(s.ExecContext(ctx, n, fmt.Sprint("row ", n)))
	}
	Got(s.ExecContext(ctx))
	Must(s.Close())
	Must(tx.Commit())
	Same(integer(c, "select sum(a) from copied"), 199990000)
}

func (d driver) cancel() {
	c, end := d.session()
	defer end()
	observer, endObserver := d.session()
	defer endObserver()
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err := c.ExecContext(running, CancelMe)
		ended <- err
	}()
	Until(func() bool { return integer(observer, Running) == 1 })
	stop()
	fails(<-ended, "57014")
	Same(integer(observer, Running), 0)
}

func (d driver) notice() {
	var seen []string
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(Got(pq.NewConnector(d.target.DSN(d.target.CA))), func(n *pq.Error) { seen = append(seen, n.Message) }))
	defer db.Close()
	Got(db.ExecContext(ctx, Notice))
	Same(seen, []string{"look out"})
}

func (d driver) large() {
	c, end := d.session()
	defer end()
	rows := Got(c.QueryContext(ctx, LargeRows))
	size := 0
	for rows.Next() {
		var n int
		var text string
		Must(rows.Scan(&n, &text))
		size += len(text)
	}
	Must(rows.Err())
	Same(size, 5000000)
	var value string
	Must(c.QueryRowContext(ctx, "select repeat('y', $1::int)", 8*Megabyte).Scan(&value))
	Same(len(value), 8*Megabyte)
	Same(integer(c, "select length($1::text)", strings.Repeat("z", 4*Megabyte)), 4*Megabyte)
}

func (d driver) parameters() {
	c, end := d.session()
	defer end()
	var (
		null sql.NullString
		str  string
		b    []byte
		i    int64
		f    float64
		list pq.Int64Array
	)
	Must(c.QueryRowContext(ctx, "select $1::text, $2::text, $3::bytea, $4::int8, $5::float8, $6::int[]", nil, Text, EveryByte(), int64(-1<<63), 0.1,
		pq.Array([]int64{1, 3})).Scan(&null, &str, &b, &i, &f, &list))
	Same([]any{null.Valid, str, b, i, f, list}, []any{false, Text, EveryByte(), int64(-1 << 63), 0.1, pq.Int64Array{1, 3}})
}

func (d driver) cursor() {
	c, end := d.session()
	defer end()
	tx := Got(c.BeginTx(ctx, nil))
	Got(tx.ExecContext(ctx, "declare part cursor for select generate_series(1, 1000)"))
	sum, more := 0, true
	for more {
		rows := Got(tx.QueryContext(ctx, "fetch 100 from part"))
		for more = false; rows.Next(); more = true {
			var n int
			Must(rows.Scan(&n))
			sum += n
		}
		Must(rows.Err())
	}
	Must(tx.Commit())
	Same(sum, 500500)
}

// driverPool has database/sql prepare one statement on whichever connections it opens.
func (d driver) driverPool() {
	db := d.database()
	defer db.Close()
	db.SetMaxOpenConns(4)
	s := Got(db.PrepareContext(ctx, "select $1::int + 1"))
	ended := make(chan error, 20)
	for n := range 20 {
		go func() {
			var value int
			err := s.QueryRowContext(ctx, n).Scan(&value)
			if err == nil && value != n+1 {
				err = fmt.Errorf("got %d, want %d", value, n+1)
			}
			ended <- err
		}()
	}
	for range 20 {
		Must(<-ended)
	}
}
