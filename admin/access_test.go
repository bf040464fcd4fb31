// Tests of who may do what: every route by every kind of caller, from the list of routes.

package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// anUpstream is a tenant that is complete.
func anUpstream(id string) *tenants.Tenant {
	t := tenants.New(id)
	t.Upstream.Host = "10.1.2.3"
	t.Users["app"] = &tenants.User{Name: "app", Password: tenants.NewSecret("s3cret-app"), ServerUser: "secret_role", ServerPassword: tenants.NewSecret("s3cret-server")}
	t.Complete()
	return t
}

// world is a server with a store of two tenants, and tokens of every kind.
type world struct {
	t     testing.TB
	store *memory
	gate  *fakeGate
	log   *strings.Builder
	*Server
	tokens map[string]string // by kind
	called string            // the Host of requests; "": newRequest's
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: newMemory(anUpstream("acme"), anUpstream("globex")), gate: &fakeGate{view: awake()}, log: new(strings.Builder), tokens: map[string]string{"file": operator}}
	s, err := New(Options{Gatherer: gatherer(func() {}), TokenFile: tokenFile(t, operator), Gate: w.gate, Registry: w.store, Hosts: []string{"postern.example.com"},
		Log: slog.New(slog.NewTextHandler(w.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.Server = s
	for kind, token := range map[string]tenants.Token{
		"operator": {Scope: tenants.ScopeOperator}, "metrics": {Scope: tenants.ScopeMetrics},
		"read": {Scope: tenants.ScopeRead, Tenant: "acme"}, "write": {Scope: tenants.ScopeWrite, Tenant: "acme"},
		"other read": {Scope: tenants.ScopeRead, Tenant: "globex"}, "other write": {Scope: tenants.ScopeWrite, Tenant: "globex"},
		"nobody's": {Scope: tenants.ScopeWrite}, "strange": {Scope: "everything"},
		"expired": {Scope: tenants.ScopeOperator, Expires: time.Now().Add(-time.Second)}, "revoked": {Scope: tenants.ScopeOperator},
	} {
		token.Name = kind
		w.tokens[kind] = "postern_" + fmt.Sprintf("%040x", sha256.Sum256([]byte(kind)))[:40]
		made, err := w.store.AddToken(t.Context(), tenants.Actor{}, token, sha256.Sum256([]byte(w.tokens[kind])))
		if err != nil {
			t.Fatal(err)
		}
		if kind == "revoked" {
			if err := w.store.RevokeToken(t.Context(), tenants.Actor{}, "", made.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.tokens["none"], w.tokens["wrong"], w.tokens["malformed"] = "", "postern_"+strings.Repeat("0", 40), "n0-token"
	w.store.entries = nil
	return w
}

// ask sends a request by a kind of caller, and checks that it tells no secret.
func (w *world) ask(kind, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	r := newRequest(method, path, from)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	token, ok := w.tokens[kind]
	if !ok {
		w.t.Fatalf("no token %q", kind)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Host = cmp.Or(w.called, r.Host)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	out := httptest.NewRecorder()
	w.Handler().ServeHTTP(out, r)
	all := out.Body.String() + w.log.String() + fmt.Sprint(out.Header())
	if strings.Contains(all, "s3cret") || token != "" && strings.Contains(all, token) {
		w.t.Errorf("%s %s by %s tells a secret: %s", method, path, kind, all)
	}
	return out
}

// expected is what somebody gets from a route: 0 for what is behind the frame.
func expected(r route, kind string) int {
	scope, known := map[string]tenants.Scope{"file": tenants.ScopeOperator, "operator": tenants.ScopeOperator, "metrics": tenants.ScopeMetrics,
		"read": tenants.ScopeRead, "write": tenants.ScopeWrite, "other read": tenants.ScopeRead, "other write": tenants.ScopeWrite,
		"nobody's": tenants.ScopeWrite, "strange": "everything"}[kind]
	ofTenant := scope == tenants.ScopeRead || scope == tenants.ScopeWrite
	switch {
	case r.who == everybody:
		return 0
	case !known:
		return http.StatusUnauthorized
	case ofTenant && strings.Contains(r.path, "{id}") && kind != "read" && kind != "write":
		return http.StatusNotFound
	case !slices.Contains(r.who.scopes(), scope) || ofTenant && !strings.Contains(r.path, "{id}"):
		return http.StatusForbidden
	}
	return 0
}

// TestEveryRouteByEveryCaller: what is behind the frame answers something else, and only then is anything asked.
func TestEveryRouteByEveryCaller(t *testing.T) {
	w := newWorld(t)
	for _, r := range w.routes() {
		for kind := range w.tokens {
			w.Server.tokens.of, w.strangers.of = nil, nil // this is not about rates
			path := strings.NewReplacer("{id}", "acme", "{name}", "app", "{token}", "0", "{node}", "a").Replace(r.path)
			w.gate.calls, w.store.entries = nil, nil
			before := w.store.version
			// A body that no route takes, so that whoever is let through is refused for that, and nothing changes.
			got := w.ask(kind, r.method, path+"?nothing=1", `{"nothing":1}`)
			want := expected(r, kind)
			frame := got.Code == 401 || got.Code == 403 || got.Code == 404
			if want != 0 && got.Code != want || want == 0 && frame {
				t.Errorf("%s %s by %s: got %d %s, want %d", r.method, r.path, kind, got.Code, got.Body, want)
			}
			if len(w.gate.calls) > 0 && want != 0 || w.store.version != before {
				t.Errorf("%s %s by %s: something was done: %v", r.method, r.path, kind, w.gate.calls)
			}
			if (got.Code == 401) != (got.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("%s %s by %s: %v", r.method, r.path, kind, got.Header())
			}
			// Whom we know is written down when a change is refused, and nobody else is.
			refused := want != http.StatusUnauthorized && r.who != everybody && r.method != "GET" && got.Code >= 400 && got.Code < 500
			if (len(w.store.entries) == 1) != refused || refused && (w.store.entries[0].Action != r.name || w.store.entries[0].Outcome == "" ||
				w.store.entries[0].By.Name == "" || w.store.entries[0].By.Request != got.Header().Get("X-Request-Id")) {
				t.Errorf("%s %s by %s, %d: written down: %+v", r.method, r.path, kind, got.Code, w.store.entries)
			}
		}
	}
}

// TestOthersDoNotExist: what one tenant's token gets of another one is what it gets of none, but for the request's id.
func TestOthersDoNotExist(t *testing.T) {
	w := newWorld(t)
	for _, r := range w.routes() {
		if !strings.Contains(r.path, "{id}") || r.who == everybody {
			continue
		}
		for _, kind := range []string{"read", "write"} {
			var answers []string
			for _, id := range []string{"globex", "nobody", "NOBODY"} {
				path := strings.NewReplacer("{id}", id, "{name}", "app").Replace(r.path)
				got := w.ask(kind, r.method, path, "", "X-Request-Id", "x")
				got.Header().Del("X-RateLimit-Remaining")
				got.Header().Del("X-RateLimit-Reset")
				answers = append(answers, fmt.Sprint(got.Code, got.Body, got.Header()))
			}
			if answers[0] != answers[1] || answers[0] != answers[2] || !strings.HasPrefix(answers[0], "404") {
				t.Errorf("%s %s by %s: %q", r.method, r.path, kind, answers)
			}
		}
	}
}

// TestRouteNames: the audit log can tell one from the other.
func TestRouteNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range newWorld(t).routes() {
		if r.name == "" || seen[r.name] {
			t.Errorf("%s %s: name %q", r.method, r.path, r.name)
		}
		seen[r.name] = true
	}
}

func TestStoreThatIsAway(t *testing.T) {
	w := newWorld(t)
	w.store.away = fmt.Errorf("dial 10.1.2.3: %w", tenants.ErrAway)
	for kind, want := range map[string]int{"file": 503, "operator": 503, "wrong": 503, "malformed": 401} {
		got := w.ask(kind, "GET", "/v1/tenants/acme", "")
		if got.Code != want || strings.Contains(got.Body.String(), "10.1.2.3") {
			t.Errorf("%s: %d %s", kind, got.Code, got.Body)
		}
	}
	if got := w.ask("file", "GET", "/v1/tenants/acme/machine", ""); got.Code != 200 {
		t.Errorf("a token of the file: %d", got.Code)
	}
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	for host, want := range map[string]int{"127.0.0.1": 200, "127.0.0.1:9187": 200, "[::1]:9187": 200, "[::1]": 200, "localhost:9187": 200, "postern": 200, "": 200, "x.vm.postern.internal:9187": 200, "internal.evil.com": 421, "evilinternal.com": 421, ".internal.com": 421,
		"postern.example.com": 200, "Postern.Example.com.:80": 200, "evil.example.com": 421, "postern.example.com.evil.com": 421, "127.0.0.1.evil.com:9187": 421,
		"evil.com@127.0.0.1": 421} {
		for _, path := range []string{"/v1/tenants", "/healthz", "/readyz", "/metrics"} {
			r := newRequest("GET", path, nil)
			r.Host = host
			r.Header.Set("Authorization", "Bearer "+operator)
			out := httptest.NewRecorder()
			w.Handler().ServeHTTP(out, r)
			expect := want
			if path == "/healthz" || path == "/readyz" {
				expect = 200
			}
			if out.Code != expect {
				t.Errorf("%s at %q: %d", path, host, out.Code)
			}
		}
	}
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	seen := make(map[string]bool)
	for given, kept := range map[string]bool{"": false, "abc-1._Z": true, "a b": false, "a\"b": false, "-a": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "ä": false} {
		got := w.ask("file", "POST", "/v1/tenants/acme/pause", "", "X-Request-Id", given)
		id := got.Header().Get("X-Request-Id")
		if (id == given) != kept || seen[id] || !safeID.MatchString(id) || !strings.Contains(w.log.String(), "request="+id+"\n") {
			t.Errorf("%q became %q; log: %s", given, id, w.log)
		}
		seen[id] = true
	}
}

// TestRates: whoever asks too often is told when to come again; one token does not use up another's.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range ownerCalls {
			got := w.ask("read", "GET", "/v1/tenants/acme", "")
			if got.Code != 200 || got.Header().Get("X-RateLimit-Limit") != "120" || got.Header().Get("X-RateLimit-Remaining") != strconv.Itoa(ownerCalls-1-i) {
				t.Fatalf("%d: %d, %v", i, got.Code, got.Header())
			}
		}
		got := w.ask("read", "GET", "/v1/tenants/acme", "")
		if got.Code != 429 || got.Header().Get("Retry-After") != "1" || got.Header().Get("X-RateLimit-Reset") != "60" {
			t.Fatalf("%d %s, %v", got.Code, got.Body, got.Header())
		}
		for _, kind := range []string{"write", "file", "operator"} {
			if got := w.ask(kind, "GET", "/v1/tenants/acme", ""); got.Code != 200 {
				t.Errorf("%s: %d", kind, got.Code)
			}
		}
		time.Sleep(time.Second)
		if got := w.ask("read", "GET", "/v1/tenants/acme", ""); got.Code != 200 {
			t.Errorf("later: %d", got.Code)
		}
	})
}

// TestGuesses: the store is not asked for ever, nobody who has shown a good token is locked out with a guesser, and a token that
// cannot be one is not looked up at all.
func TestGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ask("read", "GET", "/v1/tenants/acme", "")
		guess := func(i int) int {
			w.tokens["guess"] = fmt.Sprintf("sbp_%040x", i)
			return w.ask("guess", "GET", "/v1/tenants/acme", "").Code
		}
		for i := range wrongTokens {
			if code := guess(i); code != 401 {
				t.Fatalf("%d: %d", i, code)
			}
		}
		asked := w.store.finds
		for i := range 100 {
			if code := guess(1000 + i); code != 429 {
				t.Fatalf("%d: %d", i, code)
			}
		}
		if w.store.finds != asked {
			t.Error("the store was asked")
		}
		if code := w.ask("write", "GET", "/v1/tenants/acme", "").Code; code != 429 {
			t.Errorf("one that was not seen: %d", code)
		}
		for _, kind := range []string{"read", "file"} {
			if code := w.ask(kind, "GET", "/v1/tenants/acme", "").Code; code != 200 {
				t.Errorf("%s: %d", kind, code)
			}
		}
		asked = w.store.finds
		if code := w.ask("malformed", "GET", "/v1/tenants/acme", "").Code; code != 401 || w.store.finds != asked {
			t.Errorf("malformed: %d", code)
		}
		time.Sleep(time.Second)
		if code := guess(0); code != 401 {
			t.Errorf("later: %d", code)
		}
	})
}

