// pg (node-postgres): its own protocol code; a query with a name is a named statement.

'use strict';

const {pipeline: flow} = require('stream/promises');
const {Readable} = require('stream');
const pg = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');
const {target, check, tlsCheck, tlsOptions, same, fails, lands, until, ints, run, ...sql} = require('./checks');

const settings = ({host, port, user, password, database} = target) =>
  ({host, port, user, password, database, ssl: tlsOptions(target.ca), connectionTimeoutMillis: 60000});

// session opens so many connections for a function, and closes them afterwards.
async function session(body, options) {
  const clients = [];
  try {
    for (let n = 0; n < body.length; n++) {
      clients.push(new pg.Client({...settings(), ...options}));
      await clients[n].connect();
    }
    await body(...clients);
  } finally {
    await Promise.all(clients.map(c => c.end()));
  }
}

const rows = async (client, text, values) => (await client.query({text, values, rowMode: 'array'})).rows;
const named = async (client, name, text, value) => (await client.query({name, text, values: [value], rowMode: 'array'})).rows[0];

const PLUS = 'select $1::int + 1, pg_backend_pid()';
const TIMES = 'select $1::int * 10, pg_backend_pid()';

check('connect', () => session(async client => {
  same(await rows(client, 'select current_user, current_database()'), [['app', target.database]]);
}));

tlsCheck('tls', () => session(async client => {
  same(client.connection.stream.authorized, true);
}));

