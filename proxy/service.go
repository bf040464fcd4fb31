// The service account: Postern logs in to a tenant's Postgres for itself, to see whose connections there are.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/scram"
)

const (
	// maxBackends bounds what a server may say.
	maxBackends = 4 << 20
	// backendsQuery lists the connections of clients, and the role of each; NULL: it has not logged in yet. Whose kind is not shown to
	// this role may be one of them. Young ones are nobody's who is silent for two minutes.
	backendsQuery = "SELECT pid, usename, backend_type FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND backend_start < now() - interval '30 seconds' OR backend_type IS NULL"
)

// Why a service account is not used.
var (
	ErrAsleep    = errors.New("the tenant's machine is not awake") // as far as is known here
	ErrElsewhere = errors.New("this node may not serve the tenant")
)

// ServicePIDs lists the processes in a tenant's Postgres that serve clients who are logged in as one of the tenant's users, and have been for a
// while. ok is false if the
// tenant has no service account. A machine that does not run is not asked, and neither is
// a tenant that is not served here. Safe for concurrent use, as is ServerPIDs.
func (g *Gate) ServicePIDs(ctx context.Context, id string) (pids []uint32, ok bool, err error) {
	said, there := g.opts.Directory.Tenant(id)
	if !there {
		return nil, false, ErrNoTenant
	}
	s := said.Service
	if s == nil {
		return nil, false, nil
	}
	if !said.Residency.ServedIn(g.opts.Region) {
		return nil, true, ErrElsewhere
	}
	var at machines.Endpoint
	if said.Machine != nil {
		var view machines.View
		if err := g.withMachine(id, func(t *tenant) error {
			view = t.machine.view
			return nil
		}); err != nil {
			return nil, true, err
		}
		if view.State != machines.StateReady {
			return nil, true, ErrAsleep
		}
		at = view.Endpoint
	}
	roles := make(map[string]bool)
	for _, u := range g.withRoles(said).Users {
		roles[u.ServerUser] = true
	}
	target := g.tenant(id).targetOf(said, at)
	target.User, target.Database, target.Credentials = s.User, said.Database, scram.Credentials{Password: s.Password.Reveal()}
	target.Settings = []backend.Parameter{{Name: "application_name", Value: "postern service"}, {Name: "client_encoding", Value: "UTF8"},
		{Name: "search_path", Value: "pg_catalog"}, {Name: "default_transaction_read_only", Value: "on"}, {Name: "statement_timeout", Value: "10s"}}
	conn, err := backend.Dial(ctx, target)
	if err != nil {
		return nil, true, err
	}
	defer conn.Close()
	err = conn.Query(ctx, backendsQuery, maxBackends, func(row [][]byte) error {
		if len(row) != 3 {
			return fmt.Errorf("%d columns, want 3", len(row))
		}
		if row[2] == nil {
			return errors.New("the service account does not see all connections: is it a member of pg_monitor?")
		}
		pid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if roles[string(row[1])] {
			pids = append(pids, uint32(pid))
		}
		return err
	})
	return pids, true, err
}

// ServerPIDs lists the processes that serve this gate's connections to a tenant's Postgres, also those that are closed and may still be there.
func (g *Gate) ServerPIDs(id string) (pids []uint32, err error) {
	g.mu.Lock()
	t := g.tenants[id]
	g.mu.Unlock()
	if t == nil {
		return nil, nil
	}
	if !t.call(func() {
		for _, all := range []map[*server]struct{}{t.servers, t.parting} {
			for s := range all {
				if s.pid != 0 {
					pids = append(pids, s.pid)
				}
			}
		}
	}) {
		return nil, ErrGateClosed
	}
	return pids, nil
}
