package postgres

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

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
	newer(t, func(w *world) { w.registryChanges() })
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
		{"one that must not be there", put(sample("acme"), tenants.MatchNone), func(err error) bool { return errors.Is(err, tenants.ErrTaken) }},
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
		if e.Outcome == tenants.OutcomeDone {
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
	no := errors.New("no")
	_, err := r.Change(t.Context(), tenants.Edit{By: operator, Action: "tenant.put", Tenant: "acme", Unnoted: true, Edit: func(*tenants.Tenant) (*tenants.Tenant, error) { return nil, no }})
	if !errors.Is(err, no) || len(w.entries(r, 100)) != len(all) {
		t.Errorf("%v, and %d entries more", err, len(w.entries(r, 100))-len(all))
	}
}
