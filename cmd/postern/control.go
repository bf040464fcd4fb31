// What the admin API does to tenants, carried out by the gate.

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/admin"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
)

// control is the gate as the admin API wants it, and those of other nodes.
type control struct {
	gate  *proxy.Gate
	peers *peers // nil: there are none
}

func (c control) Machine(_ context.Context, tenant string) (admin.Machine, error) {
	info, err := c.gate.Machine(tenant)
	if err != nil {
		return admin.Machine{}, refusal(err)
	}
	v := info.View
	provider, _, _ := strings.Cut(info.Key, "/")
	m := admin.Machine{
		Tenant: tenant, Provider: provider, Name: info.Key, State: v.State.String(), Since: v.Since,
		Generation:   admin.Generation{Instance: v.Generation.Instance, Started: v.Generation.Started, Epoch: v.Epoch},
		AwakeBecause: info.Needs, SuspendAfter: info.SuspendAfter, SuspendsAt: v.SuspendsAt,
		WaitingClients: info.Waiting, Paused: info.Paused,
		LastWake: transition(v.LastWake), LastSuspend: transition(v.LastSleep),
	}
	// In a word: the whole may name addresses, and is in the log.
	switch {
	case v.Err == nil:
	case errors.Is(v.Err, machines.ErrSlow):
		m.Error = "slow"
	case errors.Is(v.Err, machines.ErrBudget):
		m.Error = "budget"
	default:
		m.Error = machines.KindOf(v.Err).String()
	}
	return m, nil
}

func transition(o machines.Outcome) admin.Transition {
	if o.At.IsZero() {
		return admin.Transition{}
	}
	return admin.Transition{At: o.At.Add(o.Took), Reason: o.Reason, Result: o.Result, Took: o.Took}
}

func (c control) WakeMachine(_ context.Context, tenant string) error {
	return refusal(c.gate.WakeMachine(tenant))
}

func (c control) SuspendMachine(_ context.Context, tenant string) error {
	return refusal(c.gate.SuspendMachine(tenant))
}

func (c control) Metrics(tenant string) (prometheus.Gatherer, error) {
	from, err := c.gate.TenantMetrics(tenant)
	return from, refusal(err)
}

func (c control) CheckAddress(tenant string, who netrestrict.Who) (admin.Check, error) {
	is, err := c.gate.CheckAddress(tenant, who)
	return admin.Check(is), refusal(err)
}

func (c control) Refusals(ctx context.Context, tenant string) (out []admin.Refusal, missing []string, err error) {
	all, err := c.gate.Refusals(tenant)
	if c.peers != nil && err == nil {
		var others [][]proxy.Refusal
		others, missing = c.peers.refusalsElsewhere(ctx, tenant)
		all = proxy.MergeRefusals(append(others, all)...)
	}
	for _, r := range all {
		out = append(out, admin.Refusal{Address: r.Address, Reason: r.Reason, Observed: r.Observed, User: r.User, Count: r.Count, First: r.First, Last: r.Last})
	}
	return out, missing, refusal(err)
}

func (c control) Pause(_ context.Context, tenant string) error { return refusal(c.gate.Pause(tenant)) }
func (c control) Resume(_ context.Context, tenant string) error {
	_, err := c.gate.Resume(tenant) // who is silent is told of where the row is in force, or not
	return refusal(err)
}

func (c control) Sessions(ctx context.Context, tenant, after string, limit int) (out []admin.Session, missing []string, err error) {
	list, missing, err := c.sessions(ctx, tenant, after, limit)
	for _, s := range list {
		out = append(out, admin.Session{ID: s.ID, Node: s.node, User: s.User, Database: s.Database, Listener: s.Listener, Client: s.Client, Mode: s.Mode, State: s.State,
			Since: s.Since, Active: s.Active, TLS: s.TLS, Application: s.Application, Server: s.Server})
	}
	return out, missing, refusal(err)
}

