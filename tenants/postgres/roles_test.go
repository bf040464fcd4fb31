// Tests of the lists of roles in the store, and of the secret that asks for them.

package postgres

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// asking is a tenant whose roles are asked for.
func asking(id string) *tenants.Tenant {
	t := sample(id)
	t.AuthQuery = &tenants.AuthQuery{User: "asker", Password: tenants.NewSecret("c4nary-asker")}
	return t
}

// TestRolesAreKeptSealed: a list comes back as it was, is nothing to read for who has no key, and goes with what it belongs to.
func TestRolesAreKeptSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	w.load(asking("acme"), asking("globex"), sample("initech"))
	has := func(tenant, want string) (age time.Duration) {
		t.Helper()
		list, age, err := r.ReadRoles(t.Context(), tenant)
		if err != nil || string(list) != want {
			t.Errorf("%s has %q, %v, want %q", tenant, list, err, want)
		}
		return age
	}
	write := func(tenant, list string, age time.Duration) {
		t.Helper()
		if err := r.WriteRoles(t.Context(), tenant, []byte(list), age); err != nil {
			t.Error(err)
		}
	}
	has("acme", "")
	write("acme", "c4nary-1", time.Hour)
	write("globex", "c4nary-2", 0)
	if age := has("acme", "c4nary-1"); age < time.Hour || age > 2*time.Hour {
		t.Errorf("a list of an hour ago is %v old", age)
	}
	has("globex", "c4nary-2")
	write("acme", "older", 3*time.Hour)
	has("acme", "c4nary-1")
	write("acme", "c4nary-3", time.Minute)
	has("acme", "c4nary-3")
	w.exec(`UPDATE postern.roles SET at = at + interval '1 day' WHERE tenant = 'acme'`) // before the clock was set back
	if age := has("acme", "c4nary-3"); age != 0 {
		t.Errorf("a list of tomorrow is %v old", age)
	}
	write("acme", "c4nary-4", time.Minute)
	has("acme", "c4nary-4")
	write("nobody", "x", 0) // who is gone meanwhile
	write("initech", "x", 0)
	has("nobody", "")
	has("initech", "")
	if err := r.WriteRoles(t.Context(), "acme", make([]byte, maxRoles+1), 0); err == nil {
		t.Error("a giant list is written")
	}

	var dump []byte
	if err := w.connect().QueryRow(t.Context(), `SELECT concat((SELECT string_agg(concat(t, encode(auth_query_password, 'escape')), '') FROM postern.tenants t),
		(SELECT string_agg(encode(sealed, 'escape'), '') FROM postern.roles))`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	if len(dump) == 0 || bytes.Contains(dump, []byte("c4nary")) {
		t.Errorf("the database can read it: %q", dump)
	}
	var out strings.Builder
	if err := Export(t.Context(), w.conf(), &out); err != nil || strings.Contains(out.String(), "c4nary") || !strings.Contains(out.String(), "user: asker") {
		t.Errorf("%v: the export is\n%s", err, &out)
	}

	// Put elsewhere it does not open.
	w.exec(`UPDATE postern.roles SET sealed = (SELECT sealed FROM postern.roles WHERE tenant = 'acme') WHERE tenant = 'globex'`)
	if list, _, err := r.ReadRoles(t.Context(), "globex"); err == nil {
		t.Errorf("it opens at another tenant: %q", list)
	}
	// Who may come in no more is forgotten.
	w.load(sample("acme"), asking("globex"), sample("initech"))
	has("acme", "")
	w.exec(`DELETE FROM postern.tenants WHERE id = 'globex'`)
	has("globex", "")
}

// TestRolesAreSealedAnew with another key, as is the password that asks for them.
func TestRolesAreSealedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(asking("acme"))
	if err := w.registry().WriteRoles(t.Context(), "acme", []byte("list"), 0); err != nil {
		t.Fatal(err)
	}
	w.keys = testKeys(t, "k2", "k1")
	s := &resealer{conn: w.connect(), keys: w.keys, before: func(context.Context) error { return nil }, done: func(int) {}}
	if err := s.all(t.Context()); err != nil || s.broken() != nil {
		t.Fatal(err, s.broken())
	}
	if n, err := countOthers(t.Context(), w.connect(), "k2"); n != 0 || err != nil {
		t.Errorf("%d rows are left, %v", n, err)
	}
	w.keys = testKeys(t, "k2")
	r := w.registry()
	if list, _, err := r.ReadRoles(t.Context(), "acme"); err != nil || string(list) != "list" {
		t.Errorf("%q, %v", list, err)
	}
	if rec, err := r.Tenant(t.Context(), "acme"); err != nil || rec.Tenant.AuthQuery.Password.Reveal() != "c4nary-asker" {
		t.Error(err)
	}
}
