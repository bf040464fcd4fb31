"""asyncpg: its own protocol code, binary, every query with values in a named statement called __asyncpg_stmt_1__, ..."""

import asyncio
import io
import ssl
from contextlib import asynccontextmanager

import asyncpg

from checks import (CANCEL_ME, EVERY_BYTE, LARGE_ROWS, MEGABYTE, NOTICE, RUNNING, TEXT, check, lands, run, same, target,
                    tls_check)

PLUS = "select $1::int + 1, pg_backend_pid()"
TIMES = "select $1::int * 10, pg_backend_pid()"


def settings(ca=None):
    return dict(host=target.host, port=target.port, user=target.user, password=target.password, database=target.database, timeout=60,
                ssl=ssl.create_default_context(cafile=ca or target.ca) if target.tls else False)


@asynccontextmanager
async def session():
    conn = await asyncpg.connect(**settings())
    try:
        yield conn
    finally:
        await conn.close(timeout=60)


async def fails(sqlstate, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as e:
        same(e.sqlstate, sqlstate)
        return e
    raise AssertionError(f"no error {sqlstate}")


@check
async def connect():
    async with session() as conn:
        await conn.execute(f"do $$ begin assert current_user = 'app' and current_database() = '{target.database}'; end $$")


@tls_check
async def tls():
    async with session() as conn:
        same(conn._transport.get_extra_info("ssl_object") is not None, True)


@tls_check
async def tls_stranger():
    try:
        await asyncpg.connect(**settings(ca=target.stranger))
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("a stranger's certificate was taken")


@check
async def prepared():
    async with session() as conn, session() as holder:
        statement = await conn.prepare(PLUS)
        pids = []
        for n in range(6):
            value, pid = await statement.fetchrow(n)
            same(value, n + 1)
            pids.append(pid)
            async with holder.transaction():  # of the server that was used last
                await holder.execute("select 1")
                value, pid = await statement.fetchrow(-n)
                same(value, 1 - n)
                pids.append(pid)
        lands(pids)


@check
async def prepared_automatically():
    async with session() as conn:
        for n in range(5):
            same(await conn.fetchval("select $1::int + 1", n), n + 1)
        if target.mode == "direct":
            same(await conn.fetchval("select count(*) from pg_prepared_statements where statement like '%+ 1'"), 1)


@check
async def prepared_equal():
    async with session() as one, session() as other, session() as holder:
        for n in range(5):
            same(await one.fetchval(PLUS, n), n + 1)
            async with holder.transaction():
                await holder.execute("select 1")
                same(await other.fetchval(PLUS, n), n + 1)
                same(await one.fetchval(PLUS, n), n + 1)


@check
async def prepared_different():
    """Both clients count their statements' names from one."""
    async with session() as one, session() as other, session() as holder:
        for n in range(5):
            same(await one.fetchval(PLUS, n), n + 1)
            same(await other.fetchval(TIMES, n), n * 10)
            async with holder.transaction():
                await holder.execute("select 1")
                same(await other.fetchval(TIMES, n), n * 10)
                same(await one.fetchval(PLUS, n), n + 1)


@check
async def prepared_closed():
    """More statements than the driver keeps: it closes the oldest, and parses it again when it is wanted."""
    async with session() as conn:
        conn._stmt_cache.set_max_size(2)
        for n in range(3):
            for k in range(4):
                same(await conn.fetchval(f"select $1::int + {k}", n), n + k)


@check
async def prepared_error():
    async with session() as conn:
        for _ in range(3):
            same(await conn.fetchval("select 1 / $1::int", 1), 1)
            await fails("22012", conn.fetchval("select 1 / $1::int", 0))
            await fails("42703", conn.fetchval("select nothing, $1::int", 1))


@check
async def prepared_changed():
    """The driver parses again when a table has changed below its statement."""
    async with session() as conn:
        await conn.execute("drop table if exists changed; create table changed(a int)")
        same(len((await conn.prepare("select * from changed")).get_attributes()), 1)
        await conn.fetch("select * from changed")
        await conn.execute("alter table changed add b text; insert into changed values (1, 'x')")
        same(tuple(await conn.fetchrow("select * from changed")), (1, "x"))


@check
async def unnamed():
    """Statements without a cache are the unnamed one, parsed in one round and bound in the next."""
    conn = await asyncpg.connect(**settings(), statement_cache_size=0)
    try:
        for n in range(5):
            same(await conn.fetchval("select $1::int + 1", n), n + 1)
    finally:
        await conn.close(timeout=60)


@check
async def transaction():
    async with session() as conn:
        await conn.execute("drop table if exists tx; create table tx(a int)")
        async with conn.transaction():
            await conn.execute("insert into tx values (2)")
            try:
                async with conn.transaction():  # a savepoint
                    await conn.execute("insert into tx values (3)")
                    await conn.execute("select 1/0")
            except asyncpg.DivisionByZeroError:
                pass
            await conn.execute("insert into tx values (4)")
        rolled_back = conn.transaction(isolation="serializable")
        await rolled_back.start()
        await conn.execute("insert into tx values (1)")
        await rolled_back.rollback()
        await conn.execute("do $$ begin assert (select array_agg(a order by a) from tx) = '{2,4}'; end $$")


@check
async def error():
    async with session() as conn:
        await conn.execute("drop table if exists err; create table err(a int constraint err_key primary key); insert into err values (1)")
        e = await fails("23505", conn.execute("insert into err values (1)"))
        same((e.constraint_name, e.table_name), ("err_key", "err"))
        await fails("42601", conn.execute("selec 1"))
        await conn.execute("begin")
        await fails("22012", conn.execute("select 1/0"))
        await fails("25P02", conn.execute("select 1"))
        await conn.execute("rollback")
        same(await conn.execute("select 1"), "SELECT 1")


@check
async def copy_in():
    async with session() as conn:
        await conn.execute("drop table if exists copied; create table copied(a int, b text)")
        text = "".join(f"{n}\trow {n}\n" for n in range(20000)).encode()
        same(await conn.copy_to_table("copied", source=io.BytesIO(text)), "COPY 20000")
        await fails("22P02", conn.copy_to_table("copied", source=io.BytesIO(b"no number\tx\n")))
        await conn.execute("do $$ begin assert (select count(*) from copied) = 20000; end $$")


@check
async def copy_in_binary():
    async with session() as conn:
        await conn.execute("drop table if exists records; create table records(a int, b text)")
        await conn.copy_records_to_table("records", records=[(n, f"row {n}") for n in range(5000)])
        same(await conn.fetchval("select sum(a) from records"), 12497500)


@check
async def copy_out():
    async with session() as conn:
        out = io.BytesIO()
        await conn.copy_from_query("select g, 'row ' || g from generate_series(1, 20000) g", output=out)
        same(out.getvalue(), b"".join(b"%d\trow %d\n" % (n, n) for n in range(1, 20001)))


@check
async def cancel():
    async with session() as conn, session() as observer:
        running = asyncio.create_task(conn.execute(CANCEL_ME))
        for _ in range(1500):
            try:
                await observer.execute(f"do $$ begin assert ({RUNNING}) = 1; end $$")
                break
            except asyncpg.AssertError:
                await asyncio.sleep(0.02)
        running.cancel()  # has the driver send a CancelRequest
        try:
            await running
        except asyncio.CancelledError:
            pass
        same(await asyncio.wait_for(conn.execute("select 1"), 60), "SELECT 1")
        await observer.execute(f"do $$ begin assert ({RUNNING}) = 0; end $$")


@check
async def notice():
    async with session() as conn:
        seen = []
        conn.add_log_listener(lambda _, message: seen.append(message.message))
        await conn.execute(NOTICE)
        await asyncio.sleep(0)  # listeners are called by the event loop
        same(seen, ["look out"])


@check
async def large():
    async with session() as conn:
        got = await conn.fetch(LARGE_ROWS)
        same((len(got), sum(len(row[1]) for row in got)), (1000, 5000000))
        same(len(await conn.fetchval("select repeat('y', $1)", 8 * MEGABYTE)), 8 * MEGABYTE)
        same(await conn.fetchval("select length($1::text)", "z" * 4 * MEGABYTE), 4 * MEGABYTE)


@check
async def parameters():
    async with session() as conn:
        values = (None, TEXT, EVERY_BYTE, -2**63, 0.1, [1, None, 3])
        same(tuple(await conn.fetchrow("select $1::text, $2::text, $3::bytea, $4::int8, $5::float8, $6::int[]", *values)), values)


@check
async def introspection():
    """The driver asks for the parts of types that it does not know, in the middle of a query."""
    async with session() as conn:
        await conn.execute("drop type if exists pair cascade; create type pair as (a int, b text)")
        same(tuple(await conn.fetchval("select (1, 'x')::pair")), (1, "x"))


@check
async def cursor():
    async with session() as conn, conn.transaction():
        same(sum([row[0] async for row in conn.cursor("select generate_series(1, $1::int)", 1000, prefetch=100)]), 500500)


@check
async def many():
    async with session() as conn:
        await conn.execute("drop table if exists many; create table many(a int, b text)")
        await conn.executemany("insert into many values ($1, $2)", [(n, str(n)) for n in range(1000)])
        same(await conn.fetchval("select sum(a) from many"), 499500)


@check
async def driver_pool():
    """The driver's own pool, which resets what it takes back."""
    async with asyncpg.create_pool(**settings(), min_size=2, max_size=4) as pool:
        async def client(k):
            for n in range(10):
                async with pool.acquire() as conn:
                    same(await conn.fetchval(f"select $1::int + {k % 3}", n), n + k % 3)
        await asyncio.gather(*(client(k) for k in range(6)))


run()
