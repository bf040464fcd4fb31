package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
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

var operator = tenants.Actor{Name: "ops", Token: "t1", Address: netip.MustParseAddrPort("198.51.100.7:4711"), Request: "r1"}

// put is an edit that says what the tenant shall be.
func put(t *tenants.Tenant, match int64) tenants.Edit {
	return tenants.Edit{By: operator, Action: "tenant.put", Tenant: t.ID, Match: match, Edit: func(*tenants.Tenant) (*tenants.Tenant, error) { return t, nil }}
}

// with is an edit that changes a copy of what is there.
func with(id string, match int64, set func(*tenants.Tenant)) tenants.Edit {
	return tenants.Edit{By: operator, Action: "tenant.patch", Tenant: id, Match: match, Edit: func(old *tenants.Tenant) (*tenants.Tenant, error) {
		if old == nil {
			return nil, tenants.ErrNoSuchTenant
		}
		next := *old
		set(&next)
		return &next, nil
	}}
}

func remove(id string, match int64) tenants.Edit {
	return tenants.Edit{By: operator, Action: "tenant.delete", Tenant: id, Match: match, Edit: func(old *tenants.Tenant) (*tenants.Tenant, error) {
		if old == nil {
			return nil, tenants.ErrNoSuchTenant
		}
		return nil, nil
	}}
}

// TestRegistryChanges: a tenant is made, changed and removed, each time with a new revision and a row in the audit log; what is refused
// changes nothing, and has its row.
func TestRegistryChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.registryChanges()
}

// TestRegistryGenerations does so with newer servers.
func TestRegistryGenerations(t *testing.T) {
	t.Parallel()
	majors := []int{18}
	if harness.Long() {
		majors = []int{16, 17, 18}
	}
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			newWorld(t, harness.PostgresOf(t, major)).registryChanges()
		})
	}
}