// TestRevokedGuesses: a token that was good once is a wrong one like any other.
func TestRevokedGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ask("read", "GET", "/v1/tenants/acme", "")
		for digest, token := range w.store.tokens {
			if token.Name == "read" {
				delete(w.store.tokens, digest)
			}
		}
		for i := range wrongTokens {
			if code := w.ask("read", "GET", "/v1/tenants/acme", "").Code; code != 401 {
				t.Fatalf("%d: %d", i, code)
			}
		}
		asked := w.store.finds
		if code := w.ask("read", "GET", "/v1/tenants/acme", "").Code; code != 429 || w.store.finds != asked {
			t.Errorf("%d, and the store was asked %d times more", code, w.store.finds-asked)
		}
	})
}

// TestHangingUpIsWrittenDown: who leaves before the answer is in the audit log all the same.
func TestHangingUpIsWrittenDown(t *testing.T) {
	w := newWorld(t)
	hangUp := func(method, path string, at func(cancel func())) {
		ctx, cancel := context.WithCancel(t.Context())
		at(cancel)
		r := newRequest(method, path, nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+w.tokens["write"])
		w.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}
	hangUp("DELETE", "/v1/tenants/acme/sessions", func(cancel func()) { w.gate.done = cancel })
	hangUp("DELETE", "/v1/tenants/acme", func(cancel func()) { w.store.found = cancel })
	var outcomes []string
	for _, e := range w.store.entries {
		outcomes = append(outcomes, e.Action+": "+e.Outcome)
	}
	if got := strings.Join(outcomes, "; "); got != "session.end_all: done; tenant.delete: a token of scope tenant:write may not do this" {
		t.Errorf("audit: %q", got)
	}
}

