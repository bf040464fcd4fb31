// Tenants with tokens of their own for Fly's API, each good for one app alone.

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// TestFlyOwnTokens: two tenants' machines wake and sleep with their own tokens, there is none for all, and one that is rotated counts
// from the next call on, while what runs goes on.
func TestFlyOwnTokens(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{Unlimited: true, Resume: 10 * time.Millisecond, Suspend: 10 * time.Millisecond, Boot: 10 * time.Millisecond})
	verifier := harness.Verifier(t, g.cluster, harness.App)
	dir := t.TempDir()
	give := func(app, token string, file bool) {
		t.Helper()
		g.api.SetAppToken(app, token)
		if !file {
			return
		}
		path := filepath.Join(dir, app)
		if err := os.WriteFile(path+".new", []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"acme", "globex"} {
		vm := lend(t)
		f := &flyTenant{Machine: g.api.AddMachine("app-of-"+id, id, vm), g: g, id: id, vm: vm}
		f.tenant = f.on(id, f.Port(), g.database, verifier)
		f.tenant["machine"].(harness.Map)["app"] = "app-of-" + id
		f.tenant["machine"].(harness.Map)["token_file"] = filepath.Join(dir, "app-of-"+id)
		g.tenants = append(g.tenants, f)
	}
	give("app-of-acme", "fo1_c4nary-acme", true)
	give("app-of-globex", "FlyV1 fm2_c4nary-globex", true)
	g.api.SetAppToken("app-of-globex", "fm2_c4nary-globex") // as it is sent
	g.serve(t, harness.Map{"log": harness.Map{"level": "debug"}, "machines": harness.Map{"fly": harness.Map{"api": g.api.URL}, "state_file": "known.json"}})
	acme, globex := g.tenants[0], g.tenants[1]
	stays := acme.enter(t, "session")
	stays.must(t, "select 1", "1")
	if err := globex.visit(t.Context(), "transaction"); err != nil {
		t.Fatal(err)
	}
	globex.sleep(t)
	for _, c := range g.api.Calls() {
		if c.Status == http.StatusUnauthorized {
			t.Errorf("%s of %s was refused", c.Action, c.App)
		}
	}

	// Another token, while the machine runs and somebody is on it.
	server := stays.PID()
	loaded := g.reloads("tenants", "ok")
	give("app-of-acme", "fo1_c4nary-rotated", true)
	harness.Eventually(t, harness.Patience, "the new token is read", func() bool { return g.reloads("tenants", "ok") > loaded })
	stays.must(t, "select 2", "2")
	if stays.PID() != server || acme.starts() != 1 {
		t.Errorf("%d starts, and the session is on server %d, not %d", acme.starts(), stays.PID(), server)
	}
	stays.leave()
	g.api.Forget()
	acme.sleep(t)
	if err := acme.visit(t.Context(), "transaction"); err != nil {
		t.Error(err)
	}
	if acme.wakes("ok") != 2 {
		t.Errorf("%v wakes", acme.wakes("ok"))
	}
	for _, c := range g.api.Calls() {
		if c.Status == http.StatusUnauthorized {
			t.Errorf("%s of %s was refused after the token was rotated", c.Action, c.App)
		}
	}

	// One that nobody has told the gate of is refused, and the next one helps.
	acme.sleep(t)
	give("app-of-acme", "fo1_c4nary-untold", false)
	if err := acme.visit(t.Context(), "transaction"); sqlstate(err) != "57P03" {
		t.Errorf("with a token that is good for nothing: %v", err)
	}
	give("app-of-acme", "fo1_c4nary-told", true)
	harness.Eventually(t, harness.Patience, "it wakes again", func() bool { return acme.visit(t.Context(), "transaction") == nil })

	_, shown := g.Admin(t, http.MethodGet, "/v1/tenants/acme", nil)
	_, metrics := g.Admin(t, http.MethodGet, "/metrics", nil)
	if !strings.Contains(string(shown), `"secrets_set":["machine.token"]`) {
		t.Errorf("it is shown as %s", shown)
	}
	if strings.Contains(g.Log().String()+string(shown)+string(metrics), "c4nary") {
		t.Error("a token is in the log, the metrics or the API")
	}
}
