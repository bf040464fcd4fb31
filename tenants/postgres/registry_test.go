package postgres

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

func (w *world) registry() *Registry {
	w.t.Helper()
	r, err := NewRegistry(Options{Conn: w.conf(), Keys: w.keys, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Close)
	return r
}

// TestNothingIsCompiled: reading one tenant of many must not take the second that PostgreSQL's compiler does.
func TestNothingIsCompiled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	conn, err := connect(t.Context(), w.conf())
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	var q struct{ followed, asked string }
	if err := errors.Join(conn.QueryRow(t.Context(), `SHOW jit`).Scan(&q.followed), w.registry().pool.QueryRow(t.Context(), `SHOW jit`).Scan(&q.asked)); err != nil {
		t.Fatal(err)
	}
	if q.followed != "off" || q.asked != "off" {
		t.Errorf("jit is %+v", q)
	}
}

// TestRegistryPages: pages hold every tenant once, in the order of bytes; one that cannot be read is left out, and told.
func TestRegistryPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	var want []string
	for _, id := range []string{"a", "a-b", "a_b", "ab", "b", "0", "z9"} {
		w.put(id, plainDocument)
		want = append(want, id)
	}
	w.put("a0", `{"surprise": 1}`)
	slices.Sort(want)
	for _, limit := range []int{1, 2, 3, 100} {
		var got []string
		for after := ""; ; {
			page, err := r.Tenants(t.Context(), after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d tenants, %v", len(page), err)
			}
			for _, is := range page {
				got = append(got, is.Tenant.ID)
				if is.Revision <= 0 || is.Version <= 0 {
					t.Errorf("%+v", is)
				}
			}
			if len(page) < limit {
				break
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
	if !strings.Contains(w.log.String(), "tenant=a0") {
		t.Error("the one that cannot be read is not told of")
	}
	if _, err := r.Tenant(t.Context(), "a0"); !errors.Is(err, tenants.ErrUnreadable) {
		t.Errorf("one that cannot be read: %v", err)
	}
	if _, err := r.Change(t.Context(), put(sample("a0"), 0)); !errors.Is(err, tenants.ErrUnreadable) {
		t.Errorf("one that cannot be read is changed unread: %v", err)
	}
}

// TestUnreadable: a tenant whose document is unknown, or whose key is lost, is replaced as a whole or removed, and what was lost is told.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.keys = testKeys(t, "lost", "k1")
	w.load(sample("acme"), sample("globex"), sample("initech"))
	w.keys = testKeys(t, "k1")
	r := w.registry()
	unread := func(c tenants.Edit) tenants.Edit {
		c.Unread = true
		return c
	}
	if _, err := r.Tenant(t.Context(), "acme"); !errors.Is(err, tenants.ErrAway) {
		t.Errorf("nothing at all opens: %v", err)
	}
	w.exec(`UPDATE postern.users SET verifier = NULL, password = $1 WHERE tenant = 'acme' AND name = 'app'`, w.keys.seal(userPlace("acme", "app", "password"), []byte("known-marked")))
	w.exec(`UPDATE postern.tenants SET document = document || '{"surprise": 1}' WHERE id = 'globex'`)
	for _, id := range []string{"acme", "globex", "initech"} {
		if _, err := r.Tenant(t.Context(), id); !errors.Is(err, tenants.ErrUnreadable) {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := r.Change(t.Context(), with(id, 0, nil)); !errors.Is(err, tenants.ErrUnreadable) {
			t.Errorf("%s is changed unread: %v", id, err)
		} else if last := w.entries(r, 1)[0]; last.Outcome != tenants.ErrUnreadable.Error() || last.Tenant != id {
			t.Errorf("audit: %+v", last)
		}
	}
	var given *tenants.Tenant
	bigger := with("acme", 0, func(x *tenants.Tenant) { x.Pool.Size = 9 })
	made, err := r.Change(t.Context(), unread(tenants.Edit{By: operator, Action: "tenant.put", Tenant: "acme", Edit: func(old *tenants.Tenant) (*tenants.Tenant, error) {
		given = old
		return bigger.Edit(old)
	}}))
	if err != nil || made.Tenant.Pool.Size != 9 || len(given.Users) != 1 || given.Users["app"].Password != tenants.NewSecret("known-marked") {
		t.Errorf("%+v of %+v, %v", made, given, err)
	}
	if last := w.entries(r, 1)[0]; last.Outcome != tenants.OutcomeDone || len(last.Changes) < 3 || last.Changes[0] != (tenants.Difference{Path: "document", Old: `"cannot be read"`}) {
		t.Errorf("audit: %+v", last)
	}
	if got, err := r.Tenant(t.Context(), "acme"); err != nil || !got.Tenant.Equal(made.Tenant) || got.Revision != made.Revision {
		t.Errorf("read %+v, %v", got, err)
	}
	if _, err := r.Change(t.Context(), unread(put(sample("globex"), 0))); err != nil {
		t.Error(err)
	}
	if got, err := r.Tenant(t.Context(), "globex"); err != nil || !got.Tenant.Equal(sample("globex")) {
		t.Errorf("read %+v, %v", got, err)
	}
	if _, err := r.Change(t.Context(), unread(remove("initech", 0))); err != nil {
		t.Error(err)
	}
	if _, err := r.Tenant(t.Context(), "initech"); !errors.Is(err, tenants.ErrNoSuchTenant) {
		t.Error(err)
	}
	// What can be read and is against the rules, as SQL can make it, can be removed as well.
	w.exec(`INSERT INTO postern.tenants (id, document) VALUES ('bare', '{}')`)
	if _, err := r.Change(t.Context(), unread(remove("bare", 0))); err != nil {
		t.Error(err)
	}
	if _, err := r.Tenant(t.Context(), "bare"); !errors.Is(err, tenants.ErrNoSuchTenant) {
		t.Errorf("it is there still: %v", err)
	}
	if text := w.log.String(); strings.Count(text, "with what was lost") != 3 || !strings.Contains(text, "no key lost") {
		t.Error(text)
	}
	w.canary()
	w.verified(r)
}

// TestRegistrySlow: a store that has not answered when the caller stops waiting is told to be away.
func TestRegistrySlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(sample("acme"))
	r := w.registry()
	if _, err := r.Tenant(t.Context(), "acme"); err != nil { // it is connected
		t.Fatal(err)
	}
	tx, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE postern.tenants`); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"Tenant": func(ctx context.Context) error { _, err := r.Tenant(ctx, "acme"); return err },
		"Change": func(ctx context.Context) error { _, err := r.Change(ctx, put(sample("acme"), 0)); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := call(ctx); !errors.Is(err, tenants.ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	if !strings.Contains(w.log.String(), "cannot be asked") {
		t.Error("the log is not told")
	}
}

// TestRegistryEnds: nothing of it runs on.
func TestRegistryEnds(t *testing.T) {
	w := newWorld(t, harness.Postgres(t))
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := w.registry()
	defer r.Close()
	if _, err := r.Tenants(t.Context(), "", 10); err != nil {
		t.Error(err)
	}
}

// TestRegistryAway: a registry can be made while the store is away, says so, and works when the store is there.
func TestRegistryAway(t *testing.T) {
	t.Parallel()
	c := harness.OwnPostgres(t)
	w := newWorld(t, c)
	harness.Crash(t, c)
	r := w.registry()
	r.known.valid(digestOf("a"), tenants.Token{Name: "known"}, time.Now().Add(-10*time.Second), 0)
	if got, err := r.FindToken(t.Context(), digestOf("a")); err != nil || got.Name != "known" {
		t.Errorf("a known token: %+v, %v", got, err)
	}
	for name, call := range map[string]func() error{
		"Tenant":  func() error { _, err := r.Tenant(t.Context(), "acme"); return err },
		"Tenants": func() error { _, err := r.Tenants(t.Context(), "", 10); return err },
		"Change":  func() error { _, err := r.Change(t.Context(), put(sample("acme"), 0)); return err },
		"Audit":   func() error { _, err := r.Audit(t.Context(), "", 0, 10); return err },
		"Tokens":  func() error { _, err := r.Tokens(t.Context(), "", "", 10); return err },
		"Token":   func() error { _, err := r.Token(t.Context(), "x"); return err },
		"AddToken": func() error {
			_, err := r.AddToken(t.Context(), operator, tenants.Token{Name: "x", Scope: tenants.ScopeOperator}, digestOf("x"))
			return err
		},
		"RevokeToken": func() error { return r.RevokeToken(t.Context(), operator, "", "x") },
		"FindToken":   func() error { _, err := r.FindToken(t.Context(), digestOf("unknown")); return err },
		"Note":        func() error { return r.Note(t.Context(), tenants.Entry{}) },
	} {
		if err := call(); !errors.Is(err, tenants.ErrAway) || err.Error() != tenants.ErrAway.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := strings.Count(w.log.String(), "cannot be asked"); n != 1 {
		t.Errorf("told %d times:\n%s", n, w.log)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), w.conf()); err != nil { // the crash may have lost some of it
		t.Fatal(err)
	}
	if _, err := r.Change(t.Context(), put(sample("acme"), 0)); err != nil {
		t.Errorf("%v\n%s", err, w.log)
	}
	w.exec(`UPDATE postern.schema_version SET version_id = version_id + 1000`)
	r.pool.Reset()
	if _, err := r.Tenant(t.Context(), "acme"); !errors.Is(err, tenants.ErrAway) {
		t.Errorf("a store of another version: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Tenant(ended, "acme"); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that is given up: %v", err)
	}
}

// TestRegistry: a database does what every registry does.
func TestRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	all := []*tenants.Tenant{sample("globex"), sample("acme"), sample("a-b")}
	w.load(all...)
	harness.CheckRegistry(t, w.registry(), all...)
}

// TestRegistryRights: the rights that the documentation asks for are enough, and do not allow the log to be changed.
func TestRegistryRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	page, err := os.ReadFile("../../docs/configure.md")
	if err != nil {
		t.Fatal(err)
	}
	grants := regexp.MustCompile(`(?m)^(GRANT .* TO )gate;`).FindAllSubmatch(page, -1)
	if len(grants) < 6 {
		t.Fatalf("the documentation has %d grants only", len(grants))
	}
	for _, sql := range grants {
		w.exec(string(sql[1]) + harness.Other)
	}
	w.as(harness.Other, harness.OtherPassword)
	w.load(asking("globex"))
	r := w.registry()
	if err := r.WriteRoles(t.Context(), "globex", []byte("roles"), 0); err != nil {
		t.Error(err)
	}
	w.follow().has(t, "globex")
	for _, c := range []tenants.Edit{put(sample("acme"), 0), with("acme", 0, func(x *tenants.Tenant) { x.Pool.Size = 3 })} {
		if _, err := r.Change(t.Context(), c); err != nil {
			t.Errorf("%s: %v", c.Action, err)
		}
	}
	made, err := r.AddToken(t.Context(), operator, tenants.Token{Name: "acme", Scope: tenants.ScopeRead, Tenant: "acme"}, digestOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.FindToken(t.Context(), digestOf("a")); err != nil {
		t.Error(err)
	}
	if err := r.RevokeToken(t.Context(), operator, "acme", made.ID); err != nil {
		t.Error(err)
	}
	if err := r.Note(t.Context(), tenants.Entry{}); err != nil {
		t.Error(err)
	}
	if _, err := r.Change(t.Context(), remove("acme", 0)); err != nil {
		t.Error(err)
	}
	w.verified(r)
	for _, sql := range []string{`UPDATE postern.audit SET actor = ''`, `DELETE FROM postern.audit`, `TRUNCATE postern.audit`} {
		if _, err := w.connect().Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// as has everything that follows done by another role.
func (w *world) as(role, password string) {
	w.dsn = strings.Replace(strings.Replace(w.dsn, "user="+harness.App, "user="+role, 1), harness.AppPassword, password, 1)
}

// TestRegistryWaitsAreBounded: who waits for somebody's lock is told that the store is away; a process that stands still in the middle of a
// change loses it, and the others go on; a server that cannot be written any more is left.
func TestRegistryWaitsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	if _, err := r.Change(t.Context(), put(sample("acme"), 0)); err != nil {
		t.Fatal(err)
	}
	w.dsn += " lock_timeout=50ms idle_in_transaction_session_timeout=200ms"
	impatient := w.registry()
	bigger := with("acme", 0, func(x *tenants.Tenant) { x.Pool.Size++ })
	tx, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SET LOCAL idle_in_transaction_session_timeout = 0; SELECT FROM postern.tenants FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	if _, err := impatient.Change(t.Context(), bigger); !errors.Is(err, tenants.ErrAway) {
		t.Errorf("a lock that nobody lets go of: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	still := bigger
	still.Edit = func(old *tenants.Tenant) (*tenants.Tenant, error) {
		if _, err := r.Change(t.Context(), bigger); err != nil { // which needs the locks that this one has
			t.Errorf("behind one that stands still: %v", err)
		}
		return bigger.Edit(old)
	}
	if _, err := impatient.Change(t.Context(), still); !errors.Is(err, tenants.ErrAway) {
		t.Errorf("one that stood still: %v", err)
	}
	if _, err := r.pool.Exec(t.Context(), `SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Change(t.Context(), bigger); !errors.Is(err, tenants.ErrAway) {
		t.Errorf("a server that cannot be written: %v", err)
	}
	if is, err := r.Change(t.Context(), bigger); err != nil || is.Tenant.Pool.Size != 22 {
		t.Errorf("the next: %+v, %v", is, err)
	}
}
