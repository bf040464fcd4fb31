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

// ReadRoles returns a tenant's list of roles, as WriteRoles was given it, and how long ago its server said so; nil: there is none.
func (r *Registry) ReadRoles(ctx context.Context, tenant string) (list []byte, age time.Duration, err error) {
	list, err = ask(ctx, r, func(ctx context.Context) ([]byte, error) {
		var sealed []byte
		var ms int64
		err := r.pool.QueryRow(ctx, `SELECT sealed, greatest(0, extract(epoch FROM clock_timestamp() - at) * 1000)::bigint FROM postern.roles
			WHERE tenant = $1`, tenant).Scan(&sealed, &ms)
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
		age = time.Duration(ms) * time.Millisecond
		return text, nil
	})
	return list, age, err
}

// WriteRoles keeps a tenant's list of roles, unless there is a newer one, or the tenant is gone. Which one is newer the store's clock
// says, as long as it is not set back: one of the future is as good as none.
func (r *Registry) WriteRoles(ctx context.Context, tenant string, list []byte, age time.Duration) error {
	if len(list) > maxRoles {
		return fmt.Errorf("a list of roles has %d bytes, more than %d", len(list), maxRoles)
	}
	_, err := ask(ctx, r, func(ctx context.Context) (struct{}, error) {
		_, err := r.pool.Exec(ctx, `INSERT INTO postern.roles AS r (tenant, sealed, at)
			SELECT id, $2, clock_timestamp() - $3::bigint * interval '1 ms' FROM postern.tenants WHERE id = $1 AND document ? 'auth_query'
			ON CONFLICT (tenant) DO UPDATE SET sealed = excluded.sealed, at = excluded.at
				WHERE r.at < excluded.at OR r.at > clock_timestamp()`,
			tenant, r.opts.Keys.seal(rolesPlace(tenant), list), max(0, age.Milliseconds()))
		return struct{}{}, err
	})
	return err
}
