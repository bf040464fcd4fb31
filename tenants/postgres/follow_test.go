package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

const plainDocument = `{"upstream": {"host": "127.0.0.1", "tls": "disable"}}`

// TestFollow: what is committed, by SQL or by an import, is in the directory, as a difference.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(sample("acme"))
	w.visit()
}

// TestFollowGenerations does so with newer servers.
func TestFollowGenerations(t *testing.T) {
	t.Parallel()
	newer(t, func(w *world) {
		w.load(sample("acme"))
		w.visit()
	})
}

func (w *world) visit() {
	t := w.t
	f := w.follow()
	f.has(t, "acme")
	got, _ := f.d.Tenant("acme")
	if want := sample("acme"); !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.put("globex", plainDocument)
	f.has(t, "acme", "globex")
	f.told()
	w.put("globex", `{"upstream": {"host": "127.0.0.1", "tls": "disable"}, "database": "x"}`)
	f.has(t, "acme", "globex:x")
	if told := f.told(); !slices.Equal(told, []string{"globex"}) {
		t.Errorf("told of %v", told)
	}
	w.exec(`UPDATE postern.users SET document = '{"pool_size": 3}' WHERE tenant = 'acme' AND name = 'app'`)
	harness.Eventually(t, harness.Patience, "the user has its pool", func() bool {
		a, _ := f.d.Tenant("acme")
		return a.Users["app"].PoolSize == 3 && a.Users["app"].Verifier == tenants.NewSecret("verifier-marked-acme")
	})
	w.exec(`DELETE FROM postern.users WHERE name = 'web'`)
	harness.Eventually(t, harness.Patience, "the user is gone", func() bool { a, _ := f.d.Tenant("acme"); return len(a.Users) == 1 })
	w.exec(`UPDATE postern.tenants SET id = 'initech' WHERE id = 'globex'`)
	f.has(t, "acme", "initech:x")
	w.exec(`DELETE FROM postern.tenants`)
	f.has(t)
	if err := f.Reload(); err != nil {
		t.Error(err)
	}
	if s := f.Stats(); !s.LastOK || s.OK < 2 || time.Since(s.LoadedAt) > time.Minute {
		t.Errorf("stats %+v", s)
	}
	if err := f.Degraded(); err != nil {
		t.Error(err)
	}
	conn := w.connect()
	for _, sql := range []string{`TRUNCATE postern.tenants`, `TRUNCATE postern.tenants CASCADE`, `TRUNCATE postern.users`} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s, which tells nobody, is not refused", sql)
		}
	}
}

// TestReady: until all is read new clients go better elsewhere, but not because the store went away meanwhile: that may last.
func TestReady(t *testing.T) {
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{opts: Options{Directory: d}}
	is := func(when string, ready, degraded bool) {
		if (s.Ready() == nil) != ready || (s.Degraded() != nil) != degraded {
			t.Errorf("%s: ready %v, degraded %v", when, s.Ready(), s.Degraded())
		}
	}
	d.SetFilling(true)
	is("being read", false, false)
	s.confirmed(errors.New("gone"))
	is("away before all is read", true, true)
	d.SetFilling(false)
	is("away with what the cache file has", true, true)
	s.confirmed(nil)
	is("read", true, false)
}

