// Lists of the roles that tenants' servers have: kept sealed, for the time when those sleep.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxRoles bounds a list, in bytes.
const maxRoles = 16 << 20

func rolesPlace(tenant string) place {
	return place{table: "roles", row: []string{tenant}, field: "sealed"}
}

// ReadRoles returns a tenant's list of roles, as WriteRoles was given it, and when its server said so; nil: there is none.
func (r *Registry) ReadRoles(ctx context.Context, tenant string) (list []byte, at time.Time, err error) {
	list, err = ask(ctx, r, func(ctx context.Context) ([]byte, error) {
		var sealed []byte
		err := r.pool.QueryRow(ctx, `SELECT sealed, at FROM postern.roles WHERE tenant = $1`, tenant).Scan(&sealed, &at)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := r.opts.Keys.open(rolesPlace(tenant), sealed)
		if err != nil {
			return nil, fmt.Errorf("roles: %w", err)
		}
		return text, nil
	})
	return list, at, err
}

// WriteRoles keeps a tenant's list of roles, unless there is a newer one, or the tenant is gone.
func (r *Registry) WriteRoles(ctx context.Context, tenant string, list []byte, at time.Time) error {
	if len(list) > maxRoles {
		return fmt.Errorf("a list of roles has %d bytes, more than %d", len(list), maxRoles)
	}
	_, err := ask(ctx, r, func(ctx context.Context) (struct{}, error) {
		_, err := r.pool.Exec(ctx, `INSERT INTO postern.roles AS r (tenant, sealed, at)
			SELECT id, $2, $3 FROM postern.tenants WHERE id = $1 AND document ? 'auth_query'
			ON CONFLICT (tenant) DO UPDATE SET sealed = excluded.sealed, at = excluded.at WHERE r.at < excluded.at`,
			tenant, r.opts.Keys.seal(rolesPlace(tenant), list), at)
		return struct{}{}, err
	})
	return err
}
