package file

import (
	"errors"
	"fmt"
	"testing"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

const registryTenants = `tenants:
  - {id: globex, upstream: {host: b}, users: [{name: web, password_file: web.pw}]}
  - {id: acme, upstream: {host: a}, users: [{name: app, verifier: v}]}
  - {id: a-b, upstream: {host: c}}
`

func openText(t *testing.T, text func() string) *Store {
	t.Helper()
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(d, func() (*Snapshot, error) { return loadText(t, text()) }, discard())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRegistry: a file does what every registry does, and cannot be changed.
func TestRegistry(t *testing.T) {
	s := openText(t, func() string { return registryTenants })
	harness.CheckRegistry(t, s, s.directory.All()...)
	if _, err := s.AddToken(t.Context(), tenants.Actor{}, tenants.Token{}, [32]byte{}); !errors.Is(err, tenants.ErrReadOnly) {
		t.Errorf("a token can be added: %v", err)
	}
}

// TestRevisions: a tenant's revision changes with whatever it is, its secrets too, and with nothing else; it does not tell what they are.
func TestRevisions(t *testing.T) {
	text := ""
	set := func(id, user, secret string) {
		text = fmt.Sprintf("tenants:\n  - {id: %s, upstream: {host: a}, users: [{name: %s, password_file: %s}]}\n", id, user, secret)
	}
	set("acme", "app", "web.pw")
	s, other := openText(t, func() string { return text }), openText(t, func() string { return text })
	revision := func() int64 {
		t.Helper()
		if err := s.Reload(); err != nil {
			t.Fatal(err)
		}
		page, err := s.Tenants(t.Context(), "", 10)
		if err != nil || len(page) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
		return page[0].Revision
	}
	seen := map[int64]string{revision(): text}
	for _, change := range []func(){func() { set("acme", "app", "rw.pw") }, func() { set("acme", "web", "web.pw") }, func() { set("globex", "app", "web.pw") },
		func() {
			set("acme", "app", "web.pw}], databases: [postgres], pool: {size: 3}, state: {}, timeouts: {}, allow_list: []}\n#")
		}} {
		change()
		if before, twice := seen[revision()]; twice {
			t.Errorf("%s has the revision of %s", text, before)
		}
		seen[revision()] = text
	}
	set("acme", "app", "web.pw")
	if seen[revision()] != text {
		t.Error("what is the same again has another revision")
	}
	if is, err := other.Tenant(t.Context(), "acme"); err != nil || is.Revision == revision() {
		t.Errorf("another process makes the same revision: %+v, %v", is, err)
	}
}
