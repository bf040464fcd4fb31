// A tenant's sessions by the admin API: listed, ended, and counted before somebody locks all of them out.

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

func TestSessionsByAPI(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme, w.globex)
	g := w.gate()
	const path = "/v1/tenants/acme/sessions"
	ask := func(method, path string, body any, code int) map[string]any {
		t.Helper()
		return g.api(t, g.Token, method, path, body).want(t, code).body
	}
	first, second, globex := g.mustLogin(t, "acme"), g.mustLogin(t, "acme"), g.mustLogin(t, "globex")
	list := ask("GET", path, nil, 200)
	sessions, _ := list["sessions"].([]any)
	if len(sessions) != 2 || list["next"] != nil {
		t.Fatalf("%+v", list)
	}
	for _, s := range sessions {
		for key, want := range map[string]any{"user": "app", "mode": "session", "listener": "session", "client_address": "127.0.0.1", "has_server": true, "state": "active"} {
			if got := s.(map[string]any)[key]; got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}
	}
	of := fmt.Sprint(path, "/", sessions[0].(map[string]any)["id"])
	ask("DELETE", strings.Replace(of, "acme", "globex", 1), nil, 404)
	ask("DELETE", of, nil, 200)
	ends(t, first, "57P01")
	ask("DELETE", of, nil, 404)
	value(t, second, "select 1")

	// Who would lock out everybody is asked first.
	narrow := harness.Map{"allow_list": []string{"203.0.113.0/24"}}
	if out := ask("PATCH", "/v1/tenants/acme", narrow, 409); out["sessions"] != 1.0 {
		t.Errorf("%v", out)
	}
	value(t, second, "select 1")
	ask("PATCH", "/v1/tenants/acme?confirm=true", narrow, 200)
	ends(t, second, "57P01")
	ask("PATCH", "/v1/tenants/acme", harness.Map{"allow_list": []string{"198.51.100.0/24"}}, 200) // nobody is left

	value(t, globex, "select 1")
	if out := ask("DELETE", "/v1/tenants/globex/sessions", nil, 200); out["ended"] != 1.0 {
		t.Errorf("%v", out)
	}
	ends(t, globex, "57P01")
}
