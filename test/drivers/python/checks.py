"""What the Python programs share: the target, the order of the checks, and their report."""

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
from types import SimpleNamespace

# As the test describes it: name, mode (direct, session or transaction), host, port, user, password, database, tls, ca, stranger.
target = SimpleNamespace(**json.load(sys.stdin))

CANCEL_ME = "select pg_sleep(30)"
RUNNING = "select count(*) from pg_stat_activity where datname = current_database() and query = 'select pg_sleep(30)' and state = 'active'"
LARGE_ROWS = "select g, repeat('x', 5000) from generate_series(1, 1000) g"
MEGABYTE = 1 << 20
EVERY_BYTE = bytes(range(256))
TEXT = "na\u00efve \u2603 \U0001f40d ' \" \\ %"
NOTICE = "do $$ begin raise notice 'look out'; end $$"

_checks = []


def check(f):
    """Registers a function, plain or async, under its name. Its exception is the check's failure."""
    _checks.append(f)
    return f


def tls_check(f):
    """The same for what only a target with TLS is asked."""
    return check(f) if target.tls else f


def libpq(ca=None):
    """Parameters for whatever is made of libpq."""
    params = dict(host=target.host, port=target.port, user=target.user, password=target.password, dbname=target.database,
                  connect_timeout=60, sslmode="disable")
    if target.tls:
        params.update(sslmode="verify-full", sslrootcert=ca or target.ca, channel_binding="require")
    return params


def same(got, want):
    """Fails unless got is want. Large values are told in short."""
    if got != want:
        raise AssertionError(f"got {repr(got)[:200]}, want {repr(want)[:200]}")


def lands(pids):
    """Judges the servers that executed a statement: several where transactions are pooled, one elsewhere."""
    several = len(set(pids)) > 1
    if several != (target.mode == "transaction"):
        raise AssertionError(f"executed on {len(set(pids))} server(s)")


def until(condition):
    """Polls for what has no event to wait for."""
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("not within a minute")
        time.sleep(0.02)


def run():
    """Runs all checks and prints one line of JSON for each."""
    for f in _checks:
        ok, detail = True, ""
        try:
            if inspect.iscoroutinefunction(f):
                asyncio.run(f())
            else:
                f()
        except Exception as e:  # whatever the driver raises is the finding
            lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == os.path.abspath(sys.argv[0])]
            ok, detail = False, f"{type(e).__name__} in line {lines[-1] if lines else '?'}: {e}"[:600]
        print(json.dumps({"check": f.__name__, "ok": ok, "detail": detail}), flush=True)
