// Tests of the routes of sessions, and of the warning to who would end all of them.

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

func (g *fakeGate) Sessions(ctx context.Context, tenant, after string, limit int) ([]Session, []string, error) {
	if err := g.called(ctx, fmt.Sprintf("sessions after %q of", after), tenant); err != nil {
		return nil, nil, err
	}
	from := 0
	if after != "" {
		from = 1 + slices.IndexFunc(g.sessions, func(s Session) bool { return s.place() == after })
		if from == 0 {
			return nil, nil, fmt.Errorf("a fake: %w", ErrNoSession)
		}
	}
	return g.sessions[from:min(from+limit, len(g.sessions))], g.silent, nil
}

func (g *fakeGate) EndSession(ctx context.Context, tenant, session string) error {
	if err := g.called(ctx, "end "+session+" of", tenant); err != nil {
		return err
	}
	if !slices.ContainsFunc(g.sessions, func(s Session) bool { return s.ID == session }) {
		if len(g.silent) > 0 {
			return fmt.Errorf("a fake: %w", &SilentError{g.silent})
		}
		return ErrNoSession
	}
	return nil
}

func (g *fakeGate) EndSessions(ctx context.Context, tenant string) (int, []string, error) {
	return len(g.sessions), g.silent, g.called(ctx, "end all of", tenant)
}

func (g *fakeGate) LockedOut(ctx context.Context, t *tenants.Tenant) (locked, open int, missing []string, err error) {
	return g.locked, g.open, g.silent, g.called(ctx, "locked out", t.ID)
}

func aSession(id string) Session {
	at := time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	return Session{ID: id, User: "app", Database: "postgres", Listener: "transaction", Client: netip.MustParseAddrPort("[2001:db8::7]:5555"),
		Mode: "transaction", State: "idle", Since: at, Active: at.Add(time.Minute), TLS: true, Application: "psql", Server: true}
}

func TestSessionsAreListed(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.gate.sessions = append(w.gate.sessions, aSession(fmt.Sprint("s", i)))
	}
	const path = "/v1/tenants/acme/sessions"
	w.to(t, "read", "GET", path+"?limit=1", "").is(200, `{"sessions":[{"id":"s0","node":null,"user":"app","database":"postgres","listener":"transaction",`+
		`"client_address":"2001:db8::7","client_port":5555,"mode":"transaction","state":"idle","since":"2027-01-15T08:00:00Z",`+
		`"last_activity":"2027-01-15T08:01:00Z","tls":true,"application_name":"psql","has_server":true}],"next":"s0","missing":[]}`)
	var got []string
	for query := "?limit=2"; query != ""; {
		page := w.to(t, "operator", "GET", path+query, "").is(200)
		for _, s := range page.value("sessions").([]any) {
			got = append(got, s.(map[string]any)["id"].(string))
		}
		next, more := page.value("next").(string)
		if query = ""; more {
			query = "?limit=2&after=" + next
		}
	}
	if strings.Join(got, " ") != "s0 s1 s2 s3 s4" {
		t.Errorf("pages: %v", got)
	}
	w.to(t, "read", "GET", path+"?after=s4", "").is(200, `{"sessions":[],"next":null,"missing":[]}`)
	w.to(t, "read", "GET", path+"?after=gone", "").is(400)
	w.to(t, "read", "GET", path+"?limit=1001", "").is(400)
	w.gate.fail = map[string]error{`sessions after "" of`: ErrNoTenant}
	w.to(t, "operator", "GET", path, "").is(404)
}

