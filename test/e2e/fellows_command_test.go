// Commands and sessions of a cluster: what is said to one node holds on all.

package e2e

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/test/harness"
)

// sessionsAt lists acme's sessions as a node tells them: node and id of each, and which nodes are missing.
func (g *gate) sessionsAt(t *testing.T, limit int) (all [][2]string, missing []string) {
	t.Helper()
	for after := ""; ; {
		page := g.api(t, g.Token, "GET", fmt.Sprintf("/v1/tenants/acme/sessions?limit=%d%s", limit, after), nil).want(t, 200).body
		for _, s := range page["sessions"].([]any) {
			s := s.(map[string]any)
			all = append(all, [2]string{s["node"].(string), s["id"].(string)})
		}
		missing = nil
		for _, name := range page["missing"].([]any) {
			missing = append(missing, name.(string))
		}
		next, more := page["next"].(string)
		if !more {
			return all, missing
		}
		after = "&after=" + url.QueryEscape(next)
	}
}

// TestSessionsOfACluster are listed and ended by any node.
func TestSessionsOfACluster(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	all := w.fellows("a", "b")
	a, b := all[0], all[1]
	first, second, third := a.connect(t, "session"), b.connect(t, "session"), b.connect(t, "transaction")
	for _, g := range all {
		for _, limit := range []int{1, 2, 100} {
			list, missing := g.sessionsAt(t, limit)
			var nodes []string
			for _, s := range list {
				nodes = append(nodes, s[0])
			}
			if strings.Join(nodes, " ") != "a b b" || len(missing) > 0 {
				t.Errorf("limit %d: %v, missing %v", limit, list, missing)
			}
		}
	}
	if out := a.ask(t, "", 0, "session", "list", "acme"); strings.Count(out, "\n") != 4 || !strings.Contains(out, "NODE") || !strings.Contains(out, "  b  ") {
		t.Errorf("session list: %s", out)
	}
	list, _ := b.sessionsAt(t, 100)
	a.ask(t, "", 0, "session", "end", "acme", list[1][1])
	ends(t, second, "57P01")
	value(t, first, "select 1")
	value(t, third, "select 1")
	b.api(t, b.Token, "DELETE", "/v1/tenants/acme/sessions/"+list[1][1], nil).want(t, 404)

	b.Freeze(t)
	thaw := func() { _ = syscall.Kill(b.PID(), syscall.SIGCONT) }
	defer thaw()
	if some, missing := a.sessionsAt(t, 100); len(some) != 1 || some[0] != list[0] || !slices.Equal(missing, []string{"b"}) {
		t.Errorf("while b is frozen: %v, missing %v", some, missing)
	}
	if got := a.api(t, a.Token, "DELETE", "/v1/tenants/acme/sessions/"+list[2][1], nil).want(t, 503).body["detail"]; !strings.Contains(fmt.Sprint(got), "nodes have not answered: b") {
		t.Errorf("%v", got)
	}
	thaw()
	harness.Eventually(t, harness.Patience, "b answers", func() bool { _, missing := a.sessionsAt(t, 100); return len(missing) == 0 })
	// What b was asked while it was frozen it may have done since.
	if got := b.api(t, b.Token, "DELETE", "/v1/tenants/acme/sessions", nil).want(t, 200).body; got["ended"] != 2.0 && got["ended"] != 1.0 {
		t.Errorf("%v", got)
	}
	ends(t, first, "57P01")
	ends(t, third, "57P01")
}

// TestCommandsOfACluster hold on nodes that were there, on those that come later, and on one that was frozen.
func TestCommandsOfACluster(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	all := w.fellows("a", "b")
	a, b := all[0], all[1]
	ca, cb := a.console(t), b.console(t)
	paused := func(is string, what string) {
		t.Helper()
		for _, g := range all {
			c := g.console(t)
			harness.Eventually(t, harness.Patience, what, func() bool { return row(t, show(t, c, "TENANTS"), "tenant", "acme")["paused"] == is })
			closeConn(c)
		}
	}
	client := b.connect(t, "transaction")
	value(t, client, "select 1")

	// PAUSE is done when b has no server connection left, and a node that starts is paused.
	if got := tag(t, ca, "PAUSE acme"); got != "PAUSE" {
		t.Error(got)
	}
	wantRow(t, row(t, show(t, cb, "TENANTS"), "tenant", "acme"), map[string]string{"paused": "1", "servers": "0"})
	all = append(all, w.fellow("c"))
	w.acquainted(all...)
	paused("1", "it is paused on all nodes")
	waits := make(chan error, 1)
	go func() { _, err := tryValue(t.Context(), client, "select 2"); waits <- err }()
	harness.Eventually(t, harness.Patience, "its client waits", func() bool { return row(t, show(t, cb, "TENANTS"), "tenant", "acme")["clients_waiting"] == "1" })
	if got := tag(t, cb, "RESUME acme"); got != "RESUME" {
		t.Error(got)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
	paused("0", "it is resumed on all nodes")
	refused(t, ca, "RESUME acme", "55000", "database acme is not paused")

	// The API says the same thing.
	if got := b.api(t, b.Token, "POST", "/v1/tenants/acme/pause", nil).want(t, 200).body; got["paused"] != true || got["applied"] == nil {
		t.Errorf("%v", got)
	}
	paused("1", "it is paused by the API")
	a.api(t, a.Token, "POST", "/v1/tenants/acme/resume", nil).want(t, 200)
	paused("0", "it is resumed by the API")

	// Everything, and what is held by that.
	tag(t, ca, "PAUSE")
	paused("1", "everything is paused")
	refused(t, cb, "PAUSE", "55000", "already suspended/paused")
	tag(t, cb, "RESUME acme")
	paused("0", "this one is resumed")
	tag(t, cb, "RESUME")
	refused(t, ca, "RESUME", "55000", "pooler is not paused/suspended")

	tag(t, cb, "DISABLE acme")
	for _, g := range all {
		if _, err := g.login(t, "acme"); sqlstate(err) != "55000" {
			t.Errorf("a login where it is disabled: %v", err)
		}
	}
	value(t, client, "select 3")
	tag(t, ca, "ENABLE acme")
	for _, g := range all {
		closeConn(g.mustLogin(t, "acme"))
	}

	tag(t, ca, "KILL acme")
	ends(t, client, "57P01")
	paused("1", "what is killed is paused")

	// One that is frozen reads it later.
	b.Freeze(t)
	thaw := func() { _ = syscall.Kill(b.PID(), syscall.SIGCONT) }
	defer thaw()
	refused(t, ca, "RESUME acme", "57P03", "nodes have not answered: b")
	thaw()
	paused("0", "it is resumed on all nodes")
}
