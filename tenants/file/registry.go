// A file as a registry: it can be read, and is changed by editing it.

package file

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

var _ tenants.Registry = (*Store)(nil)

// Tenant is [tenants.Registry]'s.
func (s *Store) Tenant(_ context.Context, id string) (tenants.Record, error) {
	t, ok := s.directory.Tenant(id)
	if !ok {
		return tenants.Record{}, tenants.ErrNoSuchTenant
	}
	return s.record(t), nil
}

// Tenants is [tenants.Registry]'s.
func (s *Store) Tenants(_ context.Context, after string, limit int) (page []tenants.Record, err error) {
	all := slices.DeleteFunc(s.directory.All(), func(t *tenants.Tenant) bool { return t.ID <= after })
	slices.SortFunc(all, func(a, b *tenants.Tenant) int { return cmp.Compare(a.ID, b.ID) })
	for _, t := range all[:min(limit, len(all))] {
		page = append(page, s.record(t))
	}
	return page, nil
}

// record has no version, and no time: a file does not say when a tenant was changed.
func (s *Store) record(t *tenants.Tenant) tenants.Record {
	return tenants.Record{Tenant: t, Revision: s.revision(t)}
}

// revision is a digest of all that a tenant is. It is told to whoever may read the tenant, so it is made with a secret of this process:
// else it would tell whether a guess at a password is right.
func (s *Store) revision(t *tenants.Tenant) int64 {
	sum := hmac.New(sha256.New, s.revisions[:])
	sum.Write(document.Encode(t.ID))
	for _, d := range document.Differences(nil, t) {
		sum.Write(document.Encode(d))
	}
	for _, secret := range document.TenantSecrets() {
		if text := secret.Of(t); text != nil {
			sum.Write(document.Encode([]string{secret.Path, text.Reveal()}))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Users)) {
		for _, secret := range document.Secrets() {
			sum.Write(document.Encode([]string{name, secret.Field, secret.Of(t.Users[name]).Reveal()}))
		}
	}
	return int64(binary.BigEndian.Uint64(sum.Sum(nil))>>4) + 1 // more than 0, as a store's
}

// Change is [tenants.Registry]'s.
func (s *Store) Change(context.Context, tenants.Edit) (tenants.Record, error) {
	return tenants.Record{}, tenants.ErrReadOnly
}

// Tokens is [tenants.Registry]'s.
func (s *Store) Tokens(context.Context, string, string, int) ([]tenants.Token, error) {
	return nil, nil
}

// Token is [tenants.Registry]'s: there is none.
func (s *Store) Token(context.Context, string) (tenants.Token, error) {
	return tenants.Token{}, tenants.ErrNoSuchToken
}

// AddToken is [tenants.Registry]'s.
func (s *Store) AddToken(context.Context, tenants.Actor, tenants.Token, [32]byte) (tenants.Token, error) {
	return tenants.Token{}, tenants.ErrReadOnly
}

// RevokeToken is [tenants.Registry]'s: there is none.
func (s *Store) RevokeToken(context.Context, tenants.Actor, string, string) error {
	return tenants.ErrNoSuchToken
}

// FindToken is [tenants.Registry]'s.
func (s *Store) FindToken(context.Context, [32]byte) (tenants.Token, error) {
	return tenants.Token{}, tenants.ErrNoSuchToken
}

// Audit is [tenants.Registry]'s: a file has no log of who changed it.
func (s *Store) Audit(context.Context, string, int64, int) ([]tenants.Entry, error) { return nil, nil }

// Note is [tenants.Registry]'s.
func (s *Store) Note(context.Context, tenants.Entry) error { return nil }
