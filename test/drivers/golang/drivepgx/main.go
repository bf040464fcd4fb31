// Drivepgx drives pgx as it is by default: every query is a named statement, called after a hash of its text.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	l.Add("prepared_automatically", d.automatically)
	l.Add("prepared_closed", d.closed)
	l.Add("prepared_changed", d.changed)
	l.Add("prepared_error", d.preparedError)
	l.Add("unnamed", d.unnamed)
	l.Add("transaction", d.transaction)
	l.Add("error", d.failure)
	l.Add("copy_in", d.copyIn)
	l.Add("copy_in_binary", d.copyInBinary)
	l.Add("copy_out", d.copyOut)
	l.Add("cancel", d.cancel)
	l.Add("notice", d.notice)
	l.Add("large", d.large)
	l.Add("parameters", d.parameters)
	l.Add("cursor", d.cursor)
	l.Add("pipeline", d.batch)
	l.Add("pipeline_prepared", d.pipelinePrepared)
	if d.target.TLS {
		l.Add("tls", d.overTLS)
		l.Add("tls_stranger", d.stranger)
	}
	l.Run()
}

// session connects. change may be nil.
func (d driver) session(change func(*pgx.ConnConfig)) *pgx.Conn {
	conf := Got(pgx.ParseConfig(d.target.DSN(d.target.CA)))
	if d.target.TLS {
		conf.ChannelBinding = "require"
	}
	if change != nil {
		change(conf)
	}
	return Got(pgx.ConnectConfig(ctx, conf))
}

func (d driver) withMode(mode pgx.QueryExecMode) *pgx.Conn {
	return d.session(func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode })
}

// do runs statements in the simple protocol.
func do(c *pgx.Conn, sql string) { Got(c.PgConn().Exec(ctx, sql).ReadAll()) }

// text is the first value of a query in the simple protocol.
func text(c *pgx.Conn, sql string) string {
	return string(Got(c.PgConn().Exec(ctx, sql).ReadAll())[0].Rows[0][0])
}

// pair executes a query for a value and the server's process.
func pair(c *pgx.Conn, sql string, n int) (value, pid int) {
	Must(c.QueryRow(ctx, sql, n).Scan(&value, &pid))
	return value, pid
}

func fails(err error, sqlstate string) *pgconn.PgError {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != sqlstate {
		panic(fmt.Errorf("got %w, want %s", err, sqlstate))
	}
	return e
}

func (d driver) connect() {
	c := d.session(nil)
	defer c.Close(ctx)
	Same(text(c, "select current_user || ' ' || current_database()"), "app "+d.target.Database)
}

func (d driver) overTLS() {
	c := d.session(nil)
	defer c.Close(ctx)
	_, ok := c.PgConn().Conn().(interface{ OCSPResponse() []byte }) // a *tls.Conn, which verified
	Same(ok, true)
}

func (d driver) stranger() {
	_, err := pgx.Connect(ctx, d.target.DSN(d.target.Stranger))
	Same(err != nil && strings.Contains(err.Error(), "certificate signed by unknown authority"), true)
}

func (d driver) prepared() {
	c, holder := d.session(nil), d.session(nil)
	defer c.Close(ctx)
	defer holder.Close(ctx)
	Got(c.Prepare(ctx, "plus", Plus))
	var pids []int
	for n := range 6 {
		value, pid := pair(c, "plus", n)
		Same(value, n+1)
		do(holder, "begin") // on the server that was used last
		again, other := pair(c, "plus", -n)
		Same(again, 1-n)
		do(holder, "rollback")
		pids = append(pids, pid, other)
	}
	d.target.Lands(pids...)
	if d.target.Mode == "direct" {
		Same(text(c, "select string_agg(name, ' ') from pg_prepared_statements"), "plus")
	}
}

// byTwo has two clients with statements of one name.
func (d driver) byTwo(mine, theirs string) {
	one, other, holder := d.session(nil), d.session(nil), d.session(nil)
	defer one.Close(ctx)
	defer other.Close(ctx)
	defer holder.Close(ctx)
	Got(one.Prepare(ctx, "same", mine))
	Got(other.Prepare(ctx, "same", theirs))
	check := func(c *pgx.Conn, sql string, n int) {
		value, _ := pair(c, "same", n)
		Same(value, map[string]int{Plus: n + 1, Times: n * 10}[sql])
	}
	for n := range 5 {
		check(one, mine, n)
		check(other, theirs, n)
		do(holder, "begin")
		check(other, theirs, n)
		check(one, mine, n)
		do(holder, "rollback")
	}
}

