// Greetings: what servers report of themselves, told to clients as it is now, however the clients came to know of it before.

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// ownCluster starts one whose settings and state the test may change.
func ownCluster(t *testing.T) *local.Cluster {
	t.Helper()
	return harness.Postgres(t, local.Options{Dir: filepath.Join(harness.Dir(t), "pg")})
}

// greeted is what a client that only logs in is told of a parameter.
func (g *gate) greeted(t *testing.T, mode, parameter string, options ...string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), g.dsn(mode, options...))
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	return conn.PgConn().ParameterStatus(parameter)
}

// TestPromotionIsGreeted: clients that look for a primary by what they are greeted with find it after a promotion, although
// nobody runs anything and servers stay idle.
func TestPromotionIsGreeted(t *testing.T) {
	t.Parallel()
	t.Run("15", func(t *testing.T) { promotes(t, ownCluster(t)) })
	for _, major := range []int{16, 17, 18} {
		if harness.Long() {
			t.Run(fmt.Sprint(major), func(t *testing.T) { promotes(t, harness.PostgresOf(t, major)) })
		}
	}
}

func promotes(t *testing.T, cluster *local.Cluster) {
	t.Helper()
	g := startGate(t, gateConf{Cluster: cluster, Tenant: func(m harness.Map) { m["pool"] = harness.Map{"min": 1} }})
	databases := make(map[string]string) // of each mode one, so that each has a pool of its own
	for _, mode := range modes {
		databases[mode] = harness.Database(t, cluster)
	}
	data := value(t, g.direct(t), "show data_directory")
	if err := cluster.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.WriteTenants(t, g.changed("upstream", upstreamOf(cluster)))
	g.Reload(t)

	// libpq 14 and newer goes by what it was greeted with, before it asks anything.
	wants := func(mode, attrs string) error {
		cmd := exec.CommandContext(t.Context(), harness.Program(t, "psql"), "-XAtqc", `\conninfo`, g.dsn(mode, "dbname="+databases[mode], "target_session_attrs="+attrs))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, mode := range modes {
		if got := g.greeted(t, mode, "in_hot_standby", "dbname="+databases[mode]); got != "on" {
			t.Fatalf("%s: in_hot_standby is %q at a standby", mode, got)
		}
		for _, attrs := range []string{"standby", "read-only"} {
			if err := wants(mode, attrs); err != nil {
				t.Errorf("%s: no %s: %v", mode, attrs, err)
			}
		}
		if wants(mode, "read-write") == nil {
			t.Errorf("%s: a standby is taken for read-write", mode)
		}
	}
	direct := g.direct(t)
	if got := value(t, direct, "select pg_promote()"); got != "t" {
		t.Fatal("not promoted")
	}
	for _, mode := range modes {
		for _, attrs := range []string{"read-write", "primary"} {
			harness.Eventually(t, harness.Patience, mode+": psql finds the new primary", func() bool { return wants(mode, attrs) == nil })
		}
		if wants(mode, "standby") == nil {
			t.Errorf("%s: the new primary is taken for a standby", mode)
		}
		conf := configOf(t, g.dsn(mode, "dbname="+databases[mode], "target_session_attrs=primary"))
		closeConn(connectConfig(t, conf))
	}
}

// TestReloadIsGreeted: what changes for everybody by a reload is what new clients are greeted with.
func TestReloadIsGreeted(t *testing.T) {
	t.Parallel()
	cluster := ownCluster(t)
	g := startGate(t, gateConf{Cluster: cluster, PoolSize: 1, Timeouts: harness.Map{"server_idle": "2s"}})
	direct := g.direct(t)
	idle, held := "dbname="+g.database, "dbname="+harness.Database(t, cluster)
	closeConn(g.connect(t, "transaction", held)) // known from before
	holder := g.script(t, "session", held)       // and nobody else can get its only server
	holder.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	for i, how := range []string{"an idle server", "no server"} {
		zone := []string{"Asia/Tokyo", "Europe/Paris"}[i]
		for _, mode := range modes {
			g.greeted(t, mode, "TimeZone", idle)
		}
		if how == "no server" {
			harness.Eventually(t, harness.Patience, "no server is left", func() bool {
				return value(t, direct, "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database()") == "0"
			})
		}
		for _, sql := range []string{"alter system set timezone = '" + zone + "'", "alter system set default_transaction_read_only = " + []string{"on", "off"}[i], "select pg_reload_conf()"} {
			do(t, direct, sql)
		}
		for _, mode := range modes {
			harness.Eventually(t, harness.Patience, mode+": greeted with the new time zone, with "+how, func() bool { return g.greeted(t, mode, "TimeZone", idle) == zone })
			if got := g.greeted(t, mode, "default_transaction_read_only", idle); got != []string{"on", "off"}[i] {
				t.Errorf("%s: default_transaction_read_only is %q", mode, got)
			}
			if got := g.greeted(t, mode, "TimeZone", idle, "options='-c timezone=Africa/Lagos'"); got != "Africa/Lagos" {
				t.Errorf("%s: one's own time zone is %q", mode, got)
			}
		}
		harness.Eventually(t, harness.Patience, "greeted with the new time zone, while a session has the server", func() bool {
			return g.greeted(t, "transaction", "TimeZone", held) == zone
		})
		if got := holder.answer("select 2"); !strings.Contains(got, "S:TimeZone="+zone) || !strings.HasSuffix(got, "T D:2 C:SELECT_1 Z:I") {
			t.Errorf("the session heard %s", got)
		}
	}
}

// answer is all that is heard of a query.
func (s *script) answer(sql string) string {
	s.t.Helper()
	s.say(query(sql))
	return s.hear(1)
}

// TestEverybodyHearsOfAChange: of two clients with one server, both are told when what it reports has changed.
func TestEverybodyHearsOfAChange(t *testing.T) {
	t.Parallel()
	cluster := ownCluster(t)
	g := startGate(t, gateConf{Cluster: cluster, PoolSize: 1})
	direct := g.direct(t)
	for i, mode := range []string{"transaction", "statement"} {
		a, b := g.script(t, mode), g.script(t, mode)
		own := g.script(t, mode, "options='-c timezone=Africa/Lagos'")
		c := g.script(t, mode)
		for _, s := range []*script{a, b, own, c} {
			s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
		}
		if mode == "transaction" {
			c.want("C:SET S:TimeZone=America/Lima Z:I", 1, query("set timezone = 'America/Lima'"))
		}
		zone := []string{"Asia/Tokyo", "Europe/Paris"}[i]
		do(t, direct, "alter system set timezone = '"+zone+"'")
		do(t, direct, "select pg_reload_conf()")
		told := "S:TimeZone=" + zone
		harness.Eventually(t, harness.Patience, mode+": the first is told", func() bool {
			return strings.Contains(a.answer("select 1"), told)
		})
		for _, s := range []*script{b, b, a, own, c, b, own, c} {
			want := "T D:" + zone + " C:SHOW Z:I"
			switch {
			case s == own:
				want = shows("Africa/Lagos")
			case s == c && mode == "transaction":
				want = shows("America/Lima")
			case s != a && s.params["TimeZone"] != zone:
				want = told + " " + want
				s.params["TimeZone"] = zone
			}
			s.want(want, 1, query("show timezone"))
		}
		for _, s := range []*script{a, b, own, c} {
			s.conn.Close()
		}
	}
}