func (w *world) registryChanges() {
	t := w.t
	r := w.registry()
	said := ""
	r.opts.Judge.Verifier = func(text string) error {
		if text == "marked-bad" {
			return errors.New("no")
		}
		return nil
	}
	r.opts.Judge.Here = func(x *tenants.Tenant) error {
		if x.Database == "elsewhere" {
			return errors.New("not here")
		}
		return nil
	}
	done := func(c tenants.Edit) tenants.Record {
		t.Helper()
		got, err := r.Change(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	made := done(put(sample("acme"), tenants.MatchNone))
	if made.Revision <= 0 || made.Version != 1 || made.Changed.IsZero() {
		t.Errorf("made: %+v", made)
	}
	if got, err := r.Tenant(t.Context(), "acme"); err != nil || got.Revision != made.Revision || got.Version != 1 || !got.Changed.Equal(made.Changed) || !got.Tenant.Equal(sample("acme")) {
		t.Errorf("read: %+v, %v; made %+v", got, err, made)
	}
	if same := done(put(sample("acme"), made.Revision)); same.Revision != made.Revision || same.Version != 1 || same.Tenant == nil {
		t.Errorf("the same again: %+v", same)
	}
	sealed := w.seals()
	wider := done(with("acme", made.Revision, func(x *tenants.Tenant) {
		x.Pool.Size = 9
		web := *x.Users["web"]
		web.MaxClients = 5
		x.Users = map[string]*tenants.User{"app": {Name: "app", Verifier: tenants.NewSecret("verifier-marked-new")}, "web": &web}
	}))
	if wider.Revision == made.Revision || wider.Version != 2 || wider.Changed.Before(made.Changed) {
		t.Errorf("changed: %+v after %+v", wider, made)
	}
	if now := w.seals(); now["web"] != sealed["web"] || now["app"] == sealed["app"] {
		t.Error("a secret that was not touched is sealed anew, or one that was is not")
	}
	var taken *tenants.ConflictError
	fly := sample("globex")
	fly.Upstream, fly.Machine = tenants.Upstream{}, &tenants.Machine{Provider: tenants.ProviderLocal, Name: "m"}
	fly.Flycast = netip.MustParseAddr("fdaa::3")
	done(put(fly, 0))
	for _, c := range []struct {
		what string
		edit tenants.Edit
		is   func(error) bool
	}{
		{"an old revision", with("acme", made.Revision, func(x *tenants.Tenant) { x.Pool.Size = 10 }), func(err error) bool { return errors.Is(err, tenants.ErrChanged) }},
		{"one that must not be there", put(sample("acme"), tenants.MatchNone), func(err error) bool { return errors.Is(err, tenants.ErrChanged) }},
		{"one that must be there", put(sample("initech"), 7), func(err error) bool { return errors.Is(err, tenants.ErrChanged) }},
		{"its own no", with("initech", 0, nil), func(err error) bool { return errors.Is(err, tenants.ErrNoSuchTenant) }},
		{"a rule", with("acme", 0, func(x *tenants.Tenant) { x.Pool.Size = -5 }), func(err error) bool { return problemAt(err, "pool.size") }},
		{"a bad secret", with("acme", 0, func(x *tenants.Tenant) {
			x.Users = map[string]*tenants.User{"app": {Name: "app", Verifier: tenants.NewSecret("marked-bad")}}
		}), func(err error) bool { return problemAt(err, `users["app"].verifier`) }},
		{"a rule of this process", with("acme", 0, func(x *tenants.Tenant) { x.Database = "elsewhere" }), func(err error) bool { return problemAt(err, "") }},
		{"another's id", with("acme", 0, func(x *tenants.Tenant) { x.ID = "globex" }), func(err error) bool { return problemAt(err, "id") }},
		{"an id that is none", with("\x00", 0, nil), func(err error) bool { return errors.Is(err, tenants.ErrNoSuchTenant) }},
		{"another's machine", with("acme", 0, func(x *tenants.Tenant) {
			x.Upstream, x.Machine = tenants.Upstream{}, &tenants.Machine{Provider: tenants.ProviderLocal, Name: "m"}
		}), func(err error) bool {
			return errors.As(err, &taken) && taken.Other == "globex" && taken.Machine == "local/m"
		}},
		{"another's address of Flycast's", with("acme", 0, func(x *tenants.Tenant) { x.Flycast = fly.Flycast }),
			func(err error) bool {
				return errors.As(err, &taken) && taken.Other == "globex" && taken.Flycast == fly.Flycast
			}},
	} {
		before, _ := r.Tenant(t.Context(), "acme")
		_, err := r.Change(t.Context(), c.edit)
		if !c.is(err) {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		said += err.Error()
		if last := w.entries(r, 1)[0]; last.Outcome != err.Error() || last.Version != 0 || len(last.Changes) > 0 || last.Action != c.edit.Action || last.Tenant != sane(c.edit.Tenant) {
			t.Errorf("%s: the audit log has %+v", c.what, last)
		}
		if now, err := r.Tenant(t.Context(), "acme"); err != nil || now.Revision != before.Revision {
			t.Errorf("%s: it is changed: %+v, %v", c.what, now, err)
		}
	}
	gone := done(remove("acme", wider.Revision))
	if gone.Tenant != nil || gone.Version != 4 {
		t.Errorf("removed: %+v", gone)
	}
	if _, err := r.Tenant(t.Context(), "acme"); !errors.Is(err, tenants.ErrNoSuchTenant) {
		t.Errorf("it is there: %v", err)
	}
	if again := done(put(sample("acme"), tenants.MatchNone)); again.Revision == made.Revision {
		t.Error("a revision came twice")
	}
	w.audited(r)
	w.canary(said)
}

func problemAt(err error, path string) bool {
	var p tenants.Problems
	return errors.As(err, &p) && slices.ContainsFunc(p, func(p tenants.Problem) bool { return p.Path == path })
}

// seals are the sealed secrets, by user.
func (w *world) seals() map[string]string {
	w.t.Helper()
	all := make(map[string]string)
	rows, err := w.connect().Query(w.t.Context(), `SELECT name, concat(verifier, password, server_password) FROM postern.users`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			w.t.Fatal(err)
		}
		all[name] = text
	}
	return all
}

// entries are the last of the audit log, the latest first.
func (w *world) entries(r *Registry, n int) []tenants.Entry {
	w.t.Helper()
	all, err := r.Audit(w.t.Context(), "", 0, n)
	if err != nil || len(all) == 0 {
		w.t.Fatalf("audit: %v, %v", all, err)
	}
	return all
}

// audited judges what registryChanges has left in the audit log.
func (w *world) audited(r *Registry) {
	t := w.t
	all := w.entries(r, 100)
	var told []string
	for i, e := range all {
		if e.Number != int64(len(all)-i) || e.By != operator || e.At.IsZero() || len(e.Chain) != 64 {
			t.Errorf("entry %+v", e)
		}
		if e.Outcome == outcomeDone {
			told = append(told, fmt.Sprint(e.Action, " ", e.Tenant, " ", e.Version, " ", len(e.Changes) > 0))
		}
	}
	if want := []string{"tenant.put acme 5 true", "tenant.delete acme 4 true", "tenant.put globex 3 true", "tenant.patch acme 2 true", "tenant.put acme 1 true"}; !slices.Equal(told, want) {
		t.Errorf("done: %q, want %q", told, want)
	}
	patched := all[slices.IndexFunc(all, func(e tenants.Entry) bool { return e.Version == 2 })]
	if want := []tenants.Difference{{Path: "pool.size", Old: "20", New: "9"}, {Path: `users["app"].pool_size`, Old: "7"}, {Path: `users["app"].verifier`, Secret: true},
		{Path: `users["web"].max_clients`, New: "5"}}; !slices.Equal(patched.Changes, want) {
		t.Errorf("changes %+v, want %+v", patched.Changes, want)
	}
	if some, err := r.Audit(t.Context(), "globex", 0, 100); err != nil || len(some) != 1 || some[0].Tenant != "globex" {
		t.Errorf("globex's: %+v, %v", some, err)
	}
	if some, err := r.Audit(t.Context(), "", 3, 100); err != nil || len(some) != 2 || some[0].Number != 2 {
		t.Errorf("before 3: %+v, %v", some, err)
	}
	w.canary(fmt.Sprint(all))
}

// TestNobodysChangeIsLost: many change the same few tenants, by registries of several processes, by SQL and by imports. Who was told that
// it is done has changed what there was, once; each change has its number, revision and row; who follows has what the store has.
func TestNobodysChangeIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	const writers, each = 6, 12
	ids := []string{"acme", "globex"}
	f := w.follow()
	registries := []*Registry{w.registry(), w.registry()}
	var mu sync.Mutex
	done := make(map[string]int)     // by tenant
	revisions := make(map[int64]int) // how often each was given
	refused := 0
	size := func(x *tenants.Tenant) { x.Pool.Size++ }
	for _, id := range ids {
		x := sample(id)
		x.Pool.Size, x.Pool.MaxServers = 1, 1000
		if id == "acme" {
			x.Users = nil // whose locks would do for the tenant's
		}
		if _, err := registries[0].Change(t.Context(), put(x, 0)); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for i := range writers {
		r := registries[i%len(registries)]
		random := rand.New(rand.NewPCG(uint64(i), 1))
		all.Go(func() {
			for range each {
				id, match := ids[random.IntN(len(ids))], int64(0)
				if random.IntN(2) == 0 {
					is, err := r.Tenant(t.Context(), id)
					if err != nil {
						t.Error(err)
					}
					match = is.Revision
				}
				got, err := r.Change(t.Context(), with(id, match, size))
				if match != 0 && errors.Is(err, tenants.ErrChanged) {
					mu.Lock()
					refused++
					mu.Unlock()
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				done[id]++
				revisions[got.Revision]++
				mu.Unlock()
			}
		})
	}
	conn := w.connect()
	all.Go(func() { // what concerns the same rows, and takes them in another order
		for i := range each {
			for _, sql := range []string{`UPDATE postern.users SET document = jsonb_build_object('pool_size', $1::int)`,
				`UPDATE postern.tenants SET document = document || jsonb_build_object('database', concat('d', $1::int)) WHERE id = 'globex'`} {
				if _, err := conn.Exec(t.Context(), sql, i+1); err != nil && !overtaken(err) {
					t.Error(err)
				}
			}
		}
	})
	all.Go(func() {
		for i := range each / 2 {
			x := sample("initech")
			x.Pool.Size = i + 1
			if _, err := Import(t.Context(), w.conf(), w.keys, []*tenants.Tenant{x}, ImportOptions{}, &strings.Builder{}); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	for revision, n := range revisions {
		if n != 1 {
			t.Errorf("revision %d was given %d times", revision, n)
		}
	}
	var want []string
	for _, id := range ids {
		is, err := registries[0].Tenant(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if is.Tenant.Pool.Size != 1+done[id] {
			t.Errorf("%s: %d changes are done, the store has %d", id, done[id], is.Tenant.Pool.Size-1)
		}
		want = append(want, document1(is.Tenant))
	}
	harness.Eventually(t, harness.Patience, "who follows has what the store has", func() bool {
		var got []string
		for _, id := range ids {
			if x, ok := f.d.Tenant(id); ok {
				got = append(got, document1(x))
			}
		}
		return slices.Equal(got, want)
	})
	outcomes := make(map[string]int)
	for _, e := range w.entries(registries[1], 1000) {
		outcomes[e.Outcome]++
	}
	if want := done["acme"] + done["globex"] + len(ids) + each/2; outcomes[outcomeDone] != want || outcomes[tenants.ErrChanged.Error()] != refused {
		t.Errorf("%v are in the audit log, %d were done and %d refused", outcomes, want, refused)
	}
	w.verified(registries[0])
}

// document1 is all of a tenant that is no secret.
func document1(t *tenants.Tenant) string {
	text := string(document.Encode(document.Of(t)))
	for _, d := range document.Differences(nil, t) {
		text += fmt.Sprint(d)
	}
	return text
}

// TestChangesWaitForSQL: what somebody does by SQL to a user at the same time is not lost, and is a change of the tenant.
func TestChangesWaitForSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	made, err := r.Change(t.Context(), put(sample("acme"), 0))
	if err != nil {
		t.Fatal(err)
	}
	limit := func(x *tenants.Tenant) {
		app := *x.Users["app"]
		app.MaxClients = 5
		x.Users = map[string]*tenants.User{"app": &app, "web": x.Users["web"]}
	}
	conn := w.connect()
	for _, c := range []struct {
		match int64
		err   error
	}{{made.Revision, tenants.ErrChanged}, {0, nil}} {
		tx, err := w.connect().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `UPDATE postern.users SET document = document || '{"max_servers": 3}' WHERE name = 'app'`); err != nil {
			t.Fatal(err)
		}
		changed := make(chan error, 1)
		go func() { _, err := r.Change(t.Context(), with("acme", c.match, limit)); changed <- err }()
		harness.Eventually(t, harness.Patience, "the change waits", func() bool {
			var waits bool
			err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())`).Scan(&waits)
			return err == nil && waits
		})
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-changed; !errors.Is(err, c.err) {
			t.Errorf("match %d: %v", c.match, err)
		}
	}
	is, err := r.Tenant(t.Context(), "acme")
	if err != nil || is.Tenant.Users["app"].MaxServers != 3 || is.Tenant.Users["app"].MaxClients != 5 {
		t.Errorf("%+v, %v", is.Tenant.Users["app"], err)
	}
}

// TestTwoMakeOne: of many that make the same tenant at the same time, or give different ones the same machine, one does.
func TestTwoMakeOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	const many = 4
	race := func(edit func(i int) tenants.Edit, lost func(error) bool) {
		t.Helper()
		errs := make(chan error, many)
		for i := range many {
			go func() { _, err := r.Change(t.Context(), edit(i)); errs <- err }()
		}
		won := 0
		for range many {
			if err := <-errs; err == nil {
				won++
			} else if !lost(err) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d have won", won)
		}
	}
	for round := range 3 {
		race(func(i int) tenants.Edit {
			x := sample(fmt.Sprint("r", round))
			x.Pool.Size = i + 1
			return put(x, tenants.MatchNone)
		}, func(err error) bool { return errors.Is(err, tenants.ErrChanged) })
		race(func(i int) tenants.Edit {
			x := sample(fmt.Sprintf("m%d-%d", round, i))
			x.Upstream, x.Machine = tenants.Upstream{}, &tenants.Machine{Provider: tenants.ProviderLocal, Name: fmt.Sprint("m", round)}
			return put(x, 0)
		}, func(err error) bool { return errors.As(err, new(*tenants.ConflictError)) })
	}
	w.verified(r)
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
	if _, err := r.Tenant(t.Context(), "a0"); err == nil || errors.Is(err, tenants.ErrNoSuchTenant) || errors.Is(err, tenants.ErrAway) {
		t.Errorf("one that cannot be read: %v", err)
	}
	if _, err := r.Change(t.Context(), put(sample("a0"), 0)); err == nil {
		t.Error("one that cannot be read is changed unread")
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
	r.known.valid(digestOf("a"), tenants.Token{Name: "known"}, time.Now().Add(-10*time.Second))
	if got, err := r.FindToken(t.Context(), digestOf("a")); err != nil || got.Name != "known" {
		t.Errorf("a known token: %+v, %v", got, err)
	}
	for name, call := range map[string]func() error{
		"Tenant":  func() error { _, err := r.Tenant(t.Context(), "acme"); return err },
		"Tenants": func() error { _, err := r.Tenants(t.Context(), "", 10); return err },
		"Change":  func() error { _, err := r.Change(t.Context(), put(sample("acme"), 0)); return err },
		"Audit":   func() error { _, err := r.Audit(t.Context(), "", 0, 10); return err },
		"Tokens":  func() error { _, err := r.Tokens(t.Context(), ""); return err },
		"AddToken": func() error {
			_, err := r.AddToken(t.Context(), operator, tenants.Token{Name: "x", Scope: tenants.ScopeOperator}, digestOf("x"))
			return err
		},
		"RevokeToken": func() error { return r.RevokeToken(t.Context(), operator, "", "x") },
		"FindToken":   func() error { _, err := r.FindToken(t.Context(), digestOf("unknown")); return err },
		"Refused":     func() error { return r.Refused(t.Context(), tenants.Entry{}) },
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
	for _, sql := range []string{`GRANT USAGE ON SCHEMA postern TO `, `GRANT SELECT ON ALL TABLES IN SCHEMA postern TO `,
		`GRANT INSERT, UPDATE, DELETE ON postern.tenants, postern.users, postern.tokens TO `, `GRANT INSERT ON postern.audit TO `} {
		w.exec(sql + harness.Other)
	}
	w.as(harness.Other, harness.OtherPassword)
	r := w.registry()
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
	if err := r.Refused(t.Context(), tenants.Entry{}); err != nil {
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