// TestMetersAreBounded: who comes last pushes out somebody who has used little.
func TestMetersAreBounded(t *testing.T) {
	var m meters[int, *meter]
	busy := m.get(-1, func() *meter { return newMeter(tenants.ScopeRead) })
	for range ownerCalls {
		busy.calls.Allow()
	}
	for i := range 3 * maxMeters {
		m.get(i, func() *meter { return newMeter(tenants.ScopeRead) })
	}
	if len(m.of) != maxMeters {
		t.Errorf("%d meters", len(m.of))
	}
	if !m.has(-1) {
		t.Error("the one that is used up was forgotten")
	}
}

// TestRefusalsAreBounded: nobody fills the audit log.
func TestRefusalsAreBounded(t *testing.T) {
	w := newWorld(t)
	for range ownerCalls {
		w.ask("read", "DELETE", "/v1/tenants/acme", "")
	}
	if n := len(w.store.entries); n != refusalsKept {
		t.Errorf("%d refusals, want %d", n, refusalsKept)
	}
	w = newWorld(t)
	for range ownerCalls { // what the store finds out
		w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"pool":{"size":-1}}`).is(422)
	}
	if n := len(w.store.entries); n != refusalsKept {
		t.Errorf("%d refusals by the store, want %d", n, refusalsKept)
	}
	w.store.away = errors.New("gone")
	if got := w.ask("file", "DELETE", "/v1/tenants/acme", `{"a":1}`); got.Code != 400 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}
