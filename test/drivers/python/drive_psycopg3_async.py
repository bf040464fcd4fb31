"""psycopg 3, asynchronous: the same libpq without blocking, with several clients in one thread."""

import asyncio

import psycopg

from checks import (CANCEL_ME, EVERY_BYTE, LARGE_ROWS, MEGABYTE, NOTICE, RUNNING, TEXT, check, lands, libpq, run, same, target,
                    tls_check)


async def session():
    return await psycopg.AsyncConnection.connect(**libpq(), autocommit=True)


async def rows(conn, sql, params=None, **options):
    cur = await conn.execute(sql, params, **options)
    return await cur.fetchall() if cur.description else None


async def fails(conn, sqlstate, sql, params=None, **options):
    try:
        await rows(conn, sql, params, **options)
    except psycopg.Error as e:
        same(e.sqlstate, sqlstate)
        return
    raise AssertionError(f"no error {sqlstate}")


@check
async def connect():
    async with await session() as conn:
        same(await rows(conn, "select current_user, current_database()"), [("app", target.database)])


@tls_check
async def tls():
    async with await session() as conn:
        same(conn.pgconn.ssl_in_use, True)


@tls_check
async def tls_stranger():
    try:
        await psycopg.AsyncConnection.connect(**libpq(ca=target.stranger))
    except psycopg.OperationalError as e:
        same("certificate verify failed" in str(e), True)
    else:
        raise AssertionError("a stranger's certificate was taken")


async def prepared_client(conn, sql, expect):
    """Executes one named statement again and again, and returns the servers' processes."""
    pids = set()
    for n in range(30):
        async with conn.transaction():  # with a pause, so that clients overlap
            value, pid = (await rows(conn, sql, (n,), prepare=True))[0]
            same(value, expect(n))
            pids.add(pid)
            await asyncio.sleep(0)
    return pids


@check
async def prepared():
    async with await session() as one, await session() as two, await session() as three:
        pids = await asyncio.gather(*(prepared_client(c, "select %s::int + 1, pg_backend_pid()", lambda n: n + 1) for c in (one, two, three)))
        if target.mode != "transaction":
            for p in pids:
                lands(p)


@check
async def prepared_different():
    async with await session() as one, await session() as two, await session() as three:
        await asyncio.gather(*(prepared_client(c, f"select %s::int + {k}, pg_backend_pid()", lambda n, k=k: n + k)
                               for k, c in enumerate((one, two, three))))


@check
async def transaction():
    async with await session() as conn:
        await rows(conn, "drop table if exists tx")
        await rows(conn, "create table tx(a int)")
        async with conn.transaction(force_rollback=True):
            await rows(conn, "insert into tx values (%s)", (1,))
        async with conn.transaction():
            await rows(conn, "insert into tx values (%s)", (2,))
            async with conn.transaction(force_rollback=True):
                await rows(conn, "insert into tx values (%s)", (3,))
            await rows(conn, "insert into tx values (%s)", (4,))
        same(await rows(conn, "select array_agg(a order by a) from tx"), [([2, 4],)])


@check
async def error():
    async with await session() as conn:
        await fails(conn, "22012", "select 1/%s", (0,))
        await fails(conn, "42601", "selec 1")
        same(await rows(conn, "select 1"), [(1,)])


@check
async def copy_in():
    async with await session() as conn, conn.cursor() as cur:
        await rows(conn, "drop table if exists copied")
        await rows(conn, "create table copied(a int, b text)")
        async with cur.copy("copy copied from stdin") as copy:
            for n in range(5000):
                await copy.write_row((n, f"row {n}"))
        same(await rows(conn, "select count(*), sum(a) from copied"), [(5000, 12497500)])


@check
async def copy_out():
    async with await session() as conn, conn.cursor() as cur:
        async with cur.copy("copy (select g from generate_series(1, 20000) g) to stdout") as copy:
            same(b"".join([bytes(block) async for block in copy]), b"".join(b"%d\n" % n for n in range(1, 20001)))


@check
async def cancel():
    async with await session() as conn, await session() as observer:
        running = asyncio.create_task(fails(conn, "57014", CANCEL_ME))
        for _ in range(1500):
            if await rows(observer, RUNNING, prepare=False) == [(1,)]:
                break
            await asyncio.sleep(0.02)
        await asyncio.to_thread(conn.cancel)
        await running
        same(await rows(conn, "select 1"), [(1,)])


@check
async def notice():
    async with await session() as conn:
        seen = []
        conn.add_notice_handler(lambda diag: seen.append(diag.message_primary))
        await rows(conn, NOTICE)
        same(seen, ["look out"])


@check
async def large():
    async with await session() as one, await session() as other:
        for got in await asyncio.gather(rows(one, LARGE_ROWS), rows(other, LARGE_ROWS)):
            same((len(got), sum(len(text) for _, text in got)), (1000, 5000000))
        same(await rows(one, "select length(%s)", ("z" * 4 * MEGABYTE,)), [(4 * MEGABYTE,)])


@check
async def parameters():
    async with await session() as conn:
        values = (None, TEXT, EVERY_BYTE, -2**63, 0.1)
        same(await rows(conn, "select %s::text, %s::text, %s::bytea, %s::int8, %s::float8", values, binary=True), [values])


@check
async def cursor():
    async with await session() as conn, conn.transaction(), conn.cursor("named") as cur:
        cur.itersize = 100
        await cur.execute("select generate_series(1, %s)", (1000,))
        same(sum([a async for (a,) in cur]), 500500)


@check
async def pipeline():
    async with await session() as conn, conn.pipeline():
        cursors = [await conn.execute("select %s::int + 1", (n,), prepare=False) for n in range(20)]
        same([(await c.fetchone())[0] for c in cursors], list(range(1, 21)))


run()
