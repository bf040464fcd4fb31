// The admin API over a database: what is changed through one node is in force on the other.

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// apiAnswer is what an API said.
type apiAnswer struct {
	code int
	etag string
	body map[string]any
}

// api asks a gate's API with a token.
func (g *gate) api(t *testing.T, token, method, path string, body any, headers ...string) apiAnswer {
	t.Helper()
	var from io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		from = bytes.NewReader(encoded)
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, g.AdminURL()+path, from)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	a := apiAnswer{code: res.StatusCode, etag: res.Header.Get("ETag")}
	if err != nil || json.Unmarshal(text, &a.body) != nil {
		t.Fatalf("%s %s: %d %q, %v", method, path, res.StatusCode, text, err)
	}
	for _, secret := range []string{harness.AppPassword, "SCRAM-SHA-256$", token} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%s %s tells a secret: %s", method, path, text)
		}
	}
	return a
}

// want fails the test unless the answer has the status.
func (a apiAnswer) want(t *testing.T, code int) apiAnswer {
	t.Helper()
	if a.code != code {
		t.Fatalf("got %d %v, want %d", a.code, a.body, code)
	}
	return a
}

// everywhere waits until a tenant, as it is now, is in force on every node.
func (g *gate) everywhere(t *testing.T, tenant string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "the change is in force everywhere", func() bool {
		applied, _ := g.api(t, g.Token, "GET", "/v1/tenants/"+tenant, nil).want(t, 200).body["applied"].(map[string]any)
		return applied["everywhere"] == true
	})
}

func TestAPIOfTwoNodes(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	delete(w.tenants["postgres"].(harness.Map), "cache_file") // which is of one process
	w.command("init")
	node := func(name string) *gate {
		w.tenants["postgres"].(harness.Map)["node"] = name
		return w.gate()
	}
	a, b := node("a"), node("b")

	// A tenant and its user are made on A, and clients of B are served.
	made := a.api(t, a.Token, "PUT", "/v1/tenants/acme", harness.Map{"database": w.acme["database"], "upstream": w.acme["upstream"]}, "If-None-Match", "*").want(t, 201)
	for _, u := range w.acme["users"].([]harness.Map) {
		made = a.api(t, a.Token, "PUT", fmt.Sprintf("/v1/tenants/acme/users/%v", u["name"]), harness.Map{"verifier": u["verifier"]}).want(t, 201)
	}
	a.everywhere(t, "acme")
	conn := b.mustLogin(t, "acme")
	if v := value(t, conn, "select 1"); v != "1" {
		t.Error(v)
	}

	// The owner's token, which A has made, restricts on B; who is there is sent away.
	token := a.api(t, a.Token, "POST", "/v1/tokens", harness.Map{"name": "owner", "scope": "tenant:write", "tenant": "acme"}).want(t, 201)
	owner, _ := token.body["token"].(string)
	b.api(t, owner, "PATCH", "/v1/tenants/acme", harness.Map{"require_tls": true}, "If-Match", `"1"`).want(t, 412)
	b.api(t, owner, "PATCH", "/v1/tenants/acme", harness.Map{"upstream": harness.Map{"host": "192.0.2.1"}}).want(t, 403)
	b.api(t, owner, "GET", "/v1/tenants/globex", nil).want(t, 404)
	a.api(t, owner, "PATCH", "/v1/tenants/acme", harness.Map{"allow_list": []string{"192.0.2.0/24"}}, "If-Match", made.etag).want(t, 200)
	b.everywhere(t, "acme")
	ends(t, conn, "57P01")
	for _, g := range []*gate{a, b} {
		_, err := g.login(t, "acme")
		wantState(t, err, "28000")
	}
	b.api(t, owner, "PATCH", "/v1/tenants/acme", harness.Map{"allow_list": []string{"127.0.0.0/8"}, "pool": harness.Map{"size": 2}}).want(t, 200)
	a.everywhere(t, "acme")
	b.api(t, owner, "PATCH", "/v1/tenants/acme", harness.Map{"pool": harness.Map{"size": 21}}).want(t, 422)
	conn = a.mustLogin(t, "acme")

	// Who has done all this is known on both.
	var said []string
	for _, e := range b.api(t, b.Token, "GET", "/v1/audit?tenant=acme", nil).want(t, 200).body["entries"].([]any) {
		e := e.(map[string]any)
		outcome := e["outcome"].(string)
		if outcome != "done" {
			outcome = "refused"
		}
		said = append(said, fmt.Sprint(e["by"].(map[string]any)["name"], " ", e["action"], " ", outcome))
	}
	want := "owner tenant.patch refused, owner tenant.patch done, owner tenant.patch done, owner tenant.patch refused, owner tenant.patch refused, " +
		"file token.add done, file user.put done, file user.put done, file tenant.put done"
	if got := strings.Join(said, ", "); got != want {
		t.Errorf("the audit log says\n%s\nwant\n%s", got, want)
	}

	// And since when it is in force on which.
	last := b.api(t, b.Token, "GET", "/v1/audit?tenant=acme&limit=2", nil).want(t, 200).body["entries"].([]any)
	if refused, done := last[0].(map[string]any)["applied"], fmt.Sprint(last[1].(map[string]any)["applied"]); refused != nil || !strings.Contains(done, "node:a") || !strings.Contains(done, "node:b") {
		t.Errorf("a refused change is in force on %v, and the last one that was done on %v", refused, done)
	}

	// A token that is revoked on A is none on B, and a tenant that is removed there is gone here.
	a.api(t, a.Token, "DELETE", fmt.Sprint("/v1/tokens/", token.body["id"]), nil).want(t, 200)
	harness.Eventually(t, harness.Patience, "the token is no good any more", func() bool { return b.api(t, owner, "GET", "/v1/tenants/acme", nil).code == 401 })
	b.api(t, b.Token, "DELETE", "/v1/tenants/acme", nil).want(t, 200)
	ends(t, conn, "57P01")
	a.api(t, a.Token, "GET", "/v1/tenants/acme", nil).want(t, 404)
}

// TestAPIOfAFile: it can be read, and says what would be needed to change it.
func TestAPIOfAFile(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	if list := g.api(t, g.Token, "GET", "/v1/tenants", nil).want(t, 200).body["tenants"].([]any); len(list) != 1 {
		t.Errorf("%v", list)
	}
	g.api(t, g.Token, "GET", "/v1/tenants/acme/users/"+harness.App, nil).want(t, 200)
	for _, call := range []struct {
		method, path string
		body         any
	}{
		{"PUT", "/v1/tenants/acme", harness.Map{"upstream": harness.Map{"host": "x"}}}, {"PATCH", "/v1/tenants/acme", harness.Map{"require_tls": true}},
		{"DELETE", "/v1/tenants/acme", nil}, {"POST", "/v1/tokens", harness.Map{"name": "x", "scope": "operator"}}, {"DELETE", "/v1/tenants/acme/users/" + harness.App, nil},
	} {
		if got := g.api(t, g.Token, call.method, call.path, call.body).want(t, 409); !strings.Contains(fmt.Sprint(got.body["error"]), "tenants.postgres") {
			t.Errorf("%s %s: %v", call.method, call.path, got.body)
		}
	}
}