// TestSessionsOfAllNodes: each names its node, in its page's end, too, and so do nodes that do not answer.
func TestSessionsOfAllNodes(t *testing.T) {
	w := newWorld(t)
	w.gate.sessions, w.gate.silent = []Session{aSession("s0"), aSession("s1"), aSession("s2")}, []string{"c"}
	for i, node := range []string{"a", "a", "b:1"} {
		w.gate.sessions[i].Node = node
	}
	const path = "/v1/tenants/acme/sessions"
	w.to(t, "read", "GET", path+"?limit=2", "").is(200, `"id":"s1","node":"a"`, `"next":"a:s1","missing":["c"]`)
	w.to(t, "read", "GET", path+"?limit=2&after=a:s1", "").is(200, `"id":"s2","node":"b:1"`, `"next":null,"missing":["c"]`)
	w.to(t, "read", "GET", path+"?after=b:1:s2", "").is(200, `{"sessions":[],"next":null,"missing":["c"]}`)
	w.to(t, "read", "GET", path+"?after=s1", "").is(400)
	w.to(t, "write", "DELETE", path, "").is(200, `{"ended":3,"missing":["c"]}`)
	w.to(t, "write", "DELETE", path+"/s2", "").is(200, `{"ended":1,"missing":[]}`)
	w.to(t, "write", "DELETE", path+"/s3", "").is(503, "nodes have not answered: c; no other node has this session")
}

func TestSessionsAreEnded(t *testing.T) {
	w := newWorld(t)
	w.gate.sessions = []Session{aSession("s0"), aSession("s1")}
	w.to(t, "write", "DELETE", "/v1/tenants/acme/sessions/s1", "").is(200, `{"ended":1,"missing":[]}`)
	w.to(t, "write", "DELETE", "/v1/tenants/acme/sessions/s2", "").is(404, "no such session")
	w.to(t, "operator", "DELETE", "/v1/tenants/acme/sessions", "").is(200, `{"ended":2,"missing":[]}`)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme/sessions", `{"a":1}`).is(400)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme/sessions?user=app", "").is(400)
	w.to(t, "read", "DELETE", "/v1/tenants/acme/sessions", "").is(403)
	w.to(t, "other write", "DELETE", "/v1/tenants/acme/sessions/s1", "").is(404)
	if got := strings.Join(w.gate.calls, ", "); got != "end s1 of acme, end s2 of acme, end all of acme" {
		t.Errorf("the gate was asked: %s", got)
	}
	var outcomes []string
	for _, e := range w.store.entries {
		if strings.HasPrefix(e.Action, "session.") {
			if outcomes = append(outcomes, e.By.Name+": "+e.Action+": "+e.Outcome); (e.Outcome == tenants.OutcomeDone) != (len(e.Changes) == 1) {
				t.Errorf("the audit log says that %+v was changed", e)
			}
		}
	}
	if len(outcomes) != 7 || outcomes[0] != "write: session.end: done" || outcomes[1] != "write: session.end: the tenant has no such session" ||
		outcomes[2] != "operator: session.end_all: done" {
		t.Errorf("the audit log has %q", outcomes)
	}
	if !strings.Contains(w.log.String(), "session.end_all") || !strings.Contains(w.log.String(), "by=operator") {
		t.Errorf("log: %s", w.log)
	}
}

