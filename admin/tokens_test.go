// Tests of tokens, the audit log and the nodes.

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// TestTokensAreMadeAndRevoked: each does what its scope says from the next request on, until it expires or is revoked.
func TestTokensAreMadeAndRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		clear(w.store.tokens) // one has a scope that there is not
		w.tokens["operator"] = operator
		made := func(body string) (id, token string) {
			got := w.to(t, "operator", "POST", "/v1/tokens", body).is(201)
			token = got.value("token").(string)
			if !tokenForm.MatchString(token) {
				t.Errorf("%s", token)
			}
			return got.value("id").(string), token
		}
		at := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		id, token := made(fmt.Sprintf(`{"name":"ci","scope":"tenant:read","tenant":"acme","expires":%q}`, at))
		_, w.tokens["sbp"] = made(`{"name":"cli","scope":"tenant:write","tenant":"globex","form":"supabase"}`)
		if !strings.HasPrefix(token, "postern_") || !strings.HasPrefix(w.tokens["sbp"], "sbp_") {
			t.Errorf("%s, %s", token, w.tokens["sbp"])
		}
		w.tokens["ci"] = token
		w.to(t, "ci", "GET", "/v1/tenants/acme", "").is(200)
		w.to(t, "sbp", "PATCH", "/v1/tenants/globex", `{"require_tls":true}`).is(200)
		w.to(t, "sbp", "GET", "/v1/tenants/acme", "").is(404)
		for _, path := range []string{"/v1/tokens", "/v1/tokens?tenant=acme", "/v1/tokens/" + id} {
			got := w.to(t, "operator", "GET", path, "").is(200, `"name":"ci","scope":"tenant:read","tenant":"acme"`, `"expires":"`+at)
			if strings.Contains(got.Body.String(), token) {
				t.Error("a token comes back")
			}
		}
		if got := w.to(t, "operator", "GET", "/v1/tokens?tenant=acme", "").is(200); strings.Contains(got.Body.String(), "globex") {
			t.Errorf("%s", got.Body)
		}
		time.Sleep(time.Hour)
		w.to(t, "ci", "GET", "/v1/tenants/acme", "").is(401)
		w.to(t, "operator", "DELETE", "/v1/tokens/"+id, "").is(200, `{"id":`)
		w.to(t, "operator", "DELETE", "/v1/tokens/"+id, "").is(404)
		w.to(t, "operator", "GET", "/v1/tokens/"+id, "").is(404)
		w.to(t, "operator", "DELETE", "/v1/tokens/"+id, `{"a":1}`).is(400)
		w.to(t, "sbp", "GET", "/v1/tokens", "").is(403)
		w.to(t, "sbp", "POST", "/v1/tokens", `{"name":"x","scope":"tenant:read","tenant":"globex"}`).is(403)
	})
}

