// What an operator learns that clients are not told: why a login failed, whose clients are refused, who is throttled.

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// TestCausesInTheLog: the client hears the same, the log says which it was, and one tenant's lines hide no other's.
func TestCausesInTheLog(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	var all []harness.Map
	for i := range 10 {
		all = append(all, g.changed("id", fmt.Sprintf("t%d", i)))
	}
	g.reload(append(all, g.tenant)...)
	fails := func(user string) {
		t.Helper()
		_, err := pgconn.Connect(t.Context(), strings.Replace(g.dsn("transaction", "password=wrong"), "app.acme", user, 1))
		wantState(t, err, "28P01")
	}
	for i := range all { // within a second or not: each has a line of its own
		fails(fmt.Sprintf("app.t%d", i))
	}
	fails("nobody.acme")
	fails("app.nowhere")
	for i := range all {
		logs(t, g, "client refused", harness.Map{"tenant": fmt.Sprintf("t%d", i), "user": "app", "cause": "wrong_password", "sqlstate": "28P01"})
	}
	logs(t, g, "client refused", harness.Map{"tenant": "acme", "user": "nobody", "cause": "unknown_user"})
	logs(t, g, "client refused", harness.Map{"tenant": "nowhere", "user": "app", "cause": "unknown_tenant"})
}

// logs waits for a line.
func logs(t *testing.T, g *gate, msg string, attrs harness.Map) {
	t.Helper()
	harness.Eventually(t, harness.Patience, fmt.Sprintf("a line %q with %v", msg, attrs), func() bool { return len(g.Log().Find(msg, attrs)) > 0 })
}

// TestTenantMetrics: refusals per tenant and reason, on a page of its own; a stranger makes no series.
func TestTenantMetrics(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: func(m harness.Map) { m["allow_list"] = []string{"198.51.100.0/24"} }})
	g.reload(g.tenant, g.changed("id", "quiet"))
	page := func(tenant string, want int) string {
		t.Helper()
		status, body := g.Admin(t, http.MethodGet, "/metrics/tenants/"+tenant, nil)
		if status != want {
			t.Fatalf("/metrics/tenants/%s: %d: %s", tenant, status, body)
		}
		return string(body)
	}
	for range 3 {
		_, err := g.from(t, "transaction", "203.0.113.5")
		wantState(t, err, "28000")
	}
	_, _ = pgconn.Connect(t.Context(), strings.Replace(g.dsn("transaction"), "app.acme", "app.nowhere", 1))
	conn, err := g.from(t, "transaction", "198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	value(t, conn, "select 1")
	acme := page("acme", http.StatusOK)
	for _, line := range []string{
		`postern_tenant_refusals_total{reason="address"} 3`, `postern_tenant_refusals_total{reason="throttle"} 0`,
		`postern_logins_total{result="ok",tenant="acme"} 1`, `postern_queries_total{tenant="acme"} 1`,
	} {
		if !strings.Contains(acme, line+"\n") {
			t.Errorf("no %s in\n%s", line, acme)
		}
	}
	if quiet := page("quiet", http.StatusOK); !strings.Contains(quiet, `postern_tenant_refusals_total{reason="address"} 0`+"\n") || strings.Contains(quiet, "acme") {
		t.Errorf("of a tenant that nobody has used:\n%s", quiet)
	}
	page("nowhere", http.StatusNotFound)
	if _, all := g.Admin(t, http.MethodGet, "/metrics", nil); strings.Contains(string(all), "nowhere") || strings.Contains(string(all), "tenant_refusals") {
		t.Error("/metrics has a stranger's series, or each tenant's refusals")
	}
	if n := g.metric("postern_refusals_total", "reason", "tenant"); n != 1 {
		t.Errorf("%v refusals for the tenant, want 1", n)
	}
}

// TestConsoleBans: who is throttled is listed, and let in again.
func TestConsoleBans(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, func(file, _ harness.Map) {
		file["auth"] = harness.Map{"throttle": harness.Map{"tenant_failures": 3, "address_failures": 5, "window": "10m", "block": "1h"}}
	})
	guess := func(tenant string, times int) { g.tries(t, tenant, times, "password=wrong") }
	c := g.console(t)
	if got := show(t, c, "BANS"); len(got) != 0 {
		t.Errorf("%v", got)
	}
	guess("acme", 3)
	guess("nowhere", 1)
	got := row(t, show(t, c, "BANS"), "tenant", "acme")
	wantRow(t, got, map[string]string{"address": "127.0.0.1", "failures": "3"})
	if got["seconds_left"] < "3000" || len(got["seconds_left"]) != 4 {
		t.Errorf("%s seconds left of 3600", got["seconds_left"])
	}
	if got := g.tries(t, "acme", 1); got["53400"] != 1 {
		t.Errorf("%v, want to be throttled", got)
	}
	refused(t, c, "CLEAR BAN 192.0.2.1", "22023", "no such ban")
	refused(t, c, "CLEAR BAN globex", "22023", "no such ban")
	if got := tag(t, c, "CLEAR BAN acme"); got != "CLEAR BAN" {
		t.Error(got)
	}
	if got := g.tries(t, "acme", 1); got["ok"] != 1 {
		t.Errorf("%v after its ban was lifted", got)
	}
	guess("x", 3)
	guess("y", 3)
	if got := g.tries(t, "acme", 1); got["53400"] != 1 {
		t.Errorf("%v, want to be throttled everywhere", got)
	}
	row(t, show(t, c, "BANS"), "tenant", "")
	tag(t, c, "clear ban 127.0.0.1;")
	if got := show(t, c, "BANS"); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if got := g.tries(t, "acme", 1); got["ok"] != 1 {
		t.Errorf("%v after the address's ban was lifted", got)
	}
}
