// Where tenants come from: a file, or a database.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/files"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/file"
	"github.com/postern/postern/tenants/postgres"
)

// tenantStore fills the directory.
type tenantStore interface {
	Reload() error             // has the directory hold what the store has now
	Watch(ctx context.Context) // and keeps it so, until ctx ends
	Stats() tenants.Stats
	Degraded() error // why what is in force may be old, in public words; nil: it is not
}

// fileStore is the tenants file.
type fileStore struct {
	*file.Store
	path string
}

func (s fileStore) Watch(ctx context.Context) { s.Store.Watch(ctx, s.path) }

// Degraded is nil: a file that cannot be read is a mistake that its author sees at once.
func (s fileStore) Degraded() error { return nil }

// openStore opens the store that the configuration names.
func openStore(conf *configs.Config, d *tenants.Directory, log *slog.Logger) (tenantStore, error) {
	if conf.Tenants.InPostgres() {
		o, err := postgresOptions(conf)
		if err != nil {
			return nil, err
		}
		o.Directory, o.Log = d, log
		return postgres.Open(context.Background(), o) // which bounds itself
	}
	lane := files.NewLane()
	s, err := file.Open(d, func() (*file.Snapshot, error) {
		s, err := loadTenants(conf, conf.Tenants.File, lane)
		if err != nil {
			return nil, err
		}
		return s, errors.Join(conf.CheckExposure(s.AnyAllowList()), conf.CheckProviders(s.Providers()))
	}, log)
	if err != nil {
		return nil, err
	}
	return fileStore{s, conf.Tenants.File}, nil
}

// postgresOptions reads the files that the store needs.
func postgresOptions(conf *configs.Config) (o postgres.Options, err error) {
	p := conf.Tenants.Postgres
	if o.Conn, err = postgres.ReadDSN(p.DSNFile); err != nil {
		return o, err
	}
	if o.Keys, err = postgres.ReadKeys(p.KeyFile); err != nil {
		return o, err
	}
	o.CacheFile = p.CacheFile
	o.Judge = postgres.Judge{Verifier: checkVerifier, Here: func(t *tenants.Tenant) error { return fits(conf, t) }}
	return o, nil
}

// fits judges a tenant by what this process is.
func fits(conf *configs.Config, t *tenants.Tenant) error {
	providers := make(map[string]string)
	if t.Machine != nil {
		providers[string(t.Machine.Provider)] = t.ID
	}
	return errors.Join(conf.CheckExposure(t.Allow != nil), conf.CheckProviders(providers))
}

func checkVerifier(s string) error {
	_, err := scram.ParseVerifier(s)
	return err
}

func loadTenants(conf *configs.Config, path string, lane *files.Lane) (*file.Snapshot, error) {
	return file.Load(file.Options{Path: path, Lane: lane, CheckVerifier: checkVerifier})
}

// checkTenants says in words how many tenants there are, or what is wrong with them. A database is not asked: the
// configuration can be good while it is away.
func checkTenants(conf *configs.Config) (string, error) {
	if conf.Tenants.InPostgres() {
		_, err := postgresOptions(conf)
		return "tenants in a database", err
	}
	s, err := loadTenants(conf, conf.Tenants.File, files.NewLane())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d tenants", len(s.Tenants)), errors.Join(conf.CheckExposure(s.AnyAllowList()), conf.CheckProviders(s.Providers()))
}