// automatically uses the modes that parse before they bind.
func (d driver) automatically() {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec} {
		func() {
			c := d.withMode(mode)
			defer c.Close(ctx)
			for n := range 5 {
				value, _ := pair(c, Plus, n)
				Same(value, n+1)
			}
		}()
	}
}

// closed has more statements than the driver keeps: it closes the oldest, and parses it again when it is wanted.
func (d driver) closed() {
	c := d.session(func(conf *pgx.ConnConfig) { conf.StatementCacheCapacity = 2 })
	defer c.Close(ctx)
	for n := range 3 {
		for k := range 4 {
			var value int
			Must(c.QueryRow(ctx, fmt.Sprintf("select $1::int + %d", k), n).Scan(&value))
			Same(value, n+k)
		}
	}
	Got(c.Prepare(ctx, "gone", Plus))
	Must(c.Deallocate(ctx, "gone"))
	_, err := c.PgConn().ExecPrepared(ctx, "gone", [][]byte{[]byte("1")}, nil, nil).Close()
	fails(err, "26000")
}

// changed has a table change below a statement: one error, after which the driver parses again.
func (d driver) changed() {
	c := d.session(nil)
	defer c.Close(ctx)
	do(c, "drop table if exists changed; create table changed(a int)")
	Got(c.Exec(ctx, "select * from changed"))
	do(c, "alter table changed add b text")
	_, _ = c.Exec(ctx, "select * from changed")
	rows := Got(c.Query(ctx, "select * from changed"))
	Same(len(rows.FieldDescriptions()), 2)
	rows.Close()
	Must(rows.Err())
}

func (d driver) preparedError() {
	c := d.session(nil)
	defer c.Close(ctx)
	var one int
	for range 3 {
		Must(c.QueryRow(ctx, "select 1 / $1::int", 1).Scan(&one))
		fails(c.QueryRow(ctx, "select 1 / $1::int", 0).Scan(&one), "22012")
		fails(c.QueryRow(ctx, "select nothing, $1::int", 1).Scan(&one), "42703")
	}
}

func (d driver) unnamed() {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		c := d.withMode(mode)
		value, _ := pair(c, Plus, 41)
		Same(value, 42)
		c.Close(ctx)
	}
}

func (d driver) transaction() {
	c := d.withMode(pgx.QueryExecModeExec)
	defer c.Close(ctx)
	do(c, "drop table if exists tx; create table tx(a int)")
	tx := Got(c.Begin(ctx))
	Got(tx.Exec(ctx, "insert into tx values ($1)", 1))
	Must(tx.Rollback(ctx))
	tx = Got(c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable}))
	Got(tx.Exec(ctx, "insert into tx values ($1)", 2))
	savepoint := Got(tx.Begin(ctx))
	Got(savepoint.Exec(ctx, "insert into tx values ($1)", 3))
	_, err := savepoint.Exec(ctx, "select 1/0")
	fails(err, "22012")
	Must(savepoint.Rollback(ctx))
	Got(tx.Exec(ctx, "insert into tx values ($1)", 4))
	Must(tx.Commit(ctx))
	Same(text(c, "select string_agg(a::text, ',' order by a) from tx"), "2,4")
}

func (d driver) failure() {
	c := d.withMode(pgx.QueryExecModeExec)
	defer c.Close(ctx)
	do(c, "drop table if exists err; create table err(a int constraint err_key primary key); insert into err values (1)")
	_, err := c.Exec(ctx, "insert into err values ($1)", 1)
	Same(fails(err, "23505").ConstraintName, "err_key")
	_, err = c.Exec(ctx, "selec 1")
	fails(err, "42601")
	do(c, "begin")
	_, err = c.Exec(ctx, "select 1/$1::int", 0)
	fails(err, "22012")
	_, err = c.Exec(ctx, "select 1")
	fails(err, "25P02")
	do(c, "rollback")
	Same(text(c, "select 1"), "1")
}

func lines(from, to int) string {
	var s strings.Builder
	for n := from; n <= to; n++ {
		fmt.Fprintf(&s, "%d\trow %d\n", n, n)
	}
	return s.String()
}

func (d driver) copyIn() {
	c := d.session(nil)
	defer c.Close(ctx)
	do(c, "drop table if exists copied; create table copied(a int, b text)")
	Got(c.PgConn().CopyFrom(ctx, strings.NewReader(lines(0, 19999)), "copy copied from stdin"))
	_, err := c.PgConn().CopyFrom(ctx, strings.NewReader("no number\tx\n"), "copy copied from stdin")
	fails(err, "22P02")
	Same(text(c, "select count(*) || ' ' || sum(a) from copied"), "20000 199990000")
}

