// A registry in memory, as strict as a real one.

package admin

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// memory is a tenants.Registry. Its hooks, if set, are asked first.
type memory struct {
	away    error // of every call
	applied func(version int64) tenants.Applied

	mu         sync.Mutex
	all        map[string]tenants.Record
	unreadable map[string]bool
	tokens     map[[32]byte]tenants.Token
	version    int64
	entries    []tenants.Entry
	finds      int
	found      func() // what happens once a token was found; nil: nothing
}

func newMemory(all ...*tenants.Tenant) *memory {
	m := &memory{all: make(map[string]tenants.Record), tokens: make(map[[32]byte]tenants.Token), unreadable: make(map[string]bool)}
	for _, t := range all {
		m.version++
		m.all[t.ID] = tenants.Record{Tenant: t, Revision: m.version, Version: m.version, Changed: time.Unix(1_800_000_000, 0)}
	}
	return m
}

func (m *memory) begin(ctx context.Context) (unlock func(), err error) {
	m.mu.Lock()
	if err = m.away; err == nil {
		err = ctx.Err()
	}
	return m.mu.Unlock, err
}

func (m *memory) Tenant(ctx context.Context, id string) (tenants.Record, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	rec, ok := m.all[id]
	switch {
	case err == nil && !ok:
		err = tenants.ErrNoSuchTenant
	case err == nil && m.unreadable[id]:
		return tenants.Record{}, tenants.ErrUnreadable
	}
	return rec, err
}

func (m *memory) Tenants(ctx context.Context, after string, limit int) (list []tenants.Record, err error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	for _, id := range slices.Sorted(maps.Keys(m.all)) {
		if id > after && len(list) < limit {
			list = append(list, m.all[id])
		}
	}
	return list, err
}

func (m *memory) Change(ctx context.Context, e tenants.Edit) (rec tenants.Record, err error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return rec, err
	}
	old, ok := m.all[e.Tenant]
	entry := tenants.Entry{By: e.By, Action: e.Action, Tenant: e.Tenant}
	defer func() {
		if !e.Unnoted || err == nil {
			_ = m.outcome(entry, err)
		}
	}()
	switch {
	case e.Match == tenants.MatchNone && ok:
		return rec, tenants.ErrTaken
	case e.Match > 0 && e.Match != old.Revision:
		return rec, tenants.ErrChanged
	case m.unreadable[e.Tenant] && !e.Unread:
		return rec, tenants.ErrUnreadable
	}
	before := fmt.Sprintf("%v", document.Differences(nil, old.Tenant))
	now, err := e.Edit(old.Tenant)
	if after := fmt.Sprintf("%v", document.Differences(nil, old.Tenant)); before != after {
		panic("BUG: the edit has changed what was there")
	}
	if err != nil {
		return rec, fmt.Errorf("memory: %w", err)
	}
	if now == nil && old.Tenant == nil {
		return rec, tenants.ErrNoSuchTenant
	}
	if now != nil {
		if now.ID != e.Tenant {
			panic("BUG: another tenant")
		}
		if problems := tenants.Validate(now, nil); len(problems) > 0 {
			return rec, fmt.Errorf("memory: %w", tenants.Problems(problems))
		}
	}
	entry.Changes = document.Differences(old.Tenant, now)
	if len(entry.Changes) == 0 && ok {
		return old, nil
	}
	m.version++
	entry.Version = m.version
	delete(m.unreadable, e.Tenant)
	rec = tenants.Record{Tenant: now, Revision: m.version, Version: m.version, Changed: time.Now()}
	if now == nil {
		delete(m.all, e.Tenant)
		rec.Revision = 0
	} else {
		m.all[e.Tenant] = rec
	}
	return rec, nil
}

func (m *memory) write(e tenants.Entry) {
	e.Number, e.At = int64(len(m.entries)+1), time.Now()
	e.Chain = fmt.Sprintf("%064x", e.Number)
	m.entries = append(m.entries, e)
}

func (m *memory) Applied(ctx context.Context, version int64) (tenants.Applied, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if m.applied != nil {
		return m.applied(version), err
	}
	return tenants.Applied{Everywhere: true, At: time.Now()}, err
}

func (m *memory) Tokens(ctx context.Context, tenant, after string, limit int) (list []tenants.Token, err error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	for _, t := range m.tokens {
		if (tenant == "" || t.Tenant == tenant) && t.ID > after {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b tenants.Token) int { return strings.Compare(a.ID, b.ID) })
	return list[:min(limit, len(list))], err
}

func (m *memory) Token(ctx context.Context, id string) (tenants.Token, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	for _, t := range m.tokens {
		if t.ID == id {
			return t, err
		}
	}
	return tenants.Token{}, cmp.Or(err, tenants.ErrNoSuchToken)
}

func (m *memory) AddToken(ctx context.Context, by tenants.Actor, t tenants.Token, digest [32]byte) (tenants.Token, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return t, err
	}
	if _, taken := m.tokens[digest]; taken {
		err = tenants.ErrTaken
	}
	if _, ok := m.all[t.Tenant]; t.Tenant != "" && !ok {
		err = tenants.ErrNoSuchTenant
	}
	if err == nil {
		t.ID, t.Created = hex.EncodeToString(digest[:8]), time.Now()
		m.tokens[digest] = t
	}
	return t, m.outcome(tenants.Entry{By: by, Action: "token.add", Tenant: t.Tenant}, err)
}

// outcome writes down what became of a call.
func (m *memory) outcome(e tenants.Entry, err error) error {
	e.Outcome = "done"
	if err != nil {
		e.Outcome = err.Error()
	}
	m.write(e)
	return err
}

func (m *memory) RevokeToken(ctx context.Context, by tenants.Actor, tenant, id string) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	err = tenants.ErrNoSuchToken
	for digest, t := range m.tokens {
		if t.ID == id && (tenant == "" || tenant == t.Tenant) {
			delete(m.tokens, digest)
			err = nil
		}
	}
	return m.outcome(tenants.Entry{By: by, Action: "token.revoke", Tenant: tenant}, err)
}

func (m *memory) FindToken(ctx context.Context, digest [32]byte) (tenants.Token, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	m.finds++
	if err != nil {
		return tenants.Token{}, err
	}
	t, ok := m.tokens[digest]
	if !ok || !t.Expires.IsZero() && !time.Now().Before(t.Expires) {
		return tenants.Token{}, tenants.ErrNoSuchToken
	}
	t.Used = time.Now()
	m.tokens[digest] = t
	if m.found != nil {
		m.found()
	}
	return t, nil
}

func (m *memory) Audit(ctx context.Context, tenant string, before int64, limit int) (list []tenants.Entry, err error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	for _, e := range slices.Backward(m.entries) {
		if (tenant == "" || e.Tenant == tenant) && (before == 0 || e.Number < before) && len(list) < limit {
			list = append(list, e)
		}
	}
	return list, err
}

func (m *memory) Note(ctx context.Context, e tenants.Entry) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err == nil {
		m.write(e)
	}
	return err
}

func (m *memory) Nodes(ctx context.Context) ([]tenants.Node, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	return []tenants.Node{{Name: "a"}}, err
}

func (m *memory) ForgetNode(ctx context.Context, _ tenants.Actor, name string) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err == nil && name != "a" {
		err = m.outcome(tenants.Entry{Action: "node.forget"}, map[string]error{"b": tenants.ErrNoSuchNode, "c": tenants.ErrServes}[name])
	}
	return err
}
