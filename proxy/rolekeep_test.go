package proxy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/proxy/roles"
)

// memoryStore is a store of lists.
type memoryStore struct {
	mu   sync.Mutex
	all  map[string][]byte
	at   map[string]time.Time
	away bool

	writes, reads int
}

func (m *memoryStore) ReadRoles(_ context.Context, tenant string) ([]byte, time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.away {
		return nil, 0, errors.New("the store is away")
	}
	return m.all[tenant], time.Since(m.at[tenant]), nil
}

func (m *memoryStore) WriteRoles(_ context.Context, tenant string, list []byte, age time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return errors.New("the store is away")
	}
	if m.all == nil {
		m.all, m.at = make(map[string][]byte), make(map[string]time.Time)
	}
	m.all[tenant], m.at[tenant] = list, time.Now().Add(-age)
	m.writes++
	return nil
}

func (m *memoryStore) has(tenant string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all[tenant])
}

// TestRolesAreKept: a restart knows what was listed, although the server is down, and another node what this one has learned.
func TestRolesAreKept(t *testing.T) {
	s, store := newRoleServer(t), new(memoryStore)
	s.lists(roleRow(t, "late", "pw"))
	first := newRoleGate(t, store, s.tenant("acme"))
	first.wants(somebody, "late", "pw", "")
	soon(t, "the list is kept", func() bool { return store.has("acme") > 0 })
	down := s.tenant("acme")
	s.ln.Close()

	second := newRoleGate(t, store, down)
	second.wants(somebody, "late", "pw", "")
	second.wants(somebody, "late", "wrong", "28P01")
	second.wants(somebody, "nobody", "pw", "28P01")

	store.mu.Lock()
	store.away = true
	store.mu.Unlock()
	third := newRoleGate(t, store, down)
	third.wants(somebody, "late", "pw", "28P01")
	third.wants(somebody, "app", "listed", "")
	if !strings.Contains(third.log.String(), "was not read from the store") {
		t.Error("the log does not say that the store is away")
	}
	store.mu.Lock()
	store.away, store.all["acme"] = false, []byte("c4nary: no list")
	store.mu.Unlock()
	newRoleGate(t, store, down).wants(somebody, "late", "pw", "28P01")
}

// TestRolesAreWrittenRarely: a server that gives another list each time does not have the store written each time.
func TestRolesAreWrittenRarely(t *testing.T) {
	store := new(memoryStore)
	g := newRoleGate(t, store, newRoleServer(t).tenant("acme"))
	b := &roleBook{list: new(roles.List)}
	keeps := func(what string, wants int, left bool) {
		t.Helper()
		b.kept.dirty, b.listed = true, b.listed.Add(time.Second)
		g.keepRoles(b, "t")
		if store.writes != wants || b.kept.dirty != left {
			t.Errorf("%s: written %d times, left to do: %v", what, store.writes, b.kept.dirty)
		}
	}
	keeps("the first list", 1, false)
	keeps("the next one", 1, true)
	b.kept.written = b.kept.written.Add(-roleWritePause)
	keeps("a minute later", 2, false)
}

// TestTheNewerListCounts, wherever it was listed, by how old it is: no node's clock is compared with another's.
func TestTheNewerListCounts(t *testing.T) {
	s, store := newRoleServer(t), new(memoryStore)
	s.lists(roleRow(t, "late", "here"))
	g := newRoleGate(t, store, s.tenant("acme"))
	g.wants(somebody, "late", "here", "")
	soon(t, "the list is kept", func() bool { return store.has("acme") > 0 })
	reads := func(password string, age time.Duration) {
		t.Helper()
		b := roles.NewBuilder("asker")
		row := roleRow(t, "late", password)
		if err := b.Add([][]byte{[]byte(row[0]), []byte(row[1]), nil, []byte("t"), []byte("-1")}); err != nil {
			t.Fatal(err)
		}
		if err := store.WriteRoles(t.Context(), "acme", b.List().Encode(), age); err != nil {
			t.Fatal(err)
		}
		book := g.roles.of("acme")
		book.mu.Lock()
		book.kept = rolesKept{} // as if it had not been read yet
		book.mu.Unlock()
	}
	reads("elsewhere", time.Hour)
	g.wants(somebody, "late", "here", "")
	reads("elsewhere", 0)
	g.wants(somebody, "late", "elsewhere", "")
}

// TestTheStoreIsReadEverMoreRarely while strangers fail at a server that sleeps.
func TestTheStoreIsReadEverMoreRarely(t *testing.T) {
	store := new(memoryStore)
	g := newRoleGate(t, store, newRoleServer(t).tenant("acme"))
	b := g.roles.of("acme")
	for _, want := range []time.Duration{roleStorePause, 2 * roleStorePause, 4 * roleStorePause, 8 * roleStorePause, roleStoreMax, roleStoreMax} {
		g.rolesRead(b, nil, time.Now(), nil)
		if b.kept.pause != want {
			t.Errorf("read again after %v, want %v", b.kept.pause, want)
		}
	}
	list := roles.NewBuilder("asker").List()
	for _, news := range []func(){func() { g.rolesRead(b, list, time.Now(), nil) }, func() { g.rolesRead(b, nil, time.Time{}, errors.New("away")) }} {
		b.kept.pause = roleStoreMax
		if news(); b.kept.pause != roleStorePause {
			t.Errorf("then after %v", b.kept.pause)
		}
	}
}
