// Pauses that all nodes read, and those of a node alone.

package admin

import (
	"strings"
	"testing"
)

// TestAPauseIsWrittenDown where tenants are in a database. Its end is told to the gates as well, which may hold it for a command's sake.
func TestAPauseIsWrittenDown(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme/"
	w.to(t, "operator", "POST", path+"pause", "").is(200, `{"tenant":"acme","paused":true,"applied":{"everywhere":true`)
	if !w.store.all["acme"].Tenant.Paused {
		t.Error("it is not in the row")
	}
	w.to(t, "operator", "GET", "/v1/tenants/acme", "").is(200, `"paused":true`)
	w.to(t, "operator", "POST", path+"pause?wait=0", "{}").is(200, `"paused":true`)
	w.to(t, "operator", "POST", path+"resume", "").is(200, `{"tenant":"acme","paused":false,"applied":{"everywhere":true`)
	if w.store.all["acme"].Tenant.Paused {
		t.Error("it is in the row")
	}
	if got := strings.Join(w.gate.calls, ", "); got != "resume acme" {
		t.Errorf("the gate was asked: %s", got)
	}
	var actions []string
	for _, e := range w.store.entries {
		actions = append(actions, e.By.Name+" "+e.Action+" "+e.Outcome)
	}
	if got := strings.Join(actions, ", "); got != "operator pause done, operator pause done, operator resume done" {
		t.Errorf("the audit log has %s", got)
	}
	w.to(t, "operator", "POST", path+"pause", `{"a":1}`).is(400)
	w.to(t, "operator", "POST", path+"pause?force=1", "").is(400)
	w.to(t, "operator", "POST", "/v1/tenants/nobody/pause", "").is(404)
	w.to(t, "write", "POST", path+"pause", "").is(403)
	w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"paused":true}`).is(403, "may not change paused")
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{"disabled":true}`).is(200, `"disabled":true`)
}

// TestAPauseOfAFilesTenant is the node's own, unless the file says so.
func TestAPauseOfAFilesTenant(t *testing.T) {
	w := newWorld(t)
	rec := w.store.all["acme"]
	rec.Version = 0 // as a file's
	w.store.all["acme"] = rec
	const path = "/v1/tenants/acme/"
	w.to(t, "file", "POST", path+"pause", "").is(200, `{"tenant":"acme","paused":true}`)
	w.to(t, "file", "POST", path+"resume", "").is(200, `{"tenant":"acme","paused":false}`)
	if got := strings.Join(w.gate.calls, ", "); got != "pause acme, resume acme" {
		t.Errorf("the gate was asked: %s", got)
	}
	w.store.all["acme"].Tenant.Paused = true
	w.to(t, "file", "POST", path+"resume", "").is(409, "the tenants file says that the tenant is paused")
}
