"""psycopg2: libpq, simple protocol only; prepared statements are SQL's."""

import threading
from contextlib import closing, contextmanager
from io import StringIO

import psycopg2
import psycopg2.extras

from checks import (CANCEL_ME, EVERY_BYTE, LARGE_ROWS, MEGABYTE, NOTICE, RUNNING, TEXT, check, libpq, run, same, target,
                    tls_check, until)


@contextmanager
def session(autocommit=True):
    """A connection that is closed afterwards."""
    with closing(psycopg2.connect(**libpq())) as conn:
        conn.autocommit = autocommit
        yield conn


def rows(conn, sql, params=None):
    with conn.cursor() as cur:
        cur.execute(sql, params)
        return cur.fetchall() if cur.description else None


def fails(conn, sqlstate, sql):
    try:
        rows(conn, sql)
    except psycopg2.Error as e:
        same(e.pgcode, sqlstate)
        return e
    raise AssertionError(f"no error {sqlstate}")


@check
def connect():
    with session() as conn:
        same(rows(conn, "select current_user, current_database()"), [("app", target.database)])


@tls_check
def tls():
    with session() as conn:
        same(conn.info.ssl_in_use, True)


@tls_check
def tls_stranger():
    try:
        psycopg2.connect(**libpq(ca=target.stranger))
    except psycopg2.OperationalError as e:
        same("certificate verify failed" in str(e), True)
    else:
        raise AssertionError("a stranger's certificate was taken")


@check
def prepared_sql():
    with session() as one, session() as other:
        rows(one, "prepare plan(int) as select $1 + 1")
        rows(other, "prepare plan(int) as select $1 * 10")
        for n in range(5):
            same(rows(one, "execute plan(%s)", (n,)), [(n + 1,)])
            same(rows(other, "execute plan(%s)", (n,)), [(n * 10,)])
        rows(one, "deallocate plan")
        fails(one, "26000", "execute plan(1)")
        same(rows(other, "execute plan(7)"), [(70,)])


@check
def transaction():
    with session(autocommit=False) as conn:
        rows(conn, "drop table if exists tx; create table tx(a int)")
        conn.commit()
        rows(conn, "insert into tx values (1)")
        conn.rollback()
        rows(conn, "insert into tx values (2)")
        rows(conn, "savepoint s")
        rows(conn, "insert into tx values (3)")
        fails(conn, "22012", "select 1/0")
        rows(conn, "rollback to savepoint s")
        rows(conn, "insert into tx values (4)")
        conn.commit()
        same(rows(conn, "select array_agg(a order by a) from tx"), [([2, 4],)])
        conn.rollback()
        conn.set_session(isolation_level="SERIALIZABLE", readonly=True)
        same(rows(conn, "show transaction_isolation"), [("serializable",)])
        fails(conn, "25006", "insert into tx values (5)")


@check
def error():
    with session() as conn:
        rows(conn, "drop table if exists err; create table err(a int constraint err_key primary key)")
        rows(conn, "insert into err values (1)")
        e = fails(conn, "23505", "insert into err values (1)")
        same((e.diag.constraint_name, e.diag.table_name), ("err_key", "err"))
        fails(conn, "42601", "selec 1")
        same(rows(conn, "select 1"), [(1,)])
    with session(autocommit=False) as conn:
        fails(conn, "22012", "select 1/0")
        fails(conn, "25P02", "select 1")
        conn.rollback()
        same(rows(conn, "select 1"), [(1,)])


@check
def copy_in():
    with session() as conn, conn.cursor() as cur:
        rows(conn, "drop table if exists copied; create table copied(a int, b text)")
        cur.copy_expert("copy copied from stdin", StringIO("".join(f"{n}\trow {n}\n" for n in range(20000))))
        same(rows(conn, "select count(*), sum(a), max(b) from copied"), [(20000, 199990000, "row 9999")])
        try:
            cur.copy_expert("copy copied from stdin", StringIO("no number\tx\n"))
        except psycopg2.Error as e:
            same(e.pgcode, "22P02")
        same(rows(conn, "select count(*) from copied"), [(20000,)])


@check
def copy_out():
    with session() as conn, conn.cursor() as cur:
        out = StringIO()
        cur.copy_expert("copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout", out)
        same(out.getvalue(), "".join(f"{n}\trow {n}\n" for n in range(1, 20001)))


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
        rows(conn, NOTICE)
        same(conn.notices, ["NOTICE:  look out\n"])


@check
def large():
    with session() as conn:
        got = rows(conn, LARGE_ROWS)
        same((len(got), sum(len(text) for _, text in got)), (1000, 5000000))
        same(len(rows(conn, "select repeat('y', %s)", (8 * MEGABYTE,))[0][0]), 8 * MEGABYTE)
        same(rows(conn, "select length(%s)", ("z" * 4 * MEGABYTE,)), [(4 * MEGABYTE,)])


@check
def parameters():
    with session() as conn:
        values = (None, TEXT, -2**62, 0.1, [1, None, 3])
        same(rows(conn, "select %s::text, %s::text, %s::int8, %s::float8, %s::int[]", values), [values])
        same(bytes(rows(conn, "select %s::bytea", (psycopg2.Binary(EVERY_BYTE),))[0][0]), EVERY_BYTE)


@check
def cursor():
    with session(autocommit=False) as conn, conn.cursor("named") as cur:
        cur.itersize = 100
        cur.execute("select generate_series(1, 1000)")
        same(sum(a for (a,) in cur), 500500)


@check
def many():
    with session() as conn, conn.cursor() as cur:
        rows(conn, "drop table if exists many; create table many(a int, b text)")
        psycopg2.extras.execute_values(cur, "insert into many values %s", [(n, str(n)) for n in range(1000)])
        psycopg2.extras.execute_batch(cur, "update many set b = %s where a = %s", [("x", n) for n in range(500)])
        same(rows(conn, "select count(*) from many where b = 'x'"), [(500,)])


run()