// TestManyWriters: each transaction has a version of its own, whatever others do at the same time, and nothing that they change is
// missed.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	f := w.follow()
	const writers, each = 6, 20
	var all sync.WaitGroup
	for i := range writers {
		conn := w.connect()
		all.Go(func() {
			for n := range each {
				if _, err := conn.Exec(t.Context(), `INSERT INTO postern.tenants VALUES ($1, jsonb_build_object('upstream', jsonb_build_object('host', 'h'), 'database', $2::text))
					ON CONFLICT (id) DO UPDATE SET document = excluded.document`, fmt.Sprint("t", i), fmt.Sprint("n", n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	var want []string
	for i := range writers {
		want = append(want, fmt.Sprintf("t%d:n%d", i, each-1))
	}
	f.has(t, want...)
	var head int64
	if err := w.connect().QueryRow(t.Context(), `SELECT version FROM postern.feed`).Scan(&head); err != nil || head != writers*each {
		t.Errorf("%d transactions have taken %d versions, %v", writers*each, head, err)
	}
}

// TestLateCommit: a transaction that has changed something long before others does not get lost when it commits after them.
func TestLateCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	f := w.follow()
	f.has(t)
	late, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(t.Context(), `INSERT INTO postern.tenants VALUES ('late', $1)`, plainDocument); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.put(fmt.Sprint("early", i), plainDocument)
	}
	f.has(t, "early0", "early1", "early2")
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.has(t, "early0", "early1", "early2", "late")
	var version, head int64
	if err := w.connect().QueryRow(t.Context(), `SELECT c.version, f.version FROM postern.changes c, postern.feed f WHERE tenant = 'late'`).Scan(&version, &head); err != nil || version != head || head != 4 {
		t.Errorf("the late commit has version %d of %d, %v", version, head, err)
	}
}

// TestChangesDoNotWaitForEachOther: two transactions that change the same tenant's parts, in either order of commits, both commit.
func TestChangesDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(sample("acme"), sample("globex"))
	a, b := w.connect(), w.connect()
	for i := range 10 {
		done := make(chan error, 2)
		go func() {
			_, err := a.Exec(t.Context(), `UPDATE postern.tenants SET document = document || jsonb_build_object('database', $1::text)`, fmt.Sprint("d", i))
			done <- err
		}()
		go func() {
			_, err := b.Exec(t.Context(), `UPDATE postern.users SET document = jsonb_build_object('pool_size', $1::int)`, i+1)
			done <- err
		}()
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBadRowsKeepTheOld: what is wrong with one tenant concerns nobody else, and is put right by the next change.
func TestBadRowsKeepTheOld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.put("acme", plainDocument)
	f := w.follow()
	f.has(t, "acme")
	for i, bad := range []string{
		`{"upstream": {"host": "127.0.0.1"}, "database": "new", "allow_list": null}`,
		`{"upstream": {"host": "127.0.0.1"}, "database": "new", "allow_list": ["10.0.0.1/8"]}`,
		`{"upstream": {"host": "127.0.0.1"}, "database": "new", "surprise": 1}`,
		`{"upstream": {"host": "127.0.0.1"}, "database": "new", "pool": {"size": 0}}`,
		`{"upstream": {"host": "127.0.0.1"}, "database": "new", "timeouts": {"query": "5"}}`,
		`{"database": "new"}`,
	} {
		w.put("acme", bad)
		w.put("other", fmt.Sprintf(`{"upstream": {"host": "127.0.0.1"}, "database": "n%d"}`, i))
		f.has(t, "acme", fmt.Sprint("other:n", i))
	}
	if n := strings.Count(w.log.String(), "cannot be put in force"); n != 6 {
		t.Errorf("%d of 6 are logged:\n%s", n, w.log)
	}
	harness.Eventually(t, harness.Patience, "it is counted", func() bool { return f.Stats().Refused == 1 })
	w.put("acme", `{"upstream": {"host": "127.0.0.1"}, "database": "good"}`)
	f.has(t, "acme:good", "other:n5")
	harness.Eventually(t, harness.Patience, "it is not counted any more", func() bool { return f.Stats().Refused == 0 })
	w.exec(`UPDATE postern.tenants SET document = '{"upstream": {"host": "h"}, "database": "b"}' WHERE id = 'acme'`)
	w.exec(`INSERT INTO postern.users (tenant, name, verifier) VALUES ('acme', 'u', 'no seal')`)
	w.put("other", plainDocument)
	f.has(t, "acme:b", "other")
}

// TestMachinesGoRound: machines change hands, in a circle, in one transaction; and two may not have one.
func TestMachinesGoRound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	machine := func(name string) string { return fmt.Sprintf(`{"machine": {"provider": "local", "name": %q}}`, name) }
	w.put("a", machine("x"))
	w.put("b", machine("y"))
	w.put("c", machine("z"))
	f := w.follow()
	f.has(t, "a", "b", "c")
	w.exec(`UPDATE postern.tenants SET document = (CASE id WHEN 'a' THEN $1 WHEN 'b' THEN $2 ELSE $3 END)::jsonb`, machine("y"), machine("z"), machine("x"))
	harness.Eventually(t, harness.Patience, "the machines have gone round", func() bool {
		x, _ := f.d.Machine("local/x")
		y, _ := f.d.Machine("local/y")
		z, _ := f.d.Machine("local/z")
		return x != nil && y != nil && z != nil && x.ID == "c" && y.ID == "a" && z.ID == "b"
	})
	// One that waits for a machine, which another has kept because its row is bad, gets it when that row is good.
	w.exec(`UPDATE postern.tenants SET document = CASE id WHEN 'c' THEN '{"machine": {"provider": "local", "name": "w"}, "surprise": 1}'
		ELSE jsonb_build_object('machine', $1::jsonb->'machine') END WHERE id IN ('c', 'a')`, machine("x"))
	harness.Eventually(t, harness.Patience, "both are refused", func() bool { return f.Stats().Refused == 2 })
	w.put("c", machine("w"))
	harness.Eventually(t, harness.Patience, "both are in force", func() bool {
		x, _ := f.d.Machine("local/x")
		return f.Stats().Refused == 0 && x != nil && x.ID == "a"
	})
	if _, err := w.connect().Exec(t.Context(), `INSERT INTO postern.tenants VALUES ('d', $1)`, machine("x")); err == nil {
		t.Error("one machine has two tenants")
	}
}

// TestNotified: a notification is enough, and none is needed.
func TestNotified(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	f, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	f.beat = time.Hour
	w.watch(f)
	f.has(t)
	for i := range 20 { // some while others are read
		w.put("acme", fmt.Sprintf(`{"upstream": {"host": "127.0.0.1"}, "database": "n%d"}`, i))
	}
	f.has(t, "acme:n19")
	f.stop()
	f = w.follow()
	f.has(t, "acme:n19")
	conn := w.connect() // which changes what a trigger would, and tells nobody
	for _, sql := range []string{`BEGIN`, `ALTER TABLE postern.tenants DISABLE TRIGGER feed`, `UPDATE postern.tenants SET document = document || '{"database": "quiet"}'`,
		`UPDATE postern.feed SET version = version + 1`, `UPDATE postern.changes SET version = (SELECT version FROM postern.feed)`,
		`ALTER TABLE postern.tenants ENABLE TRIGGER feed`, `COMMIT`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	f.has(t, "acme:quiet")
}

// TestListenerDoesNotForget: a notification that has come while something was read is none to wait for again.
func TestListenerDoesNotForget(t *testing.T) {
	l := &listener{}
	l.noted.Store(true)
	if err := l.await(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
}

// TestListenerKilled: whoever listens may be killed at any time.
func TestListenerKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	f := w.follow()
	f.has(t)
	for i := range 3 {
		w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		w.exec(`DELETE FROM postern.tenants`)
		w.put(fmt.Sprint("t", i), plainDocument)
		f.has(t, fmt.Sprint("t", i))
	}
	if !strings.Contains(w.log.String(), "is away") {
		t.Error("the listener was never killed")
	}
}

// TestNewEpoch: versions of before mean nothing in a store that was restored, whatever numbers it has.
func TestNewEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.put("acme", plainDocument)
	w.put("gone", plainDocument)
	f := w.follow()
	f.has(t, "acme", "gone")
	// Rows come back as they were, and no trigger tells of it.
	conn := w.connect()
	for _, sql := range []string{`BEGIN`, `ALTER TABLE postern.tenants DISABLE TRIGGER feed`, `DELETE FROM postern.tenants WHERE id = 'gone'`,
		`UPDATE postern.tenants SET document = document || '{"database": "old"}'`, `ALTER TABLE postern.tenants ENABLE TRIGGER feed`,
		`UPDATE postern.feed SET version = 1`, `COMMIT`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	f.has(t, "acme:old")
	// Another store takes its place, whose versions go further.
	w.exec(`DROP SCHEMA postern CASCADE`)
	if _, err := Init(t.Context(), w.conf()); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE postern.feed SET version = 100`)
	w.put("new", plainDocument)
	f.has(t, "new")
}

// TestOlderSnapshot: the disks of the store are put back to what they were, and go on from there to the versions that they had before,
// with other tenants in them.
func TestOlderSnapshot(t *testing.T) {
	t.Parallel()
	c := harness.OwnPostgres(t)
	w := newWorld(t, c)
	w.put("acme", plainDocument)
	harness.Crash(t, c)
	snapshot := harness.Dir(t) + "/snapshot"
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("cp", "-a", c.Dir(), snapshot)
	start := func() {
		t.Helper()
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start()
	f := w.follow()
	f.has(t, "acme")
	w.put("acme", `{"upstream": {"host": "h"}, "database": "lost"}`)
	w.put("lost", plainDocument)
	f.has(t, "acme:lost", "lost")
	f.stop()
	cached, err := w.open() // stands for one that is away: it knows what is lost
	if err != nil {
		t.Fatal(err)
	}
	if err := cached.fromCache(); err != nil {
		t.Fatal(err)
	}
	harness.Crash(t, c)
	run("rm", "-r", c.Dir())
	run("cp", "-a", snapshot, c.Dir())
	start()
	w.put("acme", `{"upstream": {"host": "h"}, "database": "new"}`)
	w.put("other", plainDocument)
	w.watch(cached)
	cached.has(t, "acme:new", "other")
}

// TestOutage: what is known goes on without the store, a start is possible from the cache file, and what has changed meanwhile is
// in force when the store is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	c := harness.OwnPostgres(t)
	w := newWorld(t, c)
	w.load(sample("acme"), sample("globex"))
	alone := func(f *follower) bool {
		t.Helper()
		l, err := f.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Discard()
		return l.Alone()
	}
	f := w.follow()
	f.has(t, "acme", "globex")
	if alone(f) {
		t.Error("a process that has reached the store is alone before it was asked")
	}
	acme := sample("acme") // changed once more, too soon after the file was written for the next time
	acme.Database = "x"
	w.load(acme)
	f.has(t, "acme:x", "globex")
	harness.Crash(t, c)
	harness.Eventually(t, harness.Patience, "the outage is told", func() bool { return f.Degraded() != nil && !f.Stats().LastOK })
	f.has(t, "acme:x", "globex")
	if err := f.Reload(); err == nil {
		t.Error("a reload succeeds without the store")
	}
	f.stop()

	f, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	f.has(t, "acme:x", "globex")
	if got, _ := f.d.Tenant("acme"); !got.Equal(acme) {
		t.Errorf("the cache file has %+v", got)
	}
	if f.Degraded() == nil || time.Since(f.Stats().LoadedAt) > 10*time.Minute {
		t.Errorf("degraded: %v, stats %+v", f.Degraded(), f.Stats())
	}
	if !alone(f) {
		t.Error("a process that has never reached the store is not alone")
	}
	w.watch(f)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.load(sample("initech"))
	f.has(t, "acme:x", "globex", "initech")
	harness.Eventually(t, harness.Patience, "the end of the outage is told", func() bool { return f.Degraded() == nil })
	if alone(f) {
		t.Error("a process that has reached the store after its start is alone before it was asked")
	}
}

// TestLeastPrivilege: who serves needs to read, and to write how it is; without the latter it does not start, because others would
// take for enforced everywhere what is not.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(sample("acme"))
	w.exec(`GRANT USAGE ON SCHEMA postern TO ` + harness.Other)
	w.exec(`GRANT SELECT ON ALL TABLES IN SCHEMA postern TO ` + harness.Other)
	owner := w.dsn
	w.as(harness.Other, harness.OtherPassword)
	if err := os.Remove(w.cache); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := w.open(); err == nil || !strings.Contains(err.Error(), "postern.nodes") {
		t.Errorf("without the right to announce itself: %v", err)
	}
	role := w.dsn
	w.dsn = owner
	w.exec(`GRANT INSERT, UPDATE, DELETE ON postern.nodes, postern.applied, postern.bans, postern.leases, postern.uses TO ` + harness.Other)
	w.dsn = role
	f := w.follow()
	f.has(t, "acme")
	w.dsn = owner
	w.put("globex", plainDocument)
	f.has(t, "acme", "globex")
}

// TestNoStore: a database without the store's tables, or with those of another program, is refused.
func TestNoStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, step := range []struct{ sql, want string }{
		{`INSERT INTO postern.schema_version (version_id, is_applied) VALUES (99, true)`, "run a newer program"},
		{`DELETE FROM postern.schema_version WHERE version_id > 0`, "run postern store init"},
		{`DROP SCHEMA postern CASCADE`, ErrNoStore.Error()},
	} {
		w.exec(step.sql)
		if _, err := w.open(); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: %v", step.sql, err)
		}
		if step.want == ErrNoStore.Error() { // two make it at the same time: one waits
			done := make(chan error, 2)
			for range 2 {
				go func() {
					_, err := Init(ctx, w.conf())
					done <- err
				}()
			}
			if err := errors.Join(<-done, <-done); err != nil {
				t.Error(err)
			}
			if _, err := w.open(); err != nil {
				t.Error(err)
			}
		}
		if strings.Contains(step.want, "newer") {
			if _, err := Init(ctx, w.conf()); err == nil || !strings.Contains(err.Error(), step.want) {
				t.Errorf("init says %v", err)
			}
		}
	}
}
