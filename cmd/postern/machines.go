// Where tenants' machines come from: one client of Fly's API, and the clusters on this computer.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/machines/fly"
	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/tenants"
)

// stopLocal bounds the stop of the clusters on this computer at the end, and of those that were left there at the start.
const stopLocal = 30 * time.Second

// drivers makes the drivers of tenants' machines. Safe for concurrent use.
type drivers struct {
	conf *configs.Config
	log  *slog.Logger
	fly  *fly.Client // nil: not configured

	shared   bool          // other processes may run the same machines
	folder   *local.Folder // of the clusters; nil: not ours
	sweeping sync.WaitGroup

	mu    sync.Mutex
	local map[string]*local.Machine           // by name; a cluster has one for as long as the process lives
	flies map[fly.MachineOptions]*fly.Machine // likewise: it knows of a suspend that is under way

	tokens sync.Map // of machines of Fly that have their own, a tenants.Secret by the machine's key

	failed map[string]bool // clusters without what their tenants have now, by the machine's key
}

func newDrivers(conf *configs.Config, log *slog.Logger, reg prometheus.Registerer) (*drivers, error) {
	d := &drivers{conf: conf, log: log, shared: conf.Tenants.InPostgres(), local: make(map[string]*local.Machine), flies: make(map[fly.MachineOptions]*fly.Machine), failed: make(map[string]bool)}
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_machine_calls_total",
		Help: "Calls of the machine provider's API."}, []string{"provider", "op", "result"})
	reg.MustRegister(calls)
	if f := conf.Machines.Fly; f != (configs.FlyMachines{}) {
		var err error
		d.fly, err = fly.NewClient(fly.Options{BaseURL: f.API, TokenFile: f.TokenFile, Log: log,
			OnCall: func(op, result string) { calls.WithLabelValues("fly", op, result).Inc() }})
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// of returns the driver of a tenant's machine.
func (d *drivers) of(t *tenants.Tenant) (machines.Driver, error) {
	m := t.Machine
	switch {
	case m.Provider == tenants.ProviderFly && d.fly != nil:
		o := fly.MachineOptions{App: m.App, ID: m.ID, Port: t.Upstream.Port}
		if m.Sleep == tenants.SleepStop {
			o.Sleep = fly.Stop
		}
		return d.flyMachine(m.Key(), o)
	case m.Provider == tenants.ProviderLocal && d.conf.Machines.Local.Dir != "":
		return d.cluster(t)
	}
	return nil, fmt.Errorf("machines.%s is not configured", m.Provider)
}

func (d *drivers) flyMachine(key string, o fly.MachineOptions) (machines.Driver, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m, ok := d.flies[o]; ok {
		return m, nil
	}
	m, err := fly.NewMachine(d.fly.WithToken(func() string { return d.token(key).Reveal() }), o)
	if err != nil {
		return nil, err
	}
	d.flies[o] = m
	return m, nil
}

// token is a machine's own; zero: it has none.
func (d *drivers) token(key string) tenants.Secret {
	own, _ := d.tokens.Load(key)
	secret, _ := own.(tenants.Secret)
	return secret
}

// learn takes over the machines' own tokens. A machine that is nobody's any more keeps the one it had: it is put to sleep with it.
func (d *drivers) learn(all []tenants.Change) {
	for _, c := range all {
		switch {
		case c.New == nil || c.New.Machine == nil:
		case c.New.Machine.Token.IsZero():
			d.tokens.Delete(c.New.Machine.Key())
		default:
			d.tokens.Store(c.New.Machine.Key(), c.New.Machine.Token)
		}
	}
}

// cluster returns the machine of a name, which outlives reloads: its process is ours.
func (d *drivers) cluster(t *tenants.Tenant) (*local.Machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := t.Machine.Name
	m, ok := d.local[name]
	if !ok {
		dir, err := local.MachineDir(d.conf.Machines.Local.Dir, name)
		if err != nil {
			return nil, err
		}
		m = local.NewMachine(local.MachineOptions{
			Options:   local.Options{Dir: dir, Settings: map[string]string{"cluster_name": name}, Log: d.log},
			Sleep:     local.Sleep(t.Machine.Sleep),
			Shared:    d.shared,
			Roles:     roles(t),
			Databases: databases(t),
		})
		d.local[name] = m
	}
	return m, nil
}

// roles are the tenant's logins on its server.
func roles(t *tenants.Tenant) []local.Role {
	var all []local.Role
	for _, u := range t.Users {
		secret := u.ServerPassword.Reveal()
		if secret == "" {
			secret = u.Password.Reveal()
		}
		if secret == "" {
			secret = u.Verifier.Reveal()
		}
		all = append(all, local.Role{Name: u.ServerUser, Secret: secret})
	}
	slices.SortFunc(all, func(a, b local.Role) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func databases(t *tenants.Tenant) []string {
	all := append([]string{t.Database}, t.Databases...)
	slices.Sort(all)
	return slices.Compact(all)
}

// changed gives the clusters that are there the users and databases of tenants that have changed.
func (d *drivers) changed(all []tenants.Change) {
	for _, c := range all {
		if c.New == nil || c.New.Machine == nil || c.New.Machine.Provider != tenants.ProviderLocal {
			continue
		}
		if c.Old == nil || c.Old.Machine == nil || c.Old.Machine.Key() != c.New.Machine.Key() ||
			!slices.Equal(roles(c.Old), roles(c.New)) || !slices.Equal(databases(c.Old), databases(c.New)) {
			d.reconfigure(c.New)
		}
	}
}

// again tries what has failed before.
func (d *drivers) again(all *tenants.Directory) {
	d.mu.Lock()
	failed := slices.Collect(maps.Keys(d.failed))
	clear(d.failed)
	d.mu.Unlock()
	for _, key := range failed {
		if t, ok := all.Machine(key); ok {
			d.reconfigure(t)
		}
	}
}

// reconfigure gives a tenant's cluster, if it is there, the tenant's users and databases. Where that fails, its next start does it.
func (d *drivers) reconfigure(t *tenants.Tenant) {
	key := t.Machine.Key()
	d.mu.Lock()
	m := d.local[t.Machine.Name]
	delete(d.failed, key)
	d.mu.Unlock()
	if m == nil {
		return
	}
	if err := m.Reconfigure(context.Background(), roles(t), databases(t)); err != nil {
		d.log.Error("users and databases of a machine on this computer are not as configured", "tenant", t.ID, "error", err)
		d.mu.Lock()
		d.failed[key] = true
		d.mu.Unlock()
	}
}

// sweep stops what an earlier process has left on this computer, and does not wait for it. It comes before the first wake.
func (d *drivers) sweep() {
	dir := d.conf.Machines.Local.Dir
	if dir == "" {
		return
	}
	var err error
	if d.folder, err = local.Claim(dir, d.log); err == nil {
		d.stopLeftovers()
		if d.shared {
			err = d.folder.Share()
		}
	} else if d.shared && errors.Is(err, local.ErrClaimed) {
		d.folder, err = local.Join(dir, d.log) // what is there may be another's
	}
	if err != nil {
		d.log.Warn("servers that an earlier Postern has left on this computer are not looked for", "error", err)
	}
}

// stopLeftovers begins to stop what runs in the folder and is no machine's.
func (d *drivers) stopLeftovers() {
	found, err := d.folder.Leftovers()
	if err != nil {
		d.log.Error("servers that were left on this computer cannot be looked for", "error", err)
	}
	for _, l := range found {
		d.sweeping.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), stopLocal)
			defer cancel()
			if err := l.Stop(ctx); err != nil {
				d.log.Error("a server that was left on this computer cannot be stopped", "error", err)
			}
		})
	}
}

// close stops the clusters on this computer, and whatever else is left there.
func (d *drivers) close() error {
	err := d.closeLocal()
	d.sweeping.Wait()
	if d.folder == nil {
		return err
	}
	if !d.shared || d.folder.Alone() {
		d.stopLeftovers()
		d.sweeping.Wait()
	}
	d.folder.Release()
	return err
}

func (d *drivers) closeLocal() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLocal)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, m := range d.local {
		all.Go(func() {
			err := m.Close(ctx)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
