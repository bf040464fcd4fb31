// Databases: which one a client means, and those that are made, renamed and dropped while the gate knows them.

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// TestDatabaseNamedAsTheUser: libpq fills in the user's name where no database is said, so that one nobody has listed counts as
// none; one that is listed is meant.
func TestDatabaseNamedAsTheUser(t *testing.T) {
	t.Parallel()
	cluster := harness.Postgres(t)
	name := harness.Unique("same")
	for _, sql := range []string{fmt.Sprintf("create role %s login password 'pw'", name), fmt.Sprintf("create database %s owner %s", name, name)} {
		if err := cluster.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	users := []harness.Map{{"name": name, "verifier": harness.Verifier(t, cluster, name)}}
	for _, listed := range []bool{true, false} {
		g := startGate(t, gateConf{Cluster: cluster, Tenant: func(m harness.Map) {
			m["users"] = users
			if listed {
				m["databases"] = []any{m["database"], name}
			}
		}})
		want := map[bool]string{true: name, false: g.database}[listed]
		for _, mode := range modes {
			dsn := fmt.Sprintf("host=127.0.0.1 port=%s user=%s password=pw dbname=%s sslmode=disable connect_timeout=60 options=reference=acme", g.port(mode), name, name)
			if got := value(t, connectConfig(t, configOf(t, dsn)), "select current_database()"); got != want {
				t.Errorf("%s, listed %v: in database %s, want %s", mode, listed, got, want)
			}
			dsn = fmt.Sprintf("host=127.0.0.1 port=%s user=%s.acme password=pw dbname=%s.acme sslmode=disable connect_timeout=60", g.port(mode), name, name)
			if got := value(t, connectConfig(t, configOf(t, dsn)), "select current_database()"); got != g.database {
				t.Errorf("%s, listed %v: as libpq fills it in: in database %s, want %s", mode, listed, got, g.database)
			}
		}
	}
}

// maker makes a role that may make databases, with password pw, and the gate it comes to.
func maker(t *testing.T, change func(harness.Map)) (g *gate, role string) {
	t.Helper()
	// DROP DATABASE waits for every process of a cluster, also for one whose client has stopped to read: another test's, perhaps.
	cluster := harness.Postgres(t, local.Options{})
	role = harness.Unique("maker")
	if err := cluster.Exec(t.Context(), "postgres", fmt.Sprintf("create role %s login createdb password 'pw'", role)); err != nil {
		t.Fatal(err)
	}
	return startGate(t, gateConf{Cluster: cluster, Tenant: func(m harness.Map) {
		m["users"] = append(m["users"].([]harness.Map), harness.Map{"name": role, "verifier": harness.Verifier(t, cluster, role)})
		if change != nil {
			change(m)
		}
	}}), role
}

// asMaker is how the role reaches a database.
func (g *gate) asMaker(listener, role, database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%s user=%s.acme password=pw dbname=%s sslmode=disable connect_timeout=60", g.port(listener), role, database)
}

// TestAnswerAboutADatabaseIsAskedAnew: what a server has said of a database, or of who may come to it, holds for those who have
// asked. A moment later it may exist.
func TestAnswerAboutADatabaseIsAskedAnew(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	direct := g.direct(t)
	for _, mode := range modes {
		name := harness.Unique("later")
		do(t, direct, "create database "+name+"_before") // which takes longer than to give it its name
		for range 4 {
			_, err := pgconn.Connect(t.Context(), g.dsn(mode, "dbname="+name))
			wantState(t, err, "3D000")
		}
		do(t, direct, "alter database "+name+"_before rename to "+name)
		conn, err := pgx.Connect(t.Context(), g.dsn(mode, "dbname="+name))
		if err != nil {
			t.Errorf("%s: now that it exists: %v", mode, err)
		} else {
			closeConn(conn)
		}

		name = harness.Unique("closed")
		do(t, direct, "create database "+name)
		do(t, direct, "revoke connect on database "+name+" from public")
		for range 4 {
			_, err := pgconn.Connect(t.Context(), g.dsn(mode, "dbname="+name))
			wantState(t, err, "42501")
		}
		do(t, direct, "grant connect on database "+name+" to "+harness.App)
		if conn, err = pgx.Connect(t.Context(), g.dsn(mode, "dbname="+name)); err != nil {
			t.Errorf("%s: after GRANT: %v", mode, err)
		} else {
			closeConn(conn)
		}
	}
}

// TestWrongDatabaseInALoop: who asks for the same wrong database again and again does not have the server asked as often.
func TestWrongDatabaseInALoop(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	closeConn(g.connect(t, "transaction"))
	failed := func() float64 { return g.metric("postern_server_logins_total", "result", "failed") }
	before, start := failed(), time.Now()
	var told atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				if _, err := pgconn.Connect(t.Context(), g.dsn("transaction", "dbname=nowhere")); sqlstate(err) == "3D000" {
					told.Add(1)
				}
			}
		})
	}
	all.Wait()
	asked, bound := failed()-before, time.Since(start).Seconds()*20+5 // four before the first answer, and one in 50 ms at most
	if told.Load() != 40 || asked > bound {
		t.Errorf("%d of 40 were told 3D000, %v logins at the server, want at most %v", told.Load(), asked, bound)
	}
}