func (c control) sessions(ctx context.Context, tenant, after string, limit int) (all []nodeSession, missing []string, err error) {
	if !c.gate.Knows(tenant) {
		return nil, nil, proxy.ErrNoTenant
	}
	if c.peers == nil {
		list, err := c.gate.Sessions(tenant, after, limit)
		for _, s := range list {
			all = append(all, nodeSession{s, ""})
		}
		return all, nil, err
	}
	node, id, ok := placeOf(after)
	if !ok {
		return nil, nil, proxy.ErrNoSession
	}
	return c.peers.allSessions(ctx, tenant, node, id, limit)
}

func (c control) EndSession(ctx context.Context, tenant, session string) error {
	err := c.gate.EndSession(tenant, session)
	if c.peers == nil || !errors.Is(err, proxy.ErrNoSession) {
		return refusal(err)
	}
	switch n, missing := c.peers.endElsewhere(ctx, tenant, session); {
	case n > 0:
		return nil
	case len(missing) > 0:
		return &admin.SilentError{Nodes: missing}
	}
	return refusal(err)
}

func (c control) EndSessions(ctx context.Context, tenant string) (n int, missing []string, err error) {
	n, err = c.gate.EndSessions(tenant)
	if c.peers == nil || err != nil {
		return n, nil, refusal(err)
	}
	others, missing := c.peers.endElsewhere(ctx, tenant, "")
	return n + others, missing, nil
}

func (c control) LockedOut(ctx context.Context, t *tenants.Tenant) (locked, open int, missing []string, err error) {
	locked, open, err = c.gate.LockedOut(ctx, t)
	if c.peers == nil || err != nil || open > locked { // then somebody stays, whatever others say
		return locked, open, nil, err
	}
	n, missing := c.peers.lockedOutElsewhere(ctx, t)
	return locked + n.Locked, open + n.Open, missing, nil
}

func (c control) Bans(_ context.Context, tenant string) ([]admin.Ban, error) {
	if !c.gate.Knows(tenant) {
		return nil, admin.ErrNoTenant
	}
	var out []admin.Ban
	for _, b := range c.gate.Bans(tenant) {
		out = append(out, admin.Ban{Address: b.Address, Left: b.Left, Failures: b.Failures, Manual: b.Manual})
	}
	return out, nil
}

func (c control) Ban(_ context.Context, tenant string, network netip.Prefix, d time.Duration) error {
	return refusal(c.gate.Ban(tenant, network, d))
}

func (c control) LiftBan(_ context.Context, tenant string, addr netip.Addr) (int, error) {
	if !c.gate.Knows(tenant) {
		return 0, admin.ErrNoTenant
	}
	return c.gate.LiftBan(tenant, addr), nil
}

// ways are the listeners for clients. One on which the console answers is an operator's, unless there is no other.
func (p *process) ways() []admin.WayIn {
	var clients, all []admin.WayIn
	for i, at := range p.gate.Addrs() {
		l := &p.conf.Listeners[i]
		w := admin.WayIn{Mode: l.PoolMode, Port: at.(*net.TCPAddr).Port}
		if all = append(all, w); !l.Console {
			clients = append(clients, w)
		}
	}
	if len(clients) == 0 {
		return all
	}
	return clients
}

// refusal is one of the gate's errors in the API's words.
func refusal(err error) error {
	var busy *proxy.BusyError
	switch {
	case errors.As(err, &busy):
		return &admin.BusyError{Reasons: busy.Needs}
	case errors.Is(err, proxy.ErrNoTenant):
		return admin.ErrNoTenant
	case errors.Is(err, proxy.ErrNoSession):
		return admin.ErrNoSession
	case errors.Is(err, proxy.ErrNoMachine):
		return admin.ErrNoMachine
	case errors.Is(err, proxy.ErrNeverBanned):
		return admin.ErrNeverBanned
	case errors.Is(err, proxy.ErrTooManyBans):
		return admin.ErrTooManyBans
	case errors.Is(err, proxy.ErrPaused):
		return admin.ErrPaused
	}
	return err
}
