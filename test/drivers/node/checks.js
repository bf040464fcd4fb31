// What the node programs share: the target, the checks' order, and their report.

'use strict';

const {readFileSync} = require('fs');
const {isDeepStrictEqual, inspect} = require('util');

// As the test describes it: name, mode (direct, session or transaction), host, port, user, password, database, tls, ca, stranger.
const target = JSON.parse(readFileSync(0, 'utf8'));

const all = [];

// check registers an async function under a name; what it throws is the check's failure.
const check = (name, body) => all.push({name, body});

// tlsCheck is the same for what only a target with TLS is asked.
const tlsCheck = (name, body) => { if (target.tls) check(name, body); };

// tlsOptions verify the server by an authority's certificate and the host's name.
const tlsOptions = ca => target.tls && {ca: readFileSync(ca, 'utf8'), rejectUnauthorized: true, servername: target.host};

// same fails unless got is want. Large values are told in short.
function same(got, want) {
  if (!isDeepStrictEqual(got, want)) throw new Error(`got ${inspect(got).slice(0, 200)}, want ${inspect(want).slice(0, 200)}`);
}

// fails wants a promise to end with an SQLSTATE, and returns the error.
async function fails(promise, sqlstate) {
  const e = await promise.then(() => { throw new Error(`no error ${sqlstate}`); }, e => e);
  if (e.code !== sqlstate) throw e;
  return e;
}

// lands judges the servers that executed a statement: several where transactions are pooled, one elsewhere.
function lands(pids) {
  const servers = new Set(pids).size;
  if (servers > 1 !== (target.mode === 'transaction')) throw new Error(`executed on ${servers} server(s)`);
}

// until polls for what has no event to wait for.
async function until(condition) {
  for (const end = Date.now() + 60000; !await condition();) {
    if (Date.now() > end) throw new Error('not within a minute');
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

const ints = (from, to) => Array.from({length: to - from + 1}, (_, n) => from + n);

// run makes all checks and prints one line of JSON for each. An error that nobody catches is the running check's.
async function run() {
  let detail;
  const failed = e => { detail = detail || String(e && e.stack || e).slice(0, 600) || 'failed'; };
  process.on('unhandledRejection', failed);
  process.on('uncaughtException', failed);
  for (const {name, body} of all) {
    detail = '';
    await body().catch(failed);
    console.log(JSON.stringify({check: name, ok: detail === '', detail}));
  }
  process.exit(0); // whatever a failed check has left open
}

const CANCEL_ME = 'select pg_sleep(30)';
const MEGABYTE = 1 << 20;

module.exports = {
  target, check, tlsCheck, tlsOptions, same, fails, lands, until, ints, run, CANCEL_ME, MEGABYTE,
  RUNNING: `select count(*)::int as n from pg_stat_activity where datname = current_database() and query = '${CANCEL_ME}' and state = 'active'`,
  LARGE_ROWS: "select g, repeat('x', 5000) as text from generate_series(1, 1000) g",
  EVERY_BYTE: Buffer.from(ints(0, 255)),
  TEXT: "na\u00efve \u2603 \u{1f40d} ' \" \\ %",
  NOTICE: "do $$ begin raise notice 'look out'; end $$",
};
