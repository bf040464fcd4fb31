// What operators ask one node and mean all: sessions, their end, who would be locked out, who was refused.

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// What is asked.
const (
	askSessions  = "sessions"
	askEnd       = "end"
	askLockedOut = "locked_out"
	askRefusals  = "refusals"
)

// sessionsQuestion asks for sessions of a tenant: see proxy.Gate.Sessions.
type sessionsQuestion struct {
	Tenant, After string
	Limit         int
}

type sessionsAnswer struct {
	Sessions []proxy.Session
	Unknown  bool // After is nothing that this process has told
}

func (p *peers) sessions(_ context.Context, q sessionsQuestion) (a sessionsAnswer, err error) {
	a.Sessions, err = p.gate().Sessions(q.Tenant, q.After, min(max(q.Limit, 0), maxSessions))
	if errors.Is(err, proxy.ErrNoSession) {
		return sessionsAnswer{Unknown: true}, nil
	}
	return a, unlessGone(err)
}

// maxSessions are told at once.
const maxSessions = 1001

// nodeSession is a session, and where it is.
type nodeSession struct {
	proxy.Session
	node string
}

// allSessions lists a tenant's sessions on all nodes, by the nodes' names, that stand behind one on a node, at most limit of them. It
// fails as proxy.Gate.Sessions does.
func (p *peers) allSessions(ctx context.Context, tenant, node, after string, limit int) (all []nodeSession, missing []string, err error) {
	question := func(of string) any {
		switch {
		case of < node:
			return nil
		case of == node:
			return sessionsQuestion{tenant, after, limit}
		}
		return sessionsQuestion{tenant, "", limit}
	}
	answers, missing := askAll[sessionsAnswer](ctx, p, askSessions, question)
	own := p.nodes.Name()
	if q, ok := question(own).(sessionsQuestion); ok {
		if answers[own], err = p.sessions(ctx, q); err != nil {
			return nil, nil, err
		}
	}
	for name, a := range answers {
		if a.Unknown {
			return nil, nil, proxy.ErrNoSession
		}
		for _, s := range a.Sessions {
			all = append(all, nodeSession{s, name})
		}
	}
	slices.SortStableFunc(all, func(a, b nodeSession) int { return cmp.Compare(a.node, b.node) })
	return all[:min(len(all), limit)], missing, nil
}

// endQuestion is for one session of a tenant or, with "", all.
type endQuestion struct{ Tenant, Session string }

func (p *peers) end(_ context.Context, q endQuestion) (n int, err error) {
	if q.Session == "" {
		n, err = p.gate().EndSessions(q.Tenant)
		return n, unlessGone(err)
	}
	switch err := p.gate().EndSession(q.Tenant, q.Session); {
	case err == nil:
		return 1, nil
	case errors.Is(err, proxy.ErrNoSession):
		return 0, nil
	default:
		return 0, unlessGone(err)
	}
}

// endElsewhere ends a session, or all, on the other nodes.
func (p *peers) endElsewhere(ctx context.Context, tenant, session string) (n int, missing []string) {
	answers, missing := askAll[int](ctx, p, askEnd, same(endQuestion{tenant, session}))
	for _, k := range answers {
		n += k
	}
	return n, missing
}

// placeOf takes the place of a session in a list of all nodes' apart.
func placeOf(after string) (node, id string, ok bool) {
	i := strings.LastIndexByte(after, ':')
	if i < 0 {
		return "", "", after == ""
	}
	return after[:i], after[i+1:], true
}

// maxDocument is for a tenant with as many rules and users as one can have.
const maxDocument = 16 << 20

// lockQuestion is what a tenant would be: its document, and whom it has as users. There is no secret in it.
type lockQuestion struct {
	Tenant   string
	Document json.RawMessage
	Users    []string
}

// tally is how many sessions would end, and how many there are.
type tally struct{ Locked, Open int }

// lockedOut answers a node that wants to know whom a change would lock out.
func (p *peers) lockedOut(ctx context.Context, q lockQuestion) (n tally, err error) {
	t, err := new(document.Reader).Tenant(q.Tenant, q.Document)
	if err != nil {
		return n, errors.New("the tenant cannot be read")
	}
	t.Users = make(map[string]*tenants.User, len(q.Users))
	for _, name := range q.Users {
		t.Users[name] = &tenants.User{Name: name}
	}
	n.Locked, n.Open, err = p.gate().LockedOut(ctx, t)
	return n, err
}

// lockedOutElsewhere asks the other nodes.
func (p *peers) lockedOutElsewhere(ctx context.Context, t *tenants.Tenant) (n tally, missing []string) {
	answers, missing := askAll[tally](ctx, p, askLockedOut, same(lockQuestion{t.ID, document.Encode(document.Of(t)), slices.Collect(maps.Keys(t.Users))}))
	for _, a := range answers {
		n.Locked += a.Locked
		n.Open += a.Open
	}
	return n, missing
}

// refusals answers a node that wants to know whom a tenant was refused for.
func (p *peers) refusals(_ context.Context, tenant string) ([]proxy.Refusal, error) {
	all, err := p.gate().Refusals(tenant)
	return all, unlessGone(err)
}

// refusalsElsewhere asks the other nodes.
func (p *peers) refusalsElsewhere(ctx context.Context, tenant string) (lists [][]proxy.Refusal, missing []string) {
	answers, missing := askAll[[]proxy.Refusal](ctx, p, askRefusals, same(tenant))
	return slices.Collect(maps.Values(answers)), missing
}
