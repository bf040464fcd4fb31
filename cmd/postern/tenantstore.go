// Where tenants come from: a file, or a database.

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/files"
	"github.com/postern/postern/proxy"
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
	Ready() error    // why new clients should go to another node, in public words; nil: they are welcome
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

// Ready is nil: all of a file is read before anything listens.
func (s fileStore) Ready() error { return nil }

// storeHooks are what a store needs of the gate.
type storeHooks struct {
	settled  func(context.Context) error // returns when changes are in force
	applyBan func(proxy.Ban)
	here     func() tenants.Here // what it is told of this node; nil: nothing
	boot     string              // "": made up
}

// registryOf is a store as the admin API asks and changes it, and what closes the connections that this takes.
func registryOf(s tenantStore) (tenants.Registry, func(), error) {
	if s, ok := s.(fileStore); ok {
		return s.Store, func() {}, nil
	}
	r, err := s.(*postgres.Store).Registry()
	if err != nil {
		return nil, nil, err
	}
	return r, r.Close, nil
}

// openStore opens the store that the configuration names. What it calls of hooks it calls once it is watched.
func openStore(conf *configs.Config, d *tenants.Directory, hooks storeHooks, log *slog.Logger) (tenantStore, error) {
	if conf.Tenants.InPostgres() {
		o, err := postgresOptions(conf)
		if err != nil {
			return nil, err
		}
		o.Directory, o.Log, o.Settled, o.ApplyBan, o.Here, o.Boot = d, log, hooks.settled, hooks.applyBan, hooks.here, hooks.boot
		if o.Node, err = nodeName(conf); err != nil {
			return nil, err
		}
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

// roleStore keeps the roles of tenants' servers where the tenants are, if those are in a database; done ends that.
func roleStore(s tenantStore) (keeps proxy.RoleStore, done func(), err error) {
	store, ok := s.(*postgres.Store)
	if !ok {
		return nil, func() {}, nil
	}
	r, err := store.Registry()
	if err != nil {
		return nil, nil, err
	}
	return r, r.Close, nil
}

// postgresOptions reads the files that the store needs.
func postgresOptions(conf *configs.Config) (o postgres.Options, err error) {
	p := conf.Tenants.Postgres
	var keysErr error
	o.Conn, err = postgres.ReadDSN(p.DSNFile)
	o.Keys, keysErr = readKeys(p.KeyFile)
	if err := errors.Join(err, keysErr); err != nil {
		return o, err
	}
	o.CacheFile, o.KeyFile = p.CacheFile, p.KeyFile
	o.Judge = postgres.Judge{Verifier: checkVerifier, Here: func(t *tenants.Tenant) error { return fits(conf, t) }}
	return o, nil
}

func readKeys(path string) (*postgres.Keys, error) {
	keys, err := postgres.ReadKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: copy it from another node, or for a new store run postern store init, which makes it", err)
	}
	return keys, err
}

// nodeName tells this process from all others on the same store, and is the same after a restart: a machine of Fly's has an id, and
// elsewhere no two processes of one host listen on the same address.
func nodeName(conf *configs.Config) (string, error) {
	if name := cmp.Or(conf.Cluster.Name, conf.Tenants.Postgres.Node, os.Getenv("FLY_MACHINE_ID")); name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("naming this node: %w (set tenants.postgres.node)", err)
	}
	name := host + "-" + conf.Listeners[0].Address
	if strings.HasSuffix(name, ":0") { // any port: as in tests
		name += "-" + rand.Text()[:6]
	}
	return name, nil
}

// fits judges a tenant by what this process is.
func fits(conf *configs.Config, t *tenants.Tenant) error {
	providers := make(map[string]string)
	if t.Machine != nil {
		providers[t.Machine.Needs()] = t.ID
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

// checkTenants says in words how many tenants there are, or what is wrong with them; beside a configuration that is not sound, only with
// themselves. A database is not asked: the configuration can be good while it is away.
func checkTenants(conf *configs.Config, sound bool) (string, error) {
	var dsn, keys error
	if p := conf.Tenants.Postgres; p.DSNFile != "" {
		_, dsn = postgres.ReadDSN(p.DSNFile)
	}
	if p := conf.Tenants.Postgres; p.KeyFile != "" {
		_, keys = readKeys(p.KeyFile)
	}
	if err := errors.Join(dsn, keys); conf.Tenants.File == "" || err != nil {
		return "tenants in a database", err
	}
	s, err := loadTenants(conf, conf.Tenants.File, files.NewLane())
	if errors.As(err, new(*file.Problem)) { // they have numbers of lines, and those of the configuration may stand above
		err = fmt.Errorf("%s:\n%w", conf.Tenants.File, err)
	}
	if err != nil || !sound {
		return "", err
	}
	return fmt.Sprintf("%d tenants", len(s.Tenants)), errors.Join(conf.CheckExposure(s.AnyAllowList()), conf.CheckProviders(s.Providers()))
}
