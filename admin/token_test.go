// Tests of who gets in, and that tokens stay out of logs and answers.

package admin

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tokenFile writes a token file and returns its path.
func tokenFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAuthorization(t *testing.T) {
	log, out := logger()
	s, err := New(Options{Gatherer: registry(t), Log: log, TokenFile: tokenFile(t, "# operators\nfirst-token\r\n\n  second-token  \n")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		authorization string
		code          int
	}{
		{"", 401},
		{"Bearer first-token", 200},
		{"Bearer second-token", 200},
		{"bearer first-token", 200}, // schemes have no case (RFC 9110 §11.1)
		{"Bearer  first-token", 200},
		{"Bearer first-token ", 401}, // net/http trims headers that come over the wire; nothing else is trimmed
		{"Bearer first-toke", 401},
		{"Bearer first-tokenn", 401},
		{"Bearer FIRST-TOKEN", 401},
		{"Bearer # operators", 401},
		{"Bearer", 401},
		{"Bearer ", 401},
		{"first-token", 401},
		{"Basic first-token", 401},
		{"Bearer first-token second-token", 401},
		{"Bearer " + strings.Repeat("x", 100_000), 401},
	} {
		w := get(s, "/metrics", tc.authorization)
		if w.Code != tc.code {
			t.Errorf("%.40q: got %d, want %d", tc.authorization, w.Code, tc.code)
		}
		if got := w.Header().Get("WWW-Authenticate"); (got != "") != (tc.code == 401) {
			t.Errorf("%.40q: WWW-Authenticate %q", tc.authorization, got)
		}
		if strings.Contains(w.Body.String(), "-toke") {
			t.Errorf("%.40q: the answer holds a token: %s", tc.authorization, w.Body)
		}
	}
	r := newRequest("GET", "/metrics", nil)
	r.Header["Authorization"] = []string{"Bearer first-token", "Bearer first-token"}
	w := httptest.NewRecorder()
	if s.Handler().ServeHTTP(w, r); w.Code != 401 {
		t.Errorf("two headers: got %d", w.Code)
	}
	if w := get(s, "/metrics?access_token=first-token", ""); w.Code != 401 {
		t.Errorf("token in the URL: got %d", w.Code)
	}
	if strings.Contains(strings.ToLower(out.String()), "-toke") {
		t.Errorf("the log holds a token: %s", out)
	}
	if got := strings.Count(out.String(), "request refused"); got != 1 {
		t.Errorf("%d refusals in the log, want one for all", got)
	}
}

func TestNoTokenConfigured(t *testing.T) {
	s, err := New(Options{Gatherer: registry(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, authorization := range []string{"", "Bearer x"} {
		if w := get(s, "/metrics", authorization); w.Code != 401 || !strings.Contains(w.Body.String(), "none is configured") {
			t.Errorf("%q: got %d %s", authorization, w.Code, w.Body)
		}
	}
}

func TestPublicPathsNeedNoToken(t *testing.T) {
	s, err := New(Options{Gatherer: registry(t), TokenFile: tokenFile(t, "token"), MetricsPublic: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.yaml", "/metrics"} {
		if w := get(s, path, "Bearer wrong"); w.Code != 200 {
			t.Errorf("%s: got %d", path, w.Code)
		}
	}
}

// TestTokenFileChanges: with the next request, not sometime later.
func TestTokenFileChanges(t *testing.T) {
	log, out := logger()
	path := tokenFile(t, "old-token")
	s, err := New(Options{Gatherer: registry(t), TokenFile: path, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, oldCode, newCode int) {
		t.Helper()
		if got := get(s, "/metrics", "Bearer old-token").Code; got != oldCode {
			t.Errorf("%s: old token: got %d, want %d", when, got, oldCode)
		}
		if got := get(s, "/metrics", "Bearer new-token").Code; got != newCode {
			t.Errorf("%s: new token: got %d, want %d", when, got, newCode)
		}
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("at first", 200, 401)
	write("new-token") // the same length, and perhaps the same time
	check("after a change", 401, 200)
	write("new-token\nold-token")
	check("with both", 200, 200)
	write("")
	check("when empty", 503, 503)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("when removed", 503, 503)
	if got := strings.Count(out.String(), "cannot be read"); got != 1 {
		t.Errorf("%d complaints in the log, want one for all: %s", got, out)
	}
	write("new-token")
	check("when back", 401, 200)
}

func TestReadTokensRefuses(t *testing.T) {
	for name, content := range map[string]string{
		"empty":         "",
		"comments":      "# s3cret\n\n",
		"two in a line": "s3cret s3cret2",
		"tab":           "s3cret\ts3cret2",
		"not ASCII":     "s3crét",
		"zero byte":     "s3cret\x00",
		"too large":     strings.Repeat("s3cret\n", maxTokenFile/7+1),
		"long line":     strings.Repeat("s", maxTokenFile),
	} {
		_, err := New(Options{Gatherer: registry(t), TokenFile: tokenFile(t, content)})
		if err == nil || !strings.Contains(err.Error(), "admin.token") {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3c") {
			t.Errorf("%s: the error holds the token: %v", name, err)
		}
	}
}
