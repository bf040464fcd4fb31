// PostgreSQL servers for tests: one that all share, own ones, and a PostgreSQL 18.

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/machines/local"
)

// Roles that every cluster has, and their passwords.
const (
	App, AppPassword     = "app", "pw-app"
	Other, OtherPassword = "other", "pw-other"
)

// Cluster is a PostgreSQL on this computer, for those who have nothing else to do with package local.
type Cluster = local.Cluster

// OwnPostgres is Postgres with a cluster of the test's own.
func OwnPostgres(t testing.TB) *Cluster {
	t.Helper()
	return Postgres(t, local.Options{})
}

// Crash ends a cluster without goodbye. It can be started again.
func Crash(t testing.TB, c *Cluster) {
	t.Helper()
	// One that was too busy to obey, and was killed, has crashed as well.
	if err := c.Stop(context.WithoutCancel(t.Context()), local.Immediate); err != nil && c.Running() {
		t.Fatal(err)
	}
}

// setUpLimit bounds initdb and the first start on a busy machine.
const setUpLimit = 2 * time.Minute

// postgresWorld is the shared cluster and the template of all others.
type postgresWorld struct {
	template *local.Cluster // stopped
	shared   *local.Cluster // running
}

func (w *world) makePostgres() (*postgresWorld, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpLimit)
	defer cancel()
	template, err := makeCluster(ctx, local.Options{Dir: filepath.Join(w.dir, "template")})
	if err != nil {
		return nil, err
	}
	if err := template.Stop(ctx, local.Fast); err != nil {
		return nil, err
	}
	p := &postgresWorld{template: template}
	p.shared, err = local.Create(ctx, modest(local.Options{Dir: filepath.Join(w.dir, "shared"), Template: template}))
	if err != nil {
		return nil, err
	}
	if err := p.shared.Start(ctx); err != nil {
		return nil, err
	}
	w.stopLater(p.shared)
	return p, nil
}

// makeCluster starts a new cluster with the roles in it.
func makeCluster(ctx context.Context, o local.Options) (*local.Cluster, error) {
	c, err := local.Create(ctx, modest(o))
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	for role, password := range map[string]string{App: AppPassword, Other: OtherPassword} {
		if err := c.Exec(ctx, "postgres", fmt.Sprintf("create role %s login password '%s'", role, password)); err != nil {
			return nil, errors.Join(err, c.Stop(ctx, local.Immediate))
		}
	}
	return c, nil
}

// modest gives a cluster what tests want and no more.
func modest(o local.Options) local.Options {
	o.Disposable = true
	settings := map[string]string{"max_connections": "600", "shared_buffers": "32MB"}
	for name, value := range o.Settings {
		settings[name] = value
	}
	o.Settings = settings
	return o
}

// Postgres returns a running cluster with the roles App and Other. Without options it is the one that all tests of the
// process share: never stop or reconfigure it, and work in a [Database] of your own. With options it is the test's own, made
// from them (Dir may be left out) and stopped at its end.
func Postgres(t testing.TB, options ...local.Options) *local.Cluster {
	t.Helper()
	p, err := shared(t).pg()
	if err != nil {
		t.Fatalf("%v\n(scripts/install-test-deps.sh installs PostgreSQL)", err)
	}
	if len(options) == 0 {
		return p.shared
	}
	o := options[0]
	if o.Dir == "" {
		o.Dir = filepath.Join(Dir(t), "pg")
	}
	o.Template = p.template
	c, err := local.Create(t.Context(), modest(o))
	if err != nil {
		t.Fatal(err)
	}
	stopAfter(t, c)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// stopAfter is registered after Dir, so it runs before the directory goes.
func stopAfter(t testing.TB, c *local.Cluster) {
	t.Cleanup(func() {
		if err := c.Stop(context.Background(), local.Immediate); err != nil {
			t.Error(err)
		}
	})
}

// Postgres18 returns a PostgreSQL 18 of the test's own, with the roles App and Other.
func Postgres18(t testing.TB) *local.Cluster {
	t.Helper()
	return PostgresOf(t, 18)
}

// PostgresOf returns a PostgreSQL of a generation (16, 17 or 18) of the test's own, with the roles App and Other.
func PostgresOf(t testing.TB, major int) *local.Cluster {
	t.Helper()
	programs := cached(t, major, "postgres")
	dir := Dir(t)
	// PostgreSQL's account may not be able to enter the checkout; the copy is where it can.
	if out, err := exec.Command("cp", "-RL", programs, filepath.Join(dir, "programs")).CombinedOutput(); err != nil {
		t.Fatalf("copying PostgreSQL %d: %v: %s", major, err, out)
	}
	c, err := makeCluster(t.Context(), local.Options{Dir: filepath.Join(dir, "pg"), BinDir: filepath.Join(dir, "programs", "bin"), Library: filepath.Join(dir, "programs", "lib")})
	if err != nil {
		t.Fatal(err)
	}
	stopAfter(t, c)
	return c
}

// LibpqEnv is what to add to the environment of psql or pgbench to have them run with libpq 18 instead of the system's.
func LibpqEnv(t testing.TB) []string {
	t.Helper()
	return []string{"LD_LIBRARY_PATH=" + cached(t, 18, "libpq")}
}

// cached returns a directory of a PostgreSQL below .cache.
func cached(t testing.TB, major int, name string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".cache", fmt.Sprintf("pg%d", major), name)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("no PostgreSQL %d: run scripts/install-test-deps.sh (%v)", major, err)
	}
	return dir
}

// moduleRoot is the directory of go.mod, above the test's own, where go test runs it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = fmt.Errorf("no go.mod above the working directory")
			return "", err
		}
	}
	return "", err
}

// Program returns the path of a client program such as psql or pgbench.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run scripts/install-test-deps.sh", err)
	}
	return path
}

// Database makes a new database that belongs to App and lives as long as the cluster.
func Database(t testing.TB, c *local.Cluster) string {
	t.Helper()
	name := Unique("db")
	if err := c.Exec(t.Context(), "postgres", fmt.Sprintf("create database %s owner %s", name, App)); err != nil {
		t.Fatal(err)
	}
	return name
}

// Verifier returns a role's SCRAM verifier as the server stores it.
func Verifier(t testing.TB, c *local.Cluster, role string) string {
	t.Helper()
	conn, err := c.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var verifier string
	if err := conn.QueryRow(t.Context(), "select rolpassword from pg_authid where rolname = $1", role).Scan(&verifier); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(verifier, "SCRAM-SHA-256$") {
		t.Fatalf("role %s has no SCRAM verifier", role)
	}
	return verifier
}