tlsCheck('tls_stranger', async () => {
  const client = new pg.Client({...settings(), ssl: tlsOptions(target.stranger)});
  await fails(client.connect(), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
});

check('prepared', () => session(async (client, holder) => {
  const pids = [];
  for (let n = 0; n < 6; n++) {
    const [value, pid] = await named(client, 'plus', PLUS, n);
    same(value, n + 1);
    await holder.query('begin'); // on the server that was used last
    const [again, other] = await named(client, 'plus', PLUS, -n);
    same(again, 1 - n);
    await holder.query('rollback');
    pids.push(pid, other);
  }
  lands(pids);
  if (target.mode === 'direct') same(await rows(client, 'select name from pg_prepared_statements'), [['plus']]);
}));

check('prepared_equal', () => session(async (one, other, holder) => {
  for (let n = 0; n < 5; n++) {
    same((await named(one, 'plus', PLUS, n))[0], n + 1);
    await holder.query('begin');
    same((await named(other, 'plus', PLUS, n))[0], n + 1);
    same((await named(one, 'plus', PLUS, n))[0], n + 1);
    await holder.query('rollback');
  }
}));

check('prepared_different', () => session(async (one, other, holder) => {
  for (let n = 0; n < 5; n++) {
    same((await named(one, 'same', PLUS, n))[0], n + 1);
    same((await named(other, 'same', TIMES, n))[0], n * 10);
    await holder.query('begin');
    same((await named(other, 'same', TIMES, n))[0], n * 10);
    same((await named(one, 'same', PLUS, n))[0], n + 1);
    await holder.query('rollback');
  }
}));

check('prepared_error', () => session(async client => {
  for (let n = 0; n < 3; n++) {
    same(await named(client, 'divide', 'select 1 / $1::int', 1), [1]);
    await fails(named(client, 'divide', 'select 1 / $1::int', 0), '22012');
    await fails(named(client, 'nothing', 'select nothing, $1::int', 1), '42703');
  }
}));

check('transaction', () => session(async client => {
  await client.query('drop table if exists tx; create table tx(a int)');
  await client.query('begin');
  await rows(client, 'insert into tx values ($1)', [1]);
  await client.query('rollback');
  await client.query('begin');
  await rows(client, 'insert into tx values ($1)', [2]);
  await client.query('savepoint s');
  await rows(client, 'insert into tx values ($1)', [3]);
  await fails(rows(client, 'select 1/$1', [0]), '22012');
  await client.query('rollback to savepoint s');
  await rows(client, 'insert into tx values ($1)', [4]);
  await client.query('commit');
  same(await rows(client, 'select a from tx order by a'), [[2], [4]]);
}));

check('error', () => session(async client => {
  await client.query('drop table if exists err; create table err(a int constraint err_key primary key); insert into err values (1)');
  const e = await fails(rows(client, 'insert into err values ($1)', [1]), '23505');
  same([e.constraint, e.table], ['err_key', 'err']);
  await fails(client.query('selec 1'), '42601');
  await client.query('begin');
  await fails(rows(client, 'select 1/$1', [0]), '22012');
  await fails(client.query('select 1'), '25P02');
  await client.query('rollback');
  same(await rows(client, 'select 1'), [[1]]);
}));

check('copy_in', () => session(async client => {
  await client.query('drop table if exists copied; create table copied(a int, b text)');
  const lines = ints(0, 19999).map(n => `${n}\trow ${n}\n`).join('');
  await flow(Readable.from([lines]), client.query(copy.from('copy copied from stdin')));
  same(await rows(client, 'select count(*)::int, sum(a)::int from copied'), [[20000, 199990000]]);
  await fails(flow(Readable.from(['no number\tx\n']), client.query(copy.from('copy copied from stdin'))), '22P02');
  same(await rows(client, 'select count(*)::int from copied'), [[20000]]);
}));

check('copy_out', () => session(async client => {
  const stream = client.query(copy.to("copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout"));
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  same(Buffer.concat(chunks).toString(), ints(1, 20000).map(n => `${n}\trow ${n}\n`).join(''));
  same(await rows(client, 'select 1'), [[1]]);
}));

check('cancel', () => session(async (client, observer) => {
  const query = new pg.Query(sql.CANCEL_ME);
  const ended = new Promise((resolve, reject) => { query.on('error', reject); query.on('end', resolve); });
  client.query(query);
  await until(async () => (await rows(observer, sql.RUNNING))[0][0] === 1);
  new pg.Client({...settings(), ssl: false}).cancel(client, query); // it cannot cancel over TLS
  await fails(ended, '57014');
  same(await rows(client, 'select 1'), [[1]]);
}));

check('notice', () => session(async client => {
  const seen = [];
  client.on('notice', n => seen.push([n.severity, n.message]));
  await client.query(sql.NOTICE);
  same(seen, [['NOTICE', 'look out']]);
}));

check('large', () => session(async client => {
  const got = await rows(client, sql.LARGE_ROWS);
  same([got.length, got.reduce((sum, row) => sum + row[1].length, 0)], [1000, 5000000]);
  same((await rows(client, "select repeat('y', $1)", [8 * sql.MEGABYTE]))[0][0].length, 8 * sql.MEGABYTE);
  same(await rows(client, 'select length($1)', ['z'.repeat(4 * sql.MEGABYTE)]), [[4 * sql.MEGABYTE]]);
}));

check('parameters', () => session(async client => {
  const values = [null, sql.TEXT, sql.EVERY_BYTE, '-9223372036854775808', 0.1, [1, null, 3]];
  const text = 'select $1::text, $2::text, $3::bytea, $4::int8, $5::float8, $6::int[]';
  same(await rows(client, text, values), [values]);
  const {rows: [binary]} = await client.query({text: 'select $1::int as i, $2::text as t', values: [7, sql.TEXT], binary: true});
  same({...binary}, {i: 7, t: sql.TEXT});
}));

check('cursor', () => session(async client => {
  await client.query('begin');
  const cursor = client.query(new Cursor('select generate_series(1, $1::int) as n', [1000]));
  let sum = 0;
  for (let part; (part = await cursor.read(100)).length > 0;) sum += part.reduce((s, row) => s + row.n, 0);
  await cursor.close();
  await client.query('commit');
  same(sum, 500500);
}));

check('pipeline', () => session(async client => {
  const asked = ints(1, 50).map(n => rows(client, n % 10 === 0 ? 'select 1/(0*$1::int)' : 'select $1::int', [n]));
  const got = await Promise.allSettled(asked);
  same(got.map(g => g.status === 'fulfilled' ? g.value[0][0] : g.reason.code), ints(1, 50).map(n => n % 10 === 0 ? '22012' : n));
}, {pipeline: true}));

check('pipeline_prepared', () => session(async (client, holder) => {
  for (let round = 0; round < 4; round++) {
    const got = await Promise.all(ints(1, 20).map(n => n % 2 ? named(client, 'plus', PLUS, n) : named(client, 'times', TIMES, n)));
    same(got.map(row => row[0]), ints(1, 20).map(n => n % 2 ? n + 1 : n * 10));
    await holder.query(round % 2 ? 'rollback' : 'begin');
  }
}, {pipeline: true}));

check('driver_pool', async () => {
  const pool = new pg.Pool({...settings(), max: 4});
  try {
    const got = await Promise.all(ints(1, 40).map(n => pool.query('select $1::int as n', [n])));
    same(got.map(g => g.rows[0].n), ints(1, 40));
  } finally {
    await pool.end();
  }
});

run();
