"""psycopg 3, synchronous and in pipeline mode: libpq, extended protocol, named statements called _pg3_0, _pg3_1, ...

The argument, if any, is the version of libpq that must be the one below.
"""

import sys
import threading

import psycopg

from checks import (CANCEL_ME, EVERY_BYTE, LARGE_ROWS, MEGABYTE, NOTICE, RUNNING, TEXT, check, lands, libpq, run, same, target,
                    tls_check, until)

PLUS = "select %s::int + 1, pg_backend_pid()"
TIMES = "select %s::int * 10, pg_backend_pid()"


def session():
    return psycopg.connect(**libpq(), autocommit=True)


def rows(conn, sql, params=None, **options):
    cur = conn.execute(sql, params, **options)
    return cur.fetchall() if cur.description else None


def fails(conn, sqlstate, sql, params=None, **options):
    try:
        rows(conn, sql, params, **options)
    except psycopg.Error as e:
        same(e.sqlstate, sqlstate)
        return e
    raise AssertionError(f"no error {sqlstate}")


def run_prepared(conn, sql, n):
    """Executes a named statement and returns its value and the server's process."""
    return rows(conn, sql, (n,), prepare=True)[0]


@check
def connect():
    with session() as conn:
        same(rows(conn, "select current_user, current_database()"), [("app", target.database)])
    for version in sys.argv[1:]:
        same(psycopg.pq.version() // 10000, int(version))


@tls_check
def tls():
    with session() as conn:
        same(conn.pgconn.ssl_in_use, True)


@tls_check
def tls_stranger():
    try:
        psycopg.connect(**libpq(ca=target.stranger)).close()
    except psycopg.OperationalError as e:
        same("certificate verify failed" in str(e), True)
    else:
        raise AssertionError("a stranger's certificate was taken")


@check
def fresh():
    """A session has no statements of others. As many sessions as it takes to see every server of the pool."""
    if target.mode != "transaction":
        with session() as a, session() as b, session() as c, session() as d:
            same([rows(conn, "select name, statement from pg_prepared_statements") for conn in (a, b, c, d)], [[]] * 4)


@check
def prepared():
    with session() as conn, session() as holder:
        pids = []
        for n in range(6):
            value, pid = run_prepared(conn, PLUS, n)
            same(value, n + 1)
            pids.append(pid)
            with holder.transaction():  # of the server that was used last
                rows(holder, "select 1")
                value, pid = run_prepared(conn, PLUS, -n)
                same(value, 1 - n)
                pids.append(pid)
        lands(pids)
        if target.mode == "direct":
            same(rows(conn, "select count(*) from pg_prepared_statements"), [(1,)])


@check
def prepared_automatically():
    """Without asking, at the fifth execution."""
    with session() as conn:
        for n in range(12):
            same(rows(conn, "select %s::int + 1", (n,)), [(n + 1,)])
        if target.mode == "direct":
            same(rows(conn, "select count(*) from pg_prepared_statements"), [(1,)])


@check
def prepared_equal():
    with session() as one, session() as other, session() as holder:
        for n in range(5):
            same(run_prepared(one, PLUS, n)[0], n + 1)
            with holder.transaction():
                rows(holder, "select 1")
                same(run_prepared(other, PLUS, n)[0], n + 1)
                same(run_prepared(one, PLUS, n)[0], n + 1)


@check
def prepared_different():
    """Both clients call their statement _pg3_0."""
    with session() as one, session() as other, session() as holder:
        for n in range(5):
            same(run_prepared(one, PLUS, n)[0], n + 1)
            same(run_prepared(other, TIMES, n)[0], n * 10)
            with holder.transaction():
                rows(holder, "select 1")
                same(run_prepared(other, TIMES, n)[0], n * 10)
                same(run_prepared(one, PLUS, n)[0], n + 1)


@check
def prepared_closed():
    """More statements than the driver keeps: it deallocates the oldest and prepares it again."""
    with session() as conn:
        conn.prepared_max = 2
        for n in range(3):
            for k in range(4):
                same(rows(conn, f"select %s::int + {k}", (n,), prepare=True), [(n + k,)])


@check
def prepared_error():
    with session() as conn:
        divide = "select 1 / %s::int"
        for _ in range(3):
            same(rows(conn, divide, (1,), prepare=True), [(1,)])
            fails(conn, "22012", divide, (0,), prepare=True)
            fails(conn, "42703", "select nothing, %s::int", (1,), prepare=True)
        with conn.transaction(force_rollback=True):
            same(rows(conn, divide, (1,), prepare=True), [(1,)])


@check
def transaction():
    with session() as conn:
        rows(conn, "drop table if exists tx")
        rows(conn, "create table tx(a int)")
        with conn.transaction(force_rollback=True):
            rows(conn, "insert into tx values (%s)", (1,))
        with conn.transaction():
            rows(conn, "insert into tx values (%s)", (2,))
            try:
                with conn.transaction():  # a savepoint
                    rows(conn, "insert into tx values (%s)", (3,))
                    rows(conn, "select 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            rows(conn, "insert into tx values (%s)", (4,))
        same(rows(conn, "select array_agg(a order by a) from tx"), [([2, 4],)])


@check
def error():
    with session() as conn:
        rows(conn, "drop table if exists err")
        rows(conn, "create table err(a int constraint err_key primary key)")
        rows(conn, "insert into err values (1)")
        e = fails(conn, "23505", "insert into err values (%s)", (1,))
        same((e.diag.constraint_name, e.diag.table_name), ("err_key", "err"))
        fails(conn, "42601", "selec 1")
        same(rows(conn, "select 1"), [(1,)])
        rows(conn, "begin")
        fails(conn, "22012", "select 1/%s", (0,))
        fails(conn, "25P02", "select 1")
        rows(conn, "rollback")
        same(rows(conn, "select 1"), [(1,)])


@check
def copy_in():
    with session() as conn:
        rows(conn, "drop table if exists copied")
        rows(conn, "create table copied(a int, b text)")
        with conn.cursor() as cur, cur.copy("copy copied from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for n in range(20000):
                copy.write_row((n, f"row {n}"))
        same(rows(conn, "select count(*), sum(a), max(b) from copied"), [(20000, 199990000, "row 9999")])
        try:
            with conn.cursor() as cur, cur.copy("copy copied from stdin") as copy:
                copy.write_row((1, "x"))
                raise ValueError("given up")  # CopyFail
        except (psycopg.errors.QueryCanceled, ValueError):
            pass
        same(rows(conn, "select count(*) from copied"), [(20000,)])


@check
def copy_out():
    with session() as conn, conn.cursor() as cur:
        with cur.copy("copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout") as copy:
            same(b"".join(copy), b"".join(b"%d\trow %d\n" % (n, n) for n in range(1, 20001)))


@check
def cancel():
    with session() as conn, session() as observer:
        def act():
            until(lambda: rows(observer, RUNNING) == [(1,)])
            conn.cancel()
        thread = threading.Thread(target=act)
        thread.start()
        try:
            fails(conn, "57014", CANCEL_ME)
        finally:
            thread.join()
        same(rows(conn, "select 1"), [(1,)])


@check
def notice():
    with session() as conn:
        seen = []
        conn.add_notice_handler(lambda diag: seen.append((diag.severity, diag.message_primary)))
        rows(conn, NOTICE)
        same(seen, [("NOTICE", "look out")])


@check
def large():
    with session() as conn:
        got = rows(conn, LARGE_ROWS)
        same((len(got), sum(len(text) for _, text in got)), (1000, 5000000))
        same(len(rows(conn, "select repeat('y', %s)", (8 * MEGABYTE,))[0][0]), 8 * MEGABYTE)
        same(rows(conn, "select length(%s)", ("z" * 4 * MEGABYTE,)), [(4 * MEGABYTE,)])
        with conn.cursor() as cur:  # single-row mode
            same(sum(len(text) for _, text in cur.stream(LARGE_ROWS)), 5000000)


@check
def parameters():
    with session() as conn:
        values = (None, TEXT, EVERY_BYTE, -2**63, 0.1, [1, None, 3])
        for format in "stb":
            sql = f"select %{format}::text, %{format}::text, %{format}::bytea, %{format}::int8, %{format}::float8, %s::int[]"
            for binary in (False, True):
                same(rows(conn, sql, values, binary=binary), [values])


@check
def cursor():
    with session() as conn, conn.transaction(), conn.cursor("named") as cur:
        cur.itersize = 100
        cur.execute("select generate_series(1, %s)", (1000,))
        same(sum(a for (a,) in cur), 500500)


@check
def pipeline():
    with session() as conn:
        rows(conn, "drop table if exists piped")
        rows(conn, "create table piped(a int)")
        with conn.pipeline():
            cursors = [conn.execute("select %s::int + 1", (n,), prepare=False) for n in range(20)]
            same([c.fetchone()[0] for c in cursors], list(range(1, 21)))
        try:
            with conn.pipeline() as p:
                conn.execute("insert into piped values (1)")
                p.sync()
                conn.execute("insert into piped values (2)")
                conn.execute("select 1/%s::int", (0,), prepare=False)
                conn.execute("insert into piped values (3)")
        except psycopg.errors.DivisionByZero:
            pass
        same(rows(conn, "select a from piped"), [(1,)])


@check
def pipeline_prepared():
    with session() as conn, session() as holder:
        for n in range(4):
            with conn.pipeline() as p:
                cursors = [conn.execute(PLUS, (k,), prepare=True) for k in range(10)]
                cursors += [conn.execute(TIMES, (k,), prepare=True) for k in range(10)]
                p.sync()
                same([c.fetchone()[0] for c in cursors], list(range(1, 11)) + list(range(0, 100, 10)))
            if n % 2 == 0:
                rows(holder, "begin")
            else:
                rows(holder, "commit")


@check
def many():
    with session() as conn, conn.cursor() as cur:
        rows(conn, "drop table if exists many")
        rows(conn, "create table many(a int, b text)")
        with conn.transaction():
            cur.executemany("insert into many values (%s, %s)", [(n, str(n)) for n in range(1000)])
        same(rows(conn, "select count(*), sum(a) from many"), [(1000, 499500)])


run()
