// What a node finds out about others' servers, over calls that never leave this process.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
)

// TestServersOfAnotherNode: a node answers for a tenant that it does not use, and one without a service account counts nothing.
func TestServersOfAnotherNode(t *testing.T) {
	n := nodeOf("a", 1)
	n.answer = func(string, string, []byte) (any, error) { return nil, errors.New("nobody is to be asked") }
	p := newPeers(n, gateOf(t))
	body, _ := json.Marshal("acme")
	answer, err := n.handlers[askServers](t.Context(), "b", body)
	if err != nil || string(answer) != "null" && string(answer) != "[]" {
		t.Errorf("%s, %v", answer, err)
	}
	if n, ok, err := p.strangers(t.Context(), "acme"); n != 0 || ok || err != nil {
		t.Errorf("%d, %v, %v", n, ok, err)
	}
	if _, ok, err := p.strangers(t.Context(), "nobody"); ok || err == nil {
		t.Errorf("of nobody: %v, %v", ok, err)
	}
}

// TestWhoIsNotCounted: who was removed has nobody to ask, and a node asks no Postgres of a tenant that it may not serve. Neither is a fault.
// Whom only this node does not have was not removed: its portions are kept.
func TestWhoIsNotCounted(t *testing.T) {
	far := tenants.New("far")
	far.Upstream.Host, far.Service = "127.0.0.1", &tenants.Service{User: "watcher", Password: tenants.NewSecret("p")}
	far.Residency.Ingress = []string{"elsewhere"}
	far.Complete()
	n := nodeOf("a", 1)
	n.answer = func(string, string, []byte) (any, error) { return nil, errors.New("nobody is to be asked") }
	p := newPeers(n, gateOf(t, far))
	away := errors.New("the store is away")
	has := func(_ context.Context, tenant string) (bool, error) {
		return tenant == "unread", map[string]error{"unknown": away}[tenant]
	}
	if n, ok, err := p.count(t.Context(), "removed", has); n != 0 || ok || err != nil {
		t.Errorf("removed: %d, %v, %v", n, ok, err)
	}
	for tenant, want := range map[string]error{"unread": cluster.ErrNotCounted, "unknown": away} {
		if _, _, err := p.count(t.Context(), tenant, has); !errors.Is(err, want) {
			t.Errorf("%s: %v", tenant, err)
		}
	}
	if _, ok, err := p.count(t.Context(), "far", has); !ok || !errors.Is(err, cluster.ErrNotCounted) || !errors.Is(err, proxy.ErrElsewhere) {
		t.Errorf("far: %v, %v", ok, err)
	}
}

// TestSeen: who does not answer for a moment, or has gone a moment ago, may live.
func TestSeen(t *testing.T) {
	now := time.Now()
	member := func(boot string, s cluster.State, ago time.Duration) cluster.Member {
		return cluster.Member{Boot: boot, State: s, Since: now.Add(-ago)}
	}
	all := []cluster.Member{member("alive", cluster.Alive, time.Hour), member("suspect", cluster.Suspect, time.Hour), member("left", cluster.Left, lingers-1), member("gone", cluster.Left, lingers)}
	for boot, want := range map[string]bool{"alive": true, "suspect": true, "left": true, "gone": false, "unheard of": false} {
		if got := seen(all, boot, now); got != want {
			t.Errorf("%s: %v", boot, got)
		}
	}
}

// TestCutOff: who does not see this node, is another one than before, refuses it or cannot say is told from who does not answer; one that was away
// for long before is not asked.
func TestCutOff(t *testing.T) {
	now := time.Now()
	all := func(string) (any, error) { return true, nil }
	only := func(err error) func(string) (any, error) {
		return func(node string) (any, error) { return true, map[string]error{"c": err}[node] }
	}
	for name, c := range map[string]struct {
		others int
		answer func(node string) (any, error)
		gone   time.Duration // of c
		unseen bool
		mute   string
	}{
		"no others":                 {others: 0},
		"all see it":                {others: 2, answer: all},
		"one does not see it":       {others: 2, answer: func(node string) (any, error) { return node == "b", nil }, unseen: true},
		"one does not answer":       {others: 2, answer: only(cluster.ErrAway), mute: "c"},
		"one is late":               {others: 2, answer: only(context.DeadlineExceeded), mute: "c"},
		"one has another key":       {others: 2, answer: only(fmt.Errorf("%w: %w", cluster.ErrAway, cluster.ErrWrongKey)), unseen: true},
		"one refuses it":            {others: 2, answer: only(cluster.ErrRefused), unseen: true},
		"one was silent":            {others: 2, answer: only(cluster.ErrAway), gone: goneAfter - 1, mute: "c"},
		"one was silent for long":   {others: 2, answer: only(cluster.ErrAway), gone: goneAfter},
		"one that does not know it": {others: 1, answer: func(string) (any, error) { return nil, cluster.ErrUnknown }, unseen: true},
	} {
		n := nodeOf("a", 1)
		n.rows = n.rows[:1+c.others]
		for i := range n.rows {
			n.rows[i].Seen = now
		}
		if c.others > 1 {
			n.rows[2].Seen = now.Add(-c.gone)
		}
		n.answer = func(node, what string, body []byte) (any, error) {
			if what != askSeen || string(body) != `"A"` {
				return nil, errors.New("that is not asked")
			}
			return c.answer(node)
		}
		if unseen, mute := newPeers(n, gateOf(t)).cutOff(t.Context()); unseen != c.unseen || strings.Join(mute, ",") != c.mute {
			t.Errorf("%s: %v, %v", name, unseen, mute)
		}
	}
}