// copyInBinary asks for the columns' types first.
func (d driver) copyInBinary() {
	c := d.session(nil)
	defer c.Close(ctx)
	do(c, "drop table if exists records; create table records(a int, b text)")
	n := Got(c.CopyFrom(ctx, pgx.Identifier{"records"}, []string{"a", "b"}, pgx.CopyFromSlice(5000, func(i int) ([]any, error) {
		return []any{i, fmt.Sprint("row ", i)}, nil
	})))
	Same(n, int64(5000))
}

func (d driver) copyOut() {
	c := d.session(nil)
	defer c.Close(ctx)
	var out bytes.Buffer
	Got(c.PgConn().CopyTo(ctx, &out, "copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout"))
	Same(out.String(), lines(1, 20000))
}

func (d driver) cancel() {
	c, observer := d.session(nil), d.session(nil)
	defer c.Close(ctx)
	defer observer.Close(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := c.PgConn().Exec(ctx, CancelMe).ReadAll()
		ended <- err
	}()
	Until(func() bool { return text(observer, Running) == "1" })
	Must(c.PgConn().CancelRequest(ctx))
	fails(<-ended, "57014")
	Same(text(c, "select 1"), "1")
}

func (d driver) notice() {
	var seen []string
	c := d.session(func(conf *pgx.ConnConfig) {
		conf.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { seen = append(seen, n.Message) }
	})
	defer c.Close(ctx)
	do(c, Notice)
	Same(seen, []string{"look out"})
}

func (d driver) large() {
	c := d.withMode(pgx.QueryExecModeExec)
	defer c.Close(ctx)
	rows := Got(c.Query(ctx, LargeRows))
	size := 0
	for rows.Next() {
		size += len(rows.RawValues()[1])
	}
	Must(rows.Err())
	Same(size, 5000000)
	var value string
	Must(c.QueryRow(ctx, "select repeat('y', $1::int)", 8*Megabyte).Scan(&value))
	Same(len(value), 8*Megabyte)
	var length int
	Must(c.QueryRow(ctx, "select length($1::text)", strings.Repeat("z", 4*Megabyte)).Scan(&length))
	Same(length, 4*Megabyte)
}

func (d driver) parameters() {
	c := d.session(nil)
	defer c.Close(ctx)
	var (
		null  *string
		str   string
		b     []byte
		i     int64
		f     float64
		array []*int32
		one   = int32(1)
	)
	Must(c.QueryRow(ctx, "select $1::text, $2::text, $3::bytea, $4::int8, $5::float8, $6::int[]", nil, Text, EveryByte(), int64(-1<<63), 0.1,
		[]*int32{&one, nil}).Scan(&null, &str, &b, &i, &f, &array))
	Same([]any{null == nil, str, b, i, f, len(array), *array[0], array[1] == nil}, []any{true, Text, EveryByte(), int64(-1 << 63), 0.1, 2, one, true})
}

func (d driver) cursor() {
	c := d.session(nil)
	defer c.Close(ctx)
	do(c, "begin; declare part cursor for select generate_series(1, 1000)")
	sum := 0
	for {
		part := Got(c.PgConn().Exec(ctx, "fetch 100 from part").ReadAll())[0].Rows
		if len(part) == 0 {
			break
		}
		for _, row := range part {
			var n int
			Got(fmt.Sscan(string(row[0]), &n))
			sum += n
		}
	}
	do(c, "commit")
	Same(sum, 500500)
}

// batch sends everything before it reads anything, unnamed.
func (d driver) batch() {
	c := d.withMode(pgx.QueryExecModeExec)
	defer c.Close(ctx)
	d.batchOf(c)
	failing := new(pgx.Batch)
	for _, n := range []int{1, 0, 2} {
		failing.Queue("select 1/$1::int", n)
	}
	results := c.SendBatch(ctx, failing)
	Got(results.Exec())
	_, err := results.Exec()
	fails(err, "22012")
	fails(results.Close(), "22012")
	Same(text(c, "select 1"), "1")
}

func (d driver) batchOf(c *pgx.Conn) {
	b := new(pgx.Batch)
	for n := range 20 {
		b.Queue([]string{Plus, Times}[n%2], n)
	}
	results := c.SendBatch(ctx, b)
	for n := range 20 {
		var value, pid int
		Must(results.QueryRow().Scan(&value, &pid))
		Same(value, []int{n + 1, n * 10}[n%2])
	}
	Must(results.Close())
}

// pipelinePrepared does so with named statements, now on this server, now on that.
func (d driver) pipelinePrepared() {
	c, holder := d.session(nil), d.session(nil)
	defer c.Close(ctx)
	defer holder.Close(ctx)
	for n := range 4 {
		d.batchOf(c)
		do(holder, []string{"begin", "rollback"}[n%2])
	}
}
