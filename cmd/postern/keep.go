// What commands of the console say of a tenant, written down where all nodes read it.

package main

import (
	"context"
	"errors"
	"time"

	"github.com/postern/postern/tenants"
)

// keepPause is between two questions whether a change is in force.
const keepPause = 20 * time.Millisecond

// keeper makes the function that the console keeps what it says with.
func keeper(r tenants.Registry) func(ctx context.Context, by tenants.Actor, action, tenant string, edit func(*tenants.Tenant)) ([]string, error) {
	return func(ctx context.Context, by tenants.Actor, action, tenant string, edit func(*tenants.Tenant)) (missing []string, err error) {
		rec, err := r.Change(ctx, tenants.Edit{By: by, Action: action, Tenant: tenant, Edit: func(old *tenants.Tenant) (*tenants.Tenant, error) {
			if old == nil {
				return nil, tenants.ErrNoSuchTenant
			}
			t := *old
			edit(&t)
			return &t, nil
		}})
		if err != nil {
			return nil, err
		}
		for {
			a, err := r.Applied(ctx, rec.Version)
			switch {
			case err == nil && a.Everywhere:
				return nil, nil
			case err == nil:
				missing = a.Missing
			case ctx.Err() == nil && !errors.Is(err, tenants.ErrAway):
				return nil, err
			}
			select {
			case <-time.After(keepPause):
			case <-ctx.Done():
				return missing, nil
			}
		}
	}
}