// TestSilentNodesThatAnswer: while one does, nobody's portions are handed on, neither of a tenant without a service account nor of its clients.
func TestSilentNodesThatAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		lives bool
	}{
		"answers": {nil, true}, "answers with an error": {&cluster.RemoteError{Node: "b", Text: "x"}, true}, "is of another version": {cluster.ErrUnknown, true},
		"does not answer": {cluster.ErrAway, false}, "takes no calls": {cluster.ErrNoNode, false},
	} {
		n := nodeOf("a", 1)
		n.rows[1].Silent = true
		calls := 0
		n.answer = func(node, what string, _ []byte) (any, error) {
			if calls++; node != "b" || what != askSeen {
				return nil, errors.New("nobody else is to be asked")
			}
			return false, c.err
		}
		p := newPeers(n, gateOf(t))
		var log bytes.Buffer
		p.log = slog.New(slog.NewTextHandler(&log, nil))
		for _, tenant := range []string{"acme", tenants.ClientsOf("acme")} {
			if _, ok, err := p.strangers(t.Context(), tenant); ok || errors.Is(err, cluster.ErrNotCounted) != c.lives || !c.lives && err != nil {
				t.Errorf("%s: %s: %v, %v", name, tenant, ok, err)
			}
		}
		if calls != 1 {
			t.Errorf("%s: it was asked %d times", name, calls)
		}
		p.answered.at = time.Time{}
		p.silentButAnswers(t.Context())
		if said := strings.Count(log.String(), "level=WARN"); calls != 2 || (said == 1) != c.lives || said == 1 && !strings.Contains(log.String(), "node=b") {
			t.Errorf("%s: asked %d times, the log says: %s", name, calls, &log)
		}
	}
}

// TestWhoSeesWhom: a node says whether it sees who asks.
func TestWhoSeesWhom(t *testing.T) {
	n := nodeOf("a", 1)
	newPeers(n, gateOf(t)).answerSeen(func() []cluster.Member {
		return []cluster.Member{{Boot: "B", State: cluster.Suspect}, {Boot: "C", State: cluster.Left, Since: time.Now()}}
	})
	for boot, want := range map[string]string{"B": "true", "C": "false", "D": "false"} {
		if got, err := n.handlers[askSeen](t.Context(), "b", []byte(`"`+boot+`"`)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", boot, got, err)
		}
	}
}

// TestFloor: who has an upstream and shares its limits.
func TestFloor(t *testing.T) {
	plain, own, machine := tenants.New("plain"), tenants.New("own"), tenants.New("machine")
	own.Pool.PerNode, machine.Machine = true, &tenants.Machine{}
	d, err := tenants.NewDirectory(plain, own, machine)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"plain": true, "own": false, "machine": false, "nobody": false} {
		if got := hasFloor(d, id); got != want {
			t.Errorf("%s: %v", id, got)
		}
	}
}

// TestTheLogIsToldOfEachSilentNode once a minute.
func TestTheLogIsToldOfEachSilentNode(t *testing.T) {
	var k answered
	now := time.Now()
	for i, c := range []struct {
		node  string
		after time.Duration
		want  bool
	}{{"b", 0, true}, {"b", tellEvery - 1, false}, {"c", tellEvery - 1, true}, {"b", tellEvery, true}, {"c", tellEvery, false}} {
		if got := k.due(c.node, now.Add(c.after)); got != c.want {
			t.Errorf("%d: %s: %v", i, c.node, got)
		}
	}
}
