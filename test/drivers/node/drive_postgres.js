// postgres (postgres.js): its own protocol code; prepares every query under a name, and pipelines.

'use strict';

const {pipeline: flow} = require('stream/promises');
const {Readable} = require('stream');
const postgres = require('postgres');
const {target, check, tlsCheck, tlsOptions, same, fails, lands, until, ints, run, ...sql} = require('./checks');

const settings = ({host, port, user, password, database} = target) =>
  ({host, port, user, password, database, ssl: tlsOptions(target.ca), connect_timeout: 60, max: 1, onnotice() {}});

// session makes so many clients of one connection each for a function, and closes them afterwards.
async function session(body, options) {
  const clients = Array.from({length: body.length}, () => postgres({...settings(), ...options}));
  try {
    await body(...clients);
  } finally {
    await Promise.all(clients.map(c => c.end({timeout: 5})));
  }
}

const plus = async (c, n) => (await c`select ${n}::int + 1 as value, pg_backend_pid() as pid`)[0];
const times = async (c, n) => (await c`select ${n}::int * 10 as value, pg_backend_pid() as pid`)[0];
const simple = (c, text) => c.unsafe(text).simple();

check('connect', () => session(async c => {
  same((await simple(c, 'select current_user, current_database()'))[0], {current_user: 'app', current_database: target.database});
}));

tlsCheck('tls_stranger', () => session(async c => {
  await fails(simple(c, 'select 1'), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
}, {ssl: tlsOptions(target.stranger)}));

check('prepared', () => session(async (c, holder) => {
  const pids = [];
  for (let n = 0; n < 6; n++) {
    const first = await plus(c, n);
    same(first.value, n + 1);
    await holder.begin(async held => { // on the server that was used last
      await simple(held, 'select 1');
      const second = await plus(c, -n);
      same(second.value, 1 - n);
      pids.push(first.pid, second.pid);
    });
  }
  lands(pids);
  if (target.mode === 'direct') {
    same(await c`select statement from pg_prepared_statements where statement like '%+ 1 as value%' and statement not like '%pg_prepared%'`.then(r => r.length), 1);
  }
}));

check('prepared_equal', () => session(async (one, other, holder) => {
  for (let n = 0; n < 5; n++) {
    same((await plus(one, n)).value, n + 1);
    await holder.begin(async held => {
      await simple(held, 'select 1');
      same((await plus(other, n)).value, n + 1);
      same((await plus(one, n)).value, n + 1);
    });
  }
}));

check('prepared_different', () => session(async (one, other, holder) => {
  for (let n = 0; n < 5; n++) {
    same((await plus(one, n)).value, n + 1);
    same((await times(other, n)).value, n * 10);
    await holder.begin(async held => {
      await simple(held, 'select 1');
      same((await times(other, n)).value, n * 10);
      same((await plus(one, n)).value, n + 1);
    });
  }
}));

check('prepared_error', () => session(async c => {
  for (let n = 0; n < 3; n++) {
    same((await c`select 1 / ${1}::int as one`)[0].one, 1);
    await fails(c`select 1 / ${0}::int as one`, '22012');
    await fails(c`select nothing, ${1}::int`, '42703');
  }
}));

check('unnamed', () => session(async c => {
  for (let n = 0; n < 5; n++) same((await plus(c, n)).value, n + 1);
}, {prepare: false}));

check('transaction', () => session(async c => {
  await simple(c, 'drop table if exists tx; create table tx(a int)');
  await c.begin(async tx => {
    await simple(tx, 'insert into tx values (1)');
    throw new Error('roll back');
  }).catch(e => same(e.message, 'roll back'));
  await c.begin(async tx => {
    await simple(tx, 'insert into tx values (2)');
    await tx.savepoint(async nested => {
      await simple(nested, 'insert into tx values (3)');
      await simple(nested, 'select 1/0');
    }).catch(e => same(e.code, '22012'));
    await simple(tx, 'insert into tx values (4)');
  });
  same((await simple(c, 'select a from tx order by a')).map(row => row.a), [2, 4]);
}));

check('error', () => session(async c => {
  await simple(c, 'drop table if exists err; create table err(a int constraint err_key primary key); insert into err values (1)');
  const e = await fails(simple(c, 'insert into err values (1)'), '23505');
  same([e.constraint_name, e.table_name], ['err_key', 'err']);
  await fails(simple(c, 'selec 1'), '42601');
  same((await simple(c, 'select 1 as one'))[0].one, 1);
}));

check('copy_in', () => session(async c => {
  await simple(c, 'drop table if exists copied; create table copied(a int, b text)');
  const lines = ints(0, 19999).map(n => `${n}\trow ${n}\n`).join('');
  await flow(Readable.from([lines]), await simple(c, 'copy copied from stdin').writable());
  same((await simple(c, 'select count(*)::int as n from copied'))[0].n, 20000);
}));

check('copy_out', () => session(async c => {
  const chunks = [];
  for await (const chunk of await simple(c, "copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout").readable()) chunks.push(chunk);
  same(Buffer.concat(chunks).toString(), ints(1, 20000).map(n => `${n}\trow ${n}\n`).join(''));
}));

check('cancel', () => session(async (c, observer) => {
  const query = simple(c, sql.CANCEL_ME);
  const ended = fails(query, '57014');
  await until(async () => (await simple(observer, sql.RUNNING))[0].n === 1);
  await query.cancel();
  await ended;
  same((await simple(c, 'select 1 as one'))[0].one, 1);
}));

check('notice', async () => {
  const seen = [];
  await session(async c => { await simple(c, sql.NOTICE); }, {onnotice: n => seen.push([n.severity, n.message])});
  same(seen, [['NOTICE', 'look out']]);
});

check('large', () => session(async c => {
  const got = await simple(c, sql.LARGE_ROWS);
  same([got.length, got.reduce((sum, row) => sum + row.text.length, 0)], [1000, 5000000]);
  same((await c`select repeat('y', ${8 * sql.MEGABYTE}::int) as y`)[0].y.length, 8 * sql.MEGABYTE);
  same((await c`select length(${'z'.repeat(4 * sql.MEGABYTE)}::text) as n`)[0].n, 4 * sql.MEGABYTE);
}));

check('parameters', () => session(async c => {
  const want = {a: null, b: sql.TEXT, c: sql.EVERY_BYTE, d: '-9223372036854775808', e: 0.1, f: [1, 2, 3], g: {a: [1, null]}};
  same({...(await c`select ${want.a}::text a, ${want.b}::text b, ${want.c}::bytea c, ${want.d}::int8 d, ${want.e}::float8 e,
    ${want.f}::int[] f, ${c.json(want.g)}::jsonb g`)[0]}, want);
}));

check('cursor', () => session(async c => {
  let sum = 0;
  await c.begin(async tx => {
    for await (const part of tx`select generate_series(1, ${1000}::int) as n`.cursor(100)) sum += part.reduce((s, row) => s + row.n, 0);
  });
  same(sum, 500500);
}));

check('pipeline', () => session(async c => {
  const got = await Promise.allSettled(ints(1, 50).map(n => n % 10 === 0 ? c`select 1/(0*${n}::int) as n` : c`select ${n}::int as n`));
  same(got.map(g => g.status === 'fulfilled' ? g.value[0].n : g.reason.code), ints(1, 50).map(n => n % 10 === 0 ? '22012' : n));
}));

check('driver_pool', () => session(async c => {
  same((await Promise.all(ints(1, 40).map(n => plus(c, n)))).map(row => row.value), ints(2, 41));
}, {max: 4}));

run();
