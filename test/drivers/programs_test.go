// The programs, what each of them checks, and what is known to fail.

package drivers

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// jdbc is where Debian and Ubuntu put the driver.
const jdbc = "/usr/share/java/postgresql.jar"

// program is a driver with its checks.
type program struct {
	name    string
	command func(*testing.T, *world) []string
	env     func(testing.TB) []string // beside ours; may be nil
	lacks   string                    // checks of usual that the driver has nothing for
	more    string                    // checks beyond usual
	worlds  bool                      // it is played in all worlds in the short suite, too
}

// usual are the checks of every program, overTLS those that only targets with TLS are asked.
const (
	usual   = "connect prepared prepared_different transaction error copy_in copy_out cancel notice large parameters cursor"
	overTLS = "tls tls_stranger"
)

var programs = []program{
	{name: "psycopg2", command: python("drive_psycopg2.py"), lacks: "prepared prepared_different", more: "prepared_sql many"},
	{name: "psycopg3", command: python("drive_psycopg3.py"), more: psycopg3More, worlds: true},
	{name: "psycopg3-libpq18", command: python("drive_psycopg3.py", "18"), env: harness.LibpqEnv, more: psycopg3More},
	{name: "psycopg3-async", command: python("drive_psycopg3_async.py"), more: "pipeline"},
	{name: "asyncpg", command: python("drive_asyncpg.py"), more: "prepared_automatically prepared_equal prepared_closed prepared_error " +
		"prepared_changed unnamed copy_in_binary introspection many driver_pool", worlds: true},
	{name: "sqlalchemy-psycopg2", command: python("drive_sqlalchemy.py", "psycopg2"), lacks: sqlalchemyLacks, more: "reflection"},
	{name: "sqlalchemy-asyncpg", command: python("drive_sqlalchemy.py", "asyncpg"), lacks: sqlalchemyLacks, more: "reflection"},
	{name: "pg", command: node("drive_pg.js"), env: nodeEnv, more: "prepared_equal prepared_error pipeline pipeline_prepared driver_pool", worlds: true},
	{name: "postgres.js", command: node("drive_postgres.js"), env: nodeEnv, lacks: "tls", // it does not show its socket
		more: "prepared_equal prepared_error unnamed pipeline driver_pool"},
	{name: "jdbc", command: java("DriveJDBC"), lacks: "tls", // as above
		more: "prepared_automatically prepared_equal prepared_closed prepared_error pipeline metadata", worlds: true},
	{name: "dbd-pg", command: perl("drive_dbdpg.pl"), lacks: "tls", more: "prepared_equal prepared_closed prepared_error"},
	{name: "pgx", command: compiled("drivepgx"), more: "prepared_equal prepared_automatically prepared_closed prepared_changed prepared_error " +
		"unnamed copy_in_binary pipeline pipeline_prepared", worlds: true},
	{name: "pq", command: compiled("drivepq"), lacks: "tls copy_out", more: "prepared_equal prepared_closed prepared_error unnamed driver_pool"},
	{name: "psql", command: python("drive_psql.py"), lacks: psqlLacks, more: psqlMore},
	{name: "psql-libpq18", command: python("drive_psql.py"), env: harness.LibpqEnv, lacks: psqlLacks, more: psqlMore},
}

const (
	psycopg3More    = "fresh prepared_automatically prepared_equal prepared_closed prepared_error pipeline pipeline_prepared many"
	sqlalchemyLacks = "prepared_different copy_in copy_out cancel notice tls" // what it leaves to its driver
	psqlLacks       = "prepared prepared_different parameters"                // version 15 has no \bind
	psqlMore        = "prepared_sql described"
)

// python runs a script with Debian's Python, whatever else PATH holds: the packages are Debian's.
func python(script string, args ...string) func(*testing.T, *world) []string {
	return func(t *testing.T, _ *world) []string {
		return append([]string{present(t, "/usr/bin/python3"), filepath.Join("python", script)}, args...)
	}
}

// perl is the system's as well.
func perl(script string) func(*testing.T, *world) []string {
	return func(t *testing.T, _ *world) []string {
		return []string{present(t, "/usr/bin/perl"), filepath.Join("perl", script)}
	}
}

// java runs a compiled class with the least of a virtual machine.
func java(class string) func(*testing.T, *world) []string {
	return func(t *testing.T, w *world) []string {
		return []string{installed(t, "java"), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", w.build + ":" + jdbc, class}
	}
}

// compiled runs one of Go's programs.
func compiled(name string) func(*testing.T, *world) []string {
	return func(_ *testing.T, w *world) []string { return []string{filepath.Join(w.build, name)} }
}

func node(script string) func(*testing.T, *world) []string {
	return func(t *testing.T, _ *world) []string {
		return []string{installed(t, "node"), filepath.Join("node", script)}
	}
}

// nodeEnv is where the drivers of node are installed.
func nodeEnv(t testing.TB) []string {
	t.Helper()
	modules, err := filepath.Abs(present(t, "../../.cache/drivers-npm/node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	return []string{"NODE_PATH=" + modules}
}

// checks are the names of what the program must report.
func (p program) checks(withTLS bool) []string {
	all := strings.Fields(usual + " " + p.more)
	if withTLS {
		all = append(all, strings.Fields(overTLS)...)
	}
	lacks := strings.Fields(p.lacks)
	return slices.DeleteFunc(all, func(check string) bool { return slices.Contains(lacks, check) })
}

// pending is checks that fail through the gate in a pool mode, and why.
type pending struct{ program, mode, checks, why string }

// notYet is what is known to fail, in plaintext and over TLS alike. It shall be empty.
var notYet []pending

// pending tells why a check is known to fail, or "".
func (p program) pending(check, mode string) string {
	for _, e := range notYet {
		if e.program == p.name && e.mode == mode && slices.Contains(strings.Fields(e.checks), check) {
			return e.why
		}
	}
	return ""
}

// TestNotYet names programs, modes and checks that exist: an entry that means nothing would stand forever.
func TestNotYet(t *testing.T) {
	for _, e := range notYet {
		i := slices.IndexFunc(programs, func(p program) bool { return p.name == e.program })
		if i < 0 {
			t.Errorf("no program %s", e.program)
			continue
		}
		for _, check := range strings.Fields(e.checks) {
			if !slices.Contains(programs[i].checks(true), check) {
				t.Errorf("%s has no check %s", e.program, check)
			}
		}
		if e.mode != harness.Session && e.mode != harness.Transaction {
			t.Errorf("%s: no mode %s", e.program, e.mode)
		}
	}
}