// TestLockOutWarning: who would end all sessions that are open is told so first, unless they say that they know.
func TestLockOutWarning(t *testing.T) {
	const path, put, patch = "/v1/tenants/acme", `{"upstream":{"host":"10.1.2.3"},"allow_list":["203.0.113.0/24"]}`, `{"allow_list":["203.0.113.0/24"]}`
	for _, tc := range []struct {
		method, query, body string
		locked, open        int
		fail                error
		code                int
		asked               bool
	}{
		{"PUT", "", put, 3, 3, nil, 409, true},
		{"PATCH", "", patch, 3, 3, nil, 409, true},
		{"PATCH", "?confirm=false", patch, 3, 3, nil, 409, true},
		{"PATCH", "?confirm=true", patch, 3, 3, nil, 200, false},
		{"PUT", "?confirm=true&wait=0", put, 3, 3, nil, 200, false},
		{"PATCH", "", `{"residency":{"ingress":["fra"]}}`, 3, 3, nil, 409, true},
		{"PATCH", "?confirm=true", `{"residency":{"ingress":["fra"]}}`, 3, 3, nil, 200, false},
		{"PATCH", "", patch, 2, 3, nil, 200, true},
		{"PATCH", "", patch, 0, 0, nil, 200, true},
		{"PATCH", "", patch, 3, 3, errors.New("it does not answer"), 200, true}, // a warning that cannot be given stops nobody
		{"PATCH", "", `{"pool":{"size":3}}`, 3, 3, nil, 200, false},             // which keeps nobody out
		{"PATCH", "", `{"allow_list":["203.0.113.0/33"]}`, 3, 3, nil, 422, false},
		{"PATCH", "?confirm=yes", patch, 3, 3, nil, 400, false},
		{"DELETE", "?confirm=true", "", 3, 3, nil, 400, false},
	} {
		w := newWorld(t)
		w.gate.locked, w.gate.open, w.gate.fail = tc.locked, tc.open, map[string]error{"locked out": tc.fail}
		before := w.store.version
		got := w.to(t, "operator", tc.method, path+tc.query, tc.body).is(tc.code)
		if asked := slices.Contains(w.gate.calls, "locked out acme"); asked != tc.asked || (w.store.version != before) != (tc.code == 200) {
			t.Errorf("%s %s %s: asked %t; version %d after %d", tc.method, tc.query, tc.body, asked, w.store.version, before)
		}
		if tc.code == 409 && (got.value("sessions") != 3.0 || !strings.Contains(got.Body.String(), "?confirm=true")) {
			t.Errorf("%s", got.Body)
		}
	}
	// Nodes that have not answered are named, and stop nobody where nothing is known of sessions.
	{
		w := newWorld(t)
		w.gate.locked, w.gate.open, w.gate.silent = 3, 3, []string{"b", "c"}
		w.to(t, "operator", "PATCH", path, patch).is(409, "sessions (3), beside those on nodes that have not answered: b, c: say ?confirm=true")
		w.gate.locked, w.gate.open = 0, 0
		w.to(t, "operator", "PATCH", path, patch).is(200)
		if !strings.Contains(w.log.String(), "whom a change locks out on other nodes is not known") {
			t.Errorf("log: %s", w.log)
		}
	}
	// Supabase's clients cannot be asked, and TLS is not among what this warns of.
	w := newWorld(t)
	w.gate.locked, w.gate.open = 3, 3
	w.to(t, "write", "POST", "/v1/projects/acme/network-restrictions/apply", `{"dbAllowedCidrs":[],"dbAllowedCidrsV6":[]}`).is(201)
	w.to(t, "write", "PATCH", path, `{"allow_list":["203.0.113.0/24"]}`).is(409, `"sessions":3`)
}

// TestNobodyServes: regions in which no node is known are written down, however the change was asked for.
func TestNobodyServes(t *testing.T) {
	at := func(region string) tenants.Node {
		return tenants.Node{Here: tenants.Here{Address: netip.MustParseAddrPort("192.0.2.1:7947"), Region: region}}
	}
	for _, tc := range []struct {
		here  string
		nodes []tenants.Node
		body  string
		told  bool
	}{
		{"ams", []tenants.Node{at("ams"), at("fra")}, `{"residency":{"ingress":["lhr","fra"]}}`, false},
		{"ams", []tenants.Node{at("ams"), at("fra")}, `{"residency":{"ingress":["lhr"]}}`, true},
		{"ams", nil, `{"residency":{"ingress":["ams"]}}`, false}, // no cluster, or the rows were not read yet
		{"ams", nil, `{"residency":{"ingress":["fra"]}}`, true},
		{"", []tenants.Node{{Here: tenants.Here{Region: "fra"}}}, `{"residency":{"ingress":["fra"]}}`, true}, // which takes no calls
		{"", nil, `{"pool":{"size":3}}`, false},
	} {
		w := newWorld(t)
		w.opts.Region, w.opts.Nodes = tc.here, func() []tenants.Node { return tc.nodes }
		w.to(t, "operator", "PATCH", "/v1/tenants/acme?confirm=true", tc.body).is(200)
		if told := strings.Contains(w.log.String(), "no node is known in any region that may serve the tenant"); told != tc.told {
			t.Errorf("%+v: %s", tc, w.log)
		}
	}
}