// TestTokensArePaged: every one is on one page, whichever the pages' length.
func TestTokensArePaged(t *testing.T) {
	w := newWorld(t)
	clear(w.store.tokens) // one has a scope that there is not
	w.tokens["operator"] = operator
	want := make(map[string]bool)
	for range 7 {
		want[w.to(t, "operator", "POST", "/v1/tokens", `{"name":"ci","scope":"tenant:read","tenant":"acme"}`).is(201).value("id").(string)] = true
	}
	w.to(t, "operator", "POST", "/v1/tokens", `{"name":"other","scope":"tenant:read","tenant":"globex"}`).is(201)
	for _, limit := range []int{1, 3, 7, 100} {
		got := make(map[string]bool)
		for path, pages := fmt.Sprintf("/v1/tokens?tenant=acme&limit=%d", limit), 1; ; pages++ {
			page := w.to(t, "operator", "GET", path, "").is(200)
			for _, one := range page.value("tokens").([]any) {
				got[one.(map[string]any)["id"].(string)] = true
			}
			next, more := page.value("next").(string)
			if !more {
				if pages != (len(want)+limit-1)/limit {
					t.Errorf("limit %d: %d pages", limit, pages)
				}
				break
			}
			path = fmt.Sprintf("/v1/tokens?tenant=acme&limit=%d&after=%s", limit, next)
		}
		if !maps.Equal(got, want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "after=", "x=1", "tenant=NO"} {
		w.to(t, "operator", "GET", "/v1/tokens?"+query, "").is(400)
	}
}

func TestTokenBodies(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{}`:                                "/name /scope",
		`{"name":"","scope":"operator"}`:    "/name",
		`{"name":"a\nb","scope":"metrics"}`: "/name",
		`{"name":"` + strings.Repeat("a", 101) + `","scope":"metrics"}`:    "/name",
		`{"name":"a","scope":"root"}`:                                      "/scope",
		`{"name":"a","scope":"operator","tenant":"acme"}`:                  "/tenant",
		`{"name":"a","scope":"tenant:read"}`:                               "/tenant",
		`{"name":"a","scope":"tenant:read","tenant":"nobody"}`:             "/tenant",
		`{"name":"a","scope":"operator","expires":"2020-01-01T00:00:00Z"}`: "/expires",
		`{"name":"a","scope":"operator","expires":"tomorrow"}`:             "/expires",
		`{"name":"a","scope":"operator","expires":null}`:                   "/expires",
		`{"name":"a","scope":"operator","form":"jwt"}`:                     "/form",
		`{"name":"a","scope":"operator","token":"x"}`:                      "/token",
		`{"name":5,"scope":"operator"}`:                                    "/name",
	} {
		got := w.to(t, "operator", "POST", "/v1/tokens", body).is(422)
		var p problem
		_ = json.Unmarshal(got.Body.Bytes(), &p)
		var at []string
		for _, e := range p.Errors {
			at = append(at, e.Pointer)
		}
		if strings.Join(at, " ") != want {
			t.Errorf("%s: %v, want %s", body, at, want)
		}
	}
	w.to(t, "operator", "POST", "/v1/tokens?x=1", `{"name":"a","scope":"operator"}`).is(400)
	w.to(t, "operator", "GET", "/v1/tokens?tenant=A", "").is(400)
	w.to(t, "operator", "GET", "/v1/tokens/x?a=1", "").is(400)
}

func TestAuditIsRead(t *testing.T) {
	w := newWorld(t)
	by := tenants.Actor{Name: "ci", Token: "t1", Address: netip.MustParseAddrPort("203.0.113.7:5"), Request: "r1"}
	for i := range 5 {
		w.store.write(tenants.Entry{By: by, Action: "tenant.patch", Tenant: []string{"acme", "globex"}[i%2], Outcome: "done", Version: int64(i + 1), Changes: []tenants.Difference{
			{Path: "pool.size", Old: "20", New: "3"}, {Path: `users["app"]`, New: "there"}, {Path: `users["app"].password`, Old: "s3cret", New: "s3cret", Secret: true}}})
	}
	w.store.write(tenants.Entry{By: tenants.Actor{Name: "cli"}, Action: "token.create", Outcome: "done"})
	w.store.entries[3].Applied = []tenants.InForce{}
	w.store.entries[4].Applied = []tenants.InForce{{Node: "a", At: time.Unix(1, 0)}, {Node: "b", At: time.Unix(2, 0)}}
	w.to(t, "operator", "GET", "/v1/audit?limit=2", "").is(200, `"number":6`, `"by":{"name":"cli","token":null,"address":null,"request":null}`, `"tenant":null`, `"version":null`, `"applied":null`, `"applied":[{"node":"a","at":"1970-01-01T00:00:01Z"},{"node":"b","at":"1970-01-01T00:00:02Z"}]`,
		`"number":5`, `"by":{"name":"ci","token":"t1","address":"203.0.113.7:5","request":"r1"}`,
		`"changes":[{"path":"pool.size","old":20,"new":3,"secret":false},{"path":"users[\"app\"]","new":"there","secret":false},{"path":"users[\"app\"].password","secret":true}]`, `"next":5`)
	w.to(t, "operator", "GET", "/v1/audit?limit=1&before=5", "").is(200, `"applied":[]`)
	got := w.to(t, "operator", "GET", "/v1/audit?tenant=globex&before=4", "").is(200, `"number":2`, `"next":null`)
	if n := len(got.value("entries").([]any)); n != 1 {
		t.Errorf("%d entries", n)
	}
	for _, query := range []string{"before=0", "before=x", "limit=0", "tenant=A", "tenant=", "after=1"} {
		w.to(t, "operator", "GET", "/v1/audit?"+query, "").is(400)
	}
}

func TestClusterIsRead(t *testing.T) {
	w := newWorld(t)
	w.to(t, "operator", "GET", "/v1/cluster", "").is(200, `{"store_away":false,"nodes":[{"name":"a",`, `"member":null`, `"strangers":[]`)
	all, err := w.store.Nodes(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	w.opts.Members = func() []Member {
		return []Member{{Name: "a", Boot: all[0].Boot, State: "suspect", Since: time.Unix(1, 0), Leaving: true},
			{Name: "z", Boot: "other", Region: "fra", Address: netip.MustParseAddrPort("[fdaa::3]:7947"), State: "alive", Since: time.Unix(2, 0), Protocol: 2}}
	}
	w.to(t, "operator", "GET", "/v1/cluster", "").is(200, `"leaving":true,"member":{"state":"suspect","since":"1970-01-01T00:00:01Z"}`,
		`"strangers":[{"name":"z","boot":"other","region":"fra","address":"[fdaa::3]:7947","protocol":2,"state":"alive","since":"1970-01-01T00:00:02Z"}]`)
	// While the store is away there is what this node has read last, and what the gossip says now.
	w.store.away = tenants.ErrAway
	w.to(t, "file", "GET", "/v1/cluster", "").is(503)
	var rows []tenants.Node
	w.opts.Nodes = func() []tenants.Node { return rows }
	w.to(t, "file", "GET", "/v1/cluster", "").is(503) // never read
	rows = all
	w.to(t, "file", "GET", "/v1/cluster", "").is(200, `{"store_away":true,"nodes":[{"name":"a",`, `"member":{"state":"suspect"`, `"strangers":[{"name":"z"`)
	w.store.away = errors.New("a fault")
	w.to(t, "file", "GET", "/v1/cluster", "").is(500)
	w.store.away = nil
	w.to(t, "operator", "GET", "/v1/cluster?x=1", "").is(400)
	w.to(t, "operator", "DELETE", "/v1/cluster/a", "").is(200, `{"id":"a"}`)
	w.to(t, "operator", "DELETE", "/v1/cluster/b", "").is(404)
	w.to(t, "operator", "DELETE", "/v1/cluster/c", "").is(409, "alive")
}
