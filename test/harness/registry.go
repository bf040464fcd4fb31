// What every registry of tenants does, whatever its store is.

package harness

import (
	"errors"
	"slices"
	"testing"

	"github.com/postern/postern/tenants"
)

// CheckRegistry judges a registry that has just these tenants, two at least, and changes one of them if it can.
func CheckRegistry(t *testing.T, r tenants.Registry, have ...*tenants.Tenant) {
	t.Helper()
	slices.SortFunc(have, func(a, b *tenants.Tenant) int { return compareIDs(a.ID, b.ID) })
	revisions := make(map[string]int64)
	for _, want := range have {
		got, err := r.Tenant(t.Context(), want.ID)
		if err != nil || !got.Tenant.Equal(want) || got.Revision <= 0 {
			t.Fatalf("tenant %s: %+v, %v, want %+v", want.ID, got, err, want)
		}
		revisions[want.ID] = got.Revision
	}
	for _, id := range []string{"", "nobody", have[0].ID + "x", "\x00", have[0].ID + "\x00", "\xff", "Ä"} {
		if got, err := r.Tenant(t.Context(), id); !errors.Is(err, tenants.ErrNoSuchTenant) || got.Tenant != nil {
			t.Errorf("tenant %q: %+v, %v", id, got, err)
		}
	}
	for limit := 1; limit <= len(have)+1; limit++ {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := r.Tenants(t.Context(), after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d tenants, %v", len(page), err)
			}
			for _, is := range page {
				got = append(got, is.Tenant.ID)
				if is.Revision != revisions[is.Tenant.ID] {
					t.Errorf("%s has revision %d in a list, and %d alone", is.Tenant.ID, is.Revision, revisions[is.Tenant.ID])
				}
			}
			if len(page) < limit {
				break
			}
		}
		if !slices.EqualFunc(got, have, func(id string, want *tenants.Tenant) bool { return id == want.ID }) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	checkRegistryChanges(t, r, have[0], revisions)
	if _, err := r.FindToken(t.Context(), [32]byte{1}); !errors.Is(err, tenants.ErrNoSuchToken) {
		t.Errorf("a token that nobody has: %v", err)
	}
	if err := r.RevokeToken(t.Context(), tenants.Actor{}, "", "nobody's"); !errors.Is(err, tenants.ErrNoSuchToken) {
		t.Errorf("revoking a token that is not there: %v", err)
	}
	if all, err := r.Tokens(t.Context(), "", "", 10); err != nil || len(all) > 0 {
		t.Errorf("tokens: %v, %v", all, err)
	}
	if _, err := r.Token(t.Context(), "nobody's"); !errors.Is(err, tenants.ErrNoSuchToken) {
		t.Errorf("a token that is not there: %v", err)
	}
	if err := r.Note(t.Context(), tenants.Entry{Action: "test", Outcome: "no"}); err != nil {
		t.Errorf("a refusal: %v", err)
	}
	all, err := r.Audit(t.Context(), "", 0, 100)
	if err != nil || !slices.IsSortedFunc(all, func(a, b tenants.Entry) int { return int(b.Number - a.Number) }) {
		t.Errorf("audit: %+v, %v", all, err)
	}
}

func compareIDs(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// checkRegistryChanges changes a tenant there and back.
func checkRegistryChanges(t *testing.T, r tenants.Registry, was *tenants.Tenant, revisions map[string]int64) {
	t.Helper()
	set := func(size int) tenants.Edit {
		return tenants.Edit{Action: "test", Tenant: was.ID, Edit: func(old *tenants.Tenant) (*tenants.Tenant, error) {
			next := *old
			next.Pool.Size = size
			return &next, nil
		}}
	}
	changed, err := r.Change(t.Context(), set(was.Pool.Size+1))
	readOnly := errors.Is(err, tenants.ErrReadOnly)
	if err != nil && !readOnly {
		t.Fatal(err)
	}
	now, err := r.Tenant(t.Context(), was.ID)
	if err != nil || (now.Revision == revisions[was.ID]) != readOnly || (now.Tenant.Pool.Size == was.Pool.Size) != readOnly {
		t.Errorf("changed (unless it is read only: %v): %+v, %v", readOnly, now, err)
	}
	if readOnly {
		return
	}
	if changed.Revision != now.Revision || changed.Version != now.Version || !changed.Tenant.Equal(now.Tenant) {
		t.Errorf("told %+v, it is %+v", changed, now)
	}
	back, err := r.Change(t.Context(), set(was.Pool.Size))
	if err != nil || back.Revision == now.Revision || back.Revision == revisions[was.ID] || !back.Tenant.Equal(was) {
		t.Errorf("changed back: %+v, %v", back, err)
	}
}
