"""SQLAlchemy over the driver named as the argument (psycopg2 or asyncpg): what its dialects, engine and pool do by themselves."""

import asyncio
import ssl
import sys
import warnings

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from checks import EVERY_BYTE, LARGE_ROWS, TEXT, check, lands, libpq, run, same, target, tls_check

warnings.simplefilter("ignore")
DRIVER = sys.argv[1]


def connect_args(ca):
    if DRIVER == "asyncpg":
        return {"ssl": ssl.create_default_context(cafile=ca) if target.tls else False}
    return {name: value for name, value in libpq(ca).items() if name.startswith("ssl") or name == "channel_binding"}


def with_engine(body, ca=None, **options):
    """Calls body with an engine; for asyncpg in an event loop, through SQLAlchemy's own bridge to synchronous code."""
    url = sa.engine.URL.create(f"postgresql+{DRIVER}", target.user, target.password, target.host, target.port, target.database)
    options = dict(connect_args=connect_args(ca or target.ca), **options)
    if DRIVER != "asyncpg":
        engine = sa.create_engine(url, **options)
        try:
            return body(engine)
        finally:
            engine.dispose()

    async def bridge():
        engine = create_async_engine(url, **options)
        try:
            async with engine.connect() as conn:
                return await conn.run_sync(lambda _: body(engine.sync_engine))
        finally:
            await engine.dispose()
    return asyncio.run(bridge())


def sqlstate(e):
    return getattr(e.orig, "pgcode", None) or getattr(e.orig, "sqlstate", None)


def fails(conn, state, sql, **params):
    try:
        conn.execute(sa.text(sql), params)
    except sa.exc.DBAPIError as e:
        same(sqlstate(e), state)
        return
    raise AssertionError(f"no error {state}")


@check
def connect():
    def body(engine):
        with engine.connect() as conn:
            same(tuple(conn.execute(sa.text("select current_user, current_database()")).one()), ("app", target.database))
    with_engine(body)
    with_engine(body, poolclass=NullPool)
    with_engine(body, pool_pre_ping=True)


@tls_check
def tls_stranger():
    try:
        with_engine(lambda engine: engine.connect().close(), ca=target.stranger)
    except (sa.exc.OperationalError, ssl.SSLCertVerificationError) as e:
        same("certificate verify failed" in str(e).lower(), True)
    else:
        raise AssertionError("a stranger's certificate was taken")


@check
def prepared():
    """Named statements by asyncpg's dialect; psycopg2's says the same in the simple protocol."""
    def body(engine):
        with engine.connect() as one, engine.connect() as other, engine.connect() as holder:
            pids = []
            for n in range(6):
                for conn, k in ((one, 1), (other, 2)):
                    with conn.begin():
                        value, pid = conn.execute(sa.text(f"select cast(:n as int) + {k}, pg_backend_pid()"), {"n": n}).one()
                    same(value, n + k)
                    if conn is one:
                        pids.append(pid)
                if n == 2:
                    transaction = holder.begin()
                    holder.execute(sa.text("select 1"))
            transaction.rollback()
            if target.mode != "transaction":
                lands(pids)
    with_engine(body)


@check
def transaction():
    def body(engine):
        table = sa.Table("sa_tx", sa.MetaData(), sa.Column("a", sa.Integer))
        table.drop(engine, checkfirst=True)
        table.create(engine)
        with engine.connect() as conn:
            with conn.begin() as outer:
                conn.execute(table.insert(), {"a": 1})
                outer.rollback()
            with conn.begin():
                conn.execute(table.insert(), {"a": 2})
                with conn.begin_nested() as savepoint:
                    conn.execute(table.insert(), {"a": 3})
                    savepoint.rollback()
                conn.execute(table.insert(), [{"a": 4}, {"a": 5}])
            same([row.a for row in conn.execute(table.select().order_by("a"))], [2, 4, 5])
        with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
            same(conn.execute(sa.text("show transaction_isolation")).scalar(), "serializable")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            same(conn.execute(sa.text("show transaction_isolation")).scalar(), "read committed")
    with_engine(body)


@check
def error():
    def body(engine):
        with engine.connect() as conn:
            with conn.begin():
                fails(conn, "22012", "select 1 / cast(:zero as int)", zero=0)
                fails(conn, "25P02", "select 1")
            with conn.begin():
                same(conn.execute(sa.text("select 1")).scalar(), 1)
    with_engine(body)


@check
def large():
    def body(engine):
        with engine.connect() as conn:
            same(sum(len(row[1]) for row in conn.execute(sa.text(LARGE_ROWS))), 5000000)
    with_engine(body)


@check
def parameters():
    def body(engine):
        columns = [sa.Column("t", sa.Text), sa.Column("b", sa.LargeBinary), sa.Column("i", sa.BigInteger), sa.Column("n", sa.Numeric),
                   sa.Column("j", sa.JSON(none_as_null=True))]
        table = sa.Table("sa_values", sa.MetaData(), *columns)
        table.drop(engine, checkfirst=True)
        table.create(engine)
        with engine.begin() as conn:
            conn.execute(table.insert(), {"t": TEXT, "b": EVERY_BYTE, "i": -2**63, "n": None, "j": {"a": [1, None]}})
            same(tuple(conn.execute(table.select().where(table.c.t == TEXT)).one()), (TEXT, EVERY_BYTE, -2**63, None, {"a": [1, None]}))
    with_engine(body)


@check
def reflection():
    """Large queries over the catalog."""
    def body(engine):
        with engine.begin() as conn:
            conn.execute(sa.text("drop table if exists child, parent"))
            conn.execute(sa.text("create table parent(id int primary key, name text not null unique)"))
            conn.execute(sa.text("create table child(id int primary key, parent int references parent, at timestamptz default now())"))
        with engine.connect() as conn:
            found = sa.Table("child", sa.MetaData(), autoload_with=conn)
            same([c.name for c in found.columns], ["id", "parent", "at"])
            same([key.column.table.name for key in found.foreign_keys], ["parent"])
    with_engine(body)


@check
def cursor():
    def body(engine):
        with engine.connect() as conn, conn.begin():
            result = conn.execution_options(stream_results=True, max_row_buffer=100).execute(sa.text("select generate_series(1, 1000)"))
            same(sum(row[0] for row in result), 500500)
    with_engine(body)


run()
