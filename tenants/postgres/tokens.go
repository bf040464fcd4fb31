// Tokens of the admin API: made, listed, revoked and found.

package postgres

import (
	"context"
	"errors"

	"github.com/postern/postern/tenants"
)

var errNotYet = errors.New("BUG: tokens are not built yet")

// Tokens implements [tenants.Registry].
func (r *Registry) Tokens(context.Context, string) ([]tenants.Token, error) { return nil, errNotYet }

// AddToken implements [tenants.Registry].
func (r *Registry) AddToken(context.Context, tenants.Actor, tenants.Token, [32]byte) (tenants.Token, error) {
	return tenants.Token{}, errNotYet
}

// RevokeToken implements [tenants.Registry].
func (r *Registry) RevokeToken(context.Context, tenants.Actor, string, string) error {
	return errNotYet
}

// FindToken implements [tenants.Registry].
func (r *Registry) FindToken(context.Context, [32]byte) (tenants.Token, error) {
	return tenants.Token{}, tenants.ErrNoSuchToken
}