// TestDroppedIsNotGreeted: nobody is greeted in a database that is known to be gone.
func TestDroppedIsNotGreeted(t *testing.T) {
	t.Parallel()
	g, role := maker(t, nil)
	direct := g.direct(t)
	admin := connectConfig(t, configOf(t, g.asMaker("transaction", role, g.database)))
	for _, mode := range []string{"transaction", "statement"} {
		for _, how := range []string{"elsewhere", "here"} {
			name := harness.Unique("gone")
			do(t, admin, "create database "+name)
			closeConn(connectConfig(t, configOf(t, g.asMaker(mode, role, name))))
			if how == "elsewhere" {
				do(t, direct, "drop database "+name+" with (force)")
				if conn, err := pgx.Connect(t.Context(), g.asMaker(mode, role, name)); err == nil { // as remembered
					_, err := tryValue(t.Context(), conn, "select 1")
					wantState(t, err, "3D000")
				}
			} else {
				do(t, admin, "drop database "+name)
			}
			_, err := pgconn.Connect(t.Context(), g.asMaker(mode, role, name))
			if got := sqlstate(err); got != "3D000" {
				t.Errorf("%s, dropped %s: a login got %s, want 3D000", mode, how, got)
			}
		}
	}
}

// TestLeftDatabase drops, renames and copies databases that nobody is connected to any more, while the gate still is.
func TestLeftDatabase(t *testing.T) {
	t.Parallel()
	g, role := maker(t, func(m harness.Map) { m["pool"] = harness.Map{"min": 1} })
	direct := g.direct(t)
	visit := func(mode, name string) { // and leave
		t.Helper()
		for _, other := range []string{mode, "transaction"} {
			conn := connectConfig(t, configOf(t, g.asMaker(other, role, name)))
			value(t, conn, "select 1")
			closeConn(conn)
		}
		conn := connectConfig(t, configOf(t, g.dsn(mode, "dbname="+name))) // somebody else's pool
		value(t, conn, "select 1")
		closeConn(conn)
	}
	exists := func(name string) bool {
		return value(t, direct, "select count(*) from pg_database where datname = '"+name+"'") == "1"
	}
	for i, mode := range modes {
		protocols := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}
		if !harness.Long() {
			protocols = protocols[i : i+1]
		}
		for _, protocol := range protocols {
			conf := configOf(t, g.asMaker(mode, role, g.database))
			conf.DefaultQueryExecMode = protocol
			admin := connectConfig(t, conf)
			run := func(sql string) {
				t.Helper()
				ctx, done := context.WithTimeout(t.Context(), harness.Patience)
				defer done()
				var err error
				if protocol == pgx.QueryExecModeCacheStatement { // which Exec uses with arguments only
					name, words := harness.Unique("ddl"), strings.Fields(sql)
					if _, err = admin.PgConn().Prepare(ctx, name, sql, nil); err == nil {
						visit(mode, strings.Trim(words[len(words)-1], `"`)) // between Parse and Bind
						err = admin.PgConn().ExecPrepared(ctx, name, nil, nil, nil).Read().Err
					}
				} else if protocol == pgx.QueryExecModeExec {
					err = admin.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read().Err
				} else {
					_, err = admin.Exec(ctx, sql)
				}
				if err != nil {
					t.Errorf("%s, %v: %s: %v", mode, protocol, sql, err)
				}
			}
			name := harness.Unique("Left")
			do(t, admin, fmt.Sprintf("create database %q", name))
			visit(mode, name)
			run(fmt.Sprintf("create database %s template = %q", name+"_copy", name))
			if protocol == pgx.QueryExecModeCacheStatement {
				run(fmt.Sprintf("/* done */ DROP DATABASE IF EXISTS %q", name))
			} else {
				visit(mode, name)
				run(fmt.Sprintf("alter database %q rename to %s", name, name+"_new"))
				visit(mode, strings.ToLower(name+"_new"))
				run(fmt.Sprintf("/* done */ DROP DATABASE IF EXISTS %s", name+"_new"))
			}
			if exists(name) || exists(strings.ToLower(name+"_new")) || !exists(strings.ToLower(name+"_copy")) {
				t.Errorf("%s, %v: it is not as it was asked for", mode, protocol)
			}
			closeConn(admin)
		}
	}
	// The programs that come with PostgreSQL.
	env := append(exec.Command("true").Environ(), "PGHOST=127.0.0.1", "PGPORT="+g.port("session"), "PGUSER="+role+".acme", "PGPASSWORD=pw", "PGSSLMODE=disable")
	name := harness.Unique("by program")
	for _, args := range [][]string{{"createdb", name}, {"createdb", "-T", name, name + " copy"}, {"dropdb", name}, {"dropdb", "--if-exists", name + " copy"}} {
		if exists(name) {
			visit("session", "'"+name+"'")
		}
		cmd := exec.CommandContext(t.Context(), harness.Program(t, args[0]), append([]string{"--maintenance-db=" + g.database}, args[1:]...)...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	if exists(name) || exists(name+" copy") {
		t.Error("a program has left a database")
	}
}
