package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

func TestJudgeVersions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		has, knows []int64
		want       string // "": the same
	}{
		{[]int64{1, 2, 4}, []int64{1, 2, 4}, ""},
		{nil, []int64{1, 2}, "has version 0 of its tables, and this program needs 2: run postern store init"},
		{[]int64{1}, []int64{1, 2, 4}, "has version 1 of its tables, and this program needs 4: run postern store init"},
		{[]int64{1, 2, 4, 5}, []int64{1, 2, 4}, "had migration 5, which this program does not know, it knows those up to 4: run a newer program"},
		{[]int64{1, 2, 3, 4}, []int64{1, 2, 4}, "had migration 3, which this program does not know"},
		{[]int64{1, 3}, []int64{1, 2, 4}, "had migration 3, which this program does not know"},
		{[]int64{1, 4}, []int64{1, 2, 4}, "had migrations [1 4], and not all before the last one"},
		{[]int64{2, 4}, []int64{1, 2, 4}, "had migrations [2 4], and not all before the last one"},
	} {
		err := judgeVersions(c.has, c.knows)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %v: %v, want %q", c.has, c.knows, err, c.want)
		}
	}
}

// TestMigrationsAreTransactions: goose can be told to do without one.
func TestMigrationsAreTransactions(t *testing.T) {
	t.Parallel()
	if err := fs.WalkDir(ours(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(ours(), path)
		if !strings.HasPrefix(string(text), "-- +goose Up\n") || strings.Contains(string(text), "NO TRANSACTION") || strings.Contains(string(text), "+goose Down") {
			t.Errorf("%s is not a transaction that goes forwards", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// scripts are migrations: those of this program up to a number, and others.
func scripts(t *testing.T, upTo int64, more map[string]string) fs.FS {
	t.Helper()
	all := fstest.MapFS{}
	entries, err := fs.ReadDir(ours(), ".")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range known(ours()) {
		text, err := fs.ReadFile(ours(), entries[i].Name())
		if err != nil {
			t.Fatal(err)
		}
		if n <= upTo {
			all[entries[i].Name()] = &fstest.MapFile{Data: text}
		}
	}
	for name, text := range more {
		all[name] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + text)}
	}
	return all
}

// dump is all that a store is made of, and what it has.
func (w *world) dump() (text string) {
	w.t.Helper()
	if err := w.connect().QueryRow(w.t.Context(), `SELECT concat_ws(E'\n',
		(SELECT string_agg(concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable), E'\n' ORDER BY table_name, column_name) FROM information_schema.columns WHERE table_schema = 'postern'),
		(SELECT string_agg(concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)), E'\n' ORDER BY conrelid::regclass::text, conname) FROM pg_constraint WHERE connamespace = to_regnamespace('postern')),
		(SELECT string_agg(pg_get_functiondef(oid), E'\n' ORDER BY proname) FROM pg_proc WHERE pronamespace = to_regnamespace('postern')),
		(SELECT string_agg(t::text, E'\n' ORDER BY id) FROM postern.tenants t), (SELECT string_agg(v::text, E'\n' ORDER BY id) FROM postern.schema_version v))`).Scan(&text); err != nil {
		w.t.Fatal(err)
	}
	return text
}

// newOldWorld is a store as an older program has made it.
func newOldWorld(t *testing.T, upTo int64) *world {
	t.Helper()
	w := newWorld(t, harness.Postgres(t))
	w.exec(`DROP SCHEMA postern CASCADE`)
	if is, err := initFrom(t.Context(), w.conf(), scripts(t, upTo, nil)); err != nil || is != upTo {
		t.Fatalf("version %d, %v", is, err)
	}
	w.put("acme", plainDocument)
	return w
}

// TestMigrate: an older store says what to do, keeps what it has, and is brought forward once, however many come to do so.
func TestMigrate(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t, 1)
	if _, err := w.open(); err == nil || !strings.Contains(err.Error(), "run postern store init") {
		t.Errorf("serving it: %v", err)
	}
	done := make(chan error, 3)
	for range cap(done) {
		go func() {
			is, err := Init(t.Context(), w.conf())
			if err == nil && is != schemaVersion() {
				err = fmt.Errorf("version %d", is)
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	w.follow().has(t, "acme")
}

// TestMigrationFails: a migration that fails in its middle leaves the store as it was, and whoever follows it goes on; so does one
// that never ends, when its program is gone.
func TestMigrationFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.put("acme", plainDocument)
	f := w.follow()
	f.has(t, "acme")
	before := w.dump()
	const begins = `ALTER TABLE postern.tenants ADD COLUMN colour text; DELETE FROM postern.tenants; `
	if _, err := initFrom(t.Context(), w.conf(), scripts(t, schemaVersion(), map[string]string{"90000_bad.sql": begins + "SELECT 1/0;"})); err == nil || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("the migration: %v", err)
	}
	if after := w.dump(); after != before {
		t.Errorf("it leaves behind\n%s\nof\n%s", after, before)
	}
	// One whose connection is lost in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := initFrom(ctx, w.conf(), scripts(t, schemaVersion(), map[string]string{"90000_long.sql": begins + "SELECT pg_sleep(600);"}))
		done <- err
	}()
	asking := w.connect()
	harness.Eventually(t, harness.Patience, "it is in its middle", func() bool {
		var n int
		err := asking.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`).Scan(&n)
		return err == nil && n == 1
	})
	if _, err := asking.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a lost migration is none")
	}
	if after := w.dump(); after != before {
		t.Errorf("it leaves behind\n%s\nof\n%s", after, before)
	}
	w.put("globex", plainDocument)
	f.has(t, "acme", "globex")
}

// TestMigrationRefused: a store of another program, or one whose history does not add up, is not touched, whoever comes.
func TestMigrationRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.put("acme", plainDocument)
	for _, step := range []struct{ sql, undo, want string }{
		{`INSERT INTO postern.schema_version (version_id, is_applied) VALUES (90000, true)`, `DELETE FROM postern.schema_version WHERE version_id = 90000`, "had migration 90000, which this program does not know"},
		{`DELETE FROM postern.schema_version WHERE version_id = 2`, `INSERT INTO postern.schema_version (version_id, is_applied) VALUES (2, true)`, "and not all before the last one"},
	} {
		w.exec(step.sql)
		before := w.dump()
		for range 2 {
			if _, err := Init(t.Context(), w.conf()); err == nil || !strings.Contains(err.Error(), step.want) {
				t.Errorf("%s: init says %v", step.sql, err)
			}
		}
		if _, err := w.open(); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: serving says %v", step.sql, err)
		}
		if _, err := Import(t.Context(), w.conf(), w.keys, nil, ImportOptions{Prune: true}, new(strings.Builder)); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: importing says %v", step.sql, err)
		}
		if after := w.dump(); after != before {
			t.Errorf("%s: it was changed to\n%s\nfrom\n%s", step.sql, after, before)
		}
		w.exec(step.undo)
	}
	if _, err := Init(t.Context(), w.conf()); err != nil {
		t.Errorf("put right: %v", err)
	}
	var locks int
	if err := w.connect().QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&locks); err != nil && !errors.Is(err, pgx.ErrNoRows) || locks > 0 {
		t.Errorf("%d locks are left, %v", locks, err)
	}
}
