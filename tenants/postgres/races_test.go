package postgres

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
	"github.com/postern/postern/test/harness"
)

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
		want = append(want, shown(is.Tenant))
	}
	harness.Eventually(t, harness.Patience, "who follows has what the store has", func() bool {
		var got []string
		for _, id := range ids {
			if x, ok := f.d.Tenant(id); ok {
				got = append(got, shown(x))
			}
		}
		return slices.Equal(got, want)
	})
	outcomes := make(map[string]int)
	for _, e := range w.entries(registries[1], 1000) {
		outcomes[e.Outcome]++
	}
	if want := done["acme"] + done["globex"] + len(ids) + each/2; outcomes[tenants.OutcomeDone] != want || outcomes[tenants.ErrChanged.Error()] != refused {
		t.Errorf("%v are in the audit log, %d were done and %d refused", outcomes, want, refused)
	}
	w.verified(registries[0])
}

// shown is all of a tenant that is no secret.
func shown(t *tenants.Tenant) string {
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
		}, func(err error) bool { return errors.Is(err, tenants.ErrTaken) })
		race(func(i int) tenants.Edit {
			x := sample(fmt.Sprintf("m%d-%d", round, i))
			x.Upstream, x.Machine = tenants.Upstream{}, &tenants.Machine{Provider: tenants.ProviderLocal, Name: fmt.Sprint("m", round)}
			return put(x, 0)
		}, func(err error) bool { return errors.As(err, new(*tenants.ConflictError)) })
	}
	w.verified(r)
}
