"""psql: the system's program with whichever libpq its environment gives it."""

import os
import signal
import subprocess
import tempfile

from checks import CANCEL_ME, LARGE_ROWS, MEGABYTE, NOTICE, RUNNING, check, libpq, run, same, target, tls_check, until

PSQL = ["psql", "-X", "-q", "-A", "-t", "-v", "VERBOSITY=sqlstate"]


def command(ca=None):
    return PSQL + ["-d", " ".join(f"{name}='{value}'" for name, value in libpq(ca).items())]


def psql(*lines, ca=None):
    """Gives psql a script and returns what it printed, and what it complained of."""
    done = subprocess.run(command(ca), input="\n".join(lines) + "\n", capture_output=True, text=True)
    return done.stdout.splitlines(), done.stderr.splitlines()


def fresh(table, columns):
    psql(f"drop table if exists {table};", f"create table {table}({columns});")


def prints(want, *lines):
    same(psql(*lines), (want, []))


@check
def connect():
    prints([f"app|{target.database}"], "select current_user, current_database();")


@tls_check
def tls():
    out, _ = psql("\\conninfo")
    same("SSL connection" in out[-1], True)


@tls_check
def tls_stranger():
    out, complaints = psql("select 1;", ca=target.stranger)
    same((out, "certificate verify failed" in complaints[0]), ([], True))


@check
def prepared_sql():
    prints(["2", "3"], "prepare plan(int) as select $1 + 1;", "execute plan(1);", "execute plan(2);", "deallocate plan;")


@check
def transaction():
    fresh("tx", "a int")
    prints(["2", "4"], "begin;", "insert into tx values (1);", "rollback;",
           "begin;", "insert into tx values (2);", "savepoint s;", "insert into tx values (3);", "rollback to s;",
           "insert into tx values (4);", "commit;", "select a from tx order by a;")


@check
def error():
    out, complaints = psql("select 1/0;", "select 1;", "begin;", "selec 2;", "select 3;", "rollback;", "select 4;")
    same(out, ["1", "4"])
    same([line.split()[-1] for line in complaints], ["22012", "42601", "25P02"])


@check
def copy_in():
    fresh("copied", "a int, b text")
    with tempfile.NamedTemporaryFile("w") as file:
        file.writelines(f"{n}\trow {n}\n" for n in range(20000))
        file.flush()
        prints(["20000|199990000"], f"\\copy copied from {file.name}", "select count(*), sum(a) from copied;")


@check
def copy_out():
    prints([f"{n}\trow {n}" for n in range(1, 20001)], "\\copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout")


@check
def cancel():
    with subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdin.write(CANCEL_ME + ";\n")
        running.stdin.flush()
        until(lambda: psql(RUNNING.replace("pg_sleep(30)'", "pg_sleep(30);'") + ";") == (["1"], []))
        running.send_signal(signal.SIGINT)
        out, complaints = running.communicate(timeout=60)
    same((out, complaints.split()[-1:]), ("", ["57014"]))  # a script ends there


@check
def notice():
    same(psql("\\set VERBOSITY terse", NOTICE + ";"), ([], ["NOTICE:  look out"]))


@check
def large():
    out, complaints = psql(LARGE_ROWS + ";", f"select repeat('y', {8 * MEGABYTE});")
    same((len(out), sum(map(len, out)), complaints), (1001, 5000000 + 8 * MEGABYTE + len("".join(f"{n}|" for n in range(1, 1001))), []))


@check
def cursor():
    """psql's FETCH_COUNT declares a cursor in a transaction of its own."""
    prints([str(n) for n in range(1, 1001)], "\\set FETCH_COUNT 100", "select generate_series(1, 1000);")


@check
def described():
    """psql's catalog queries."""
    fresh("seen", "a int primary key, b text")
    out, complaints = psql("\\d seen", "\\dt", "\\l")
    same((any("seen" in line for line in out), complaints), (True, []))


run()
