// The client against handlers that answer anything at all.

package fly

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern/postern/machines"
)

const secret = "fm2_lJPECAAAAAAAAqsXxBAsecretsecret,fm2_lJPETheSecondMacaroon"

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// says answers every call the same.
func says(status int, body string, header ...string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
		for i := 0; i < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
		return resp, nil
	}
}

func tokenIn(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	if o.BaseURL == "" {
		o.BaseURL = "http://_api.internal:4280"
	}
	if o.TokenFile == "" {
		o.TokenFile = tokenIn(t, secret)
	}
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// endless is a body without an end that counts what was read of it.
type endless struct {
	n    int
	fill byte
}

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = e.fill
	}
	e.n += len(b)
	return len(b), nil
}
func (*endless) Close() error { return nil }

func TestAnswersThatAreNone(t *testing.T) {
	good := `{"id":"m","state":"started","events":[{"type":"start","status":"started","timestamp":1,"request":{"x":1}}],"config":{"image":"x"},"new_field":[1]}`
	if i, err := newClient(t, Options{Transport: says(200, good)}).Get(t.Context(), "a", "m"); err != nil || i.State != "started" || len(i.Events) != 1 {
		t.Fatalf("%+v %v", i, err)
	}
	for _, body := range []string{
		"", "<html>It works</html>", "null", "[]", `{"id":"m"}`, `{"id":"other","state":"started"}`, good[:40], good + "x",
		`{"id":7,"state":"started"}`, `{"id":"m","state":"started","events":{}}`, `{"id":"m","state":"started","events":[{"timestamp":"now"}]}`,
	} {
		if i, err := newClient(t, Options{Transport: says(200, body)}).Get(t.Context(), "a", "m"); err == nil || kindOf(err) != machines.Transient {
			t.Errorf("%s: %+v %v", body, i, err)
		}
	}
	if err := newClient(t, Options{Transport: says(200, `{"ok":false}`)}).Wait(t.Context(), "a", "m", WaitFor{State: "started"}); err == nil {
		t.Error("a wait that is not ok")
	}
	for _, status := range []int{200, 500} {
		body := &endless{fill: ' '}
		c := newClient(t, Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Body: body, Header: http.Header{"Fly-Request-Id": {strings.Repeat("i", 1000)}}}, nil
		})})
		if _, err := c.Get(t.Context(), "a", "m"); err == nil || len(err.Error()) > 1000 || body.n > 4*answerLimit {
			t.Errorf("%d: read %d bytes: %v", status, body.n, err)
		}
	}
}

func TestARedirectIsRefused(t *testing.T) {
	visited := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited = true }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/"+r.Header.Get("Authorization"), status)
		}))
		c := newClient(t, Options{BaseURL: api.URL})
		_, err := c.Get(t.Context(), "a", "m")
		if err == nil || visited || leaks(err.Error()) {
			t.Errorf("%d: visited %v: %v", status, visited, err)
		}
		if _, err := c.Start(t.Context(), "a", "m", ""); err == nil || visited {
			t.Errorf("%d: visited %v: %v", status, visited, err)
		}
		c.Close()
		api.Close()
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for base, ok := range map[string]bool{
		"http://_api.internal:4280": true, "https://api.machines.dev": true, "https://api.machines.dev/": true, "http://127.0.0.1:1": true, "http://[fdaa::3]:4280": true,
		"": false, "api.machines.dev": false, "http://api.machines.dev": false, "ftp://x": false, "https://u:pw@x": false, "https://x/v1": false, "https://x?y": false,
		"https://": false, "https://:443": false, "http://10.1.2.3": true, "http://8.8.8.8": false, "http://internal": false, "http://[::1": false,
	} {
		_, err := NewClient(Options{BaseURL: base, TokenFile: tokenIn(t, "x")})
		if (err == nil) != ok || (err != nil && strings.Contains(err.Error(), "pw")) {
			t.Errorf("%q: %v", base, err)
		}
	}
	for _, content := range []string{"", " \n", "Bearer ", "a b", "a\nb", "a\x00b", "caf\xc3\xa9", strings.Repeat("x", tokenLimit+1)} {
		if _, err := NewClient(Options{BaseURL: "https://x", TokenFile: tokenIn(t, content)}); err == nil || strings.Contains(err.Error(), "caf") {
			t.Errorf("token %.20q: %v", content, err)
		}
	}
	if _, err := NewClient(Options{BaseURL: "https://x", TokenFile: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	c := newClient(t, Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		t.Errorf("asked %s", r.URL)
		return nil, errors.New("no")
	})})
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a?b", "a b", "é", strings.Repeat("x", 64)} {
		if _, err := NewMachine(c, MachineOptions{App: name, ID: "m", Port: 1}); err == nil {
			t.Errorf("app %q", name)
		}
		if _, err := NewMachine(c, MachineOptions{App: "a", ID: name, Port: 1}); err == nil {
			t.Errorf("id %q", name)
		}
		if _, err := c.Get(t.Context(), name, "m"); err == nil {
			t.Errorf("get of %q", name)
		}
	}
	if _, err := NewMachine(c, MachineOptions{App: "a", ID: "m"}); err == nil {
		t.Error("no port")
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`{"id":"m","state":"started","events":[{"type":"start","status":"started","timestamp":1}]}`))
	f.Add(409, []byte(`{"error":"x","message":7,"status":[]}`))
	f.Add(500, []byte("<html>\xff"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		c := newClient(t, Options{Transport: says(status, string(body))})
		m, err := NewMachine(c, MachineOptions{App: "a", ID: "m", Port: 1})
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.State(t.Context())
		if err == nil && status/100 != 2 {
			t.Errorf("%d is %v", status, s)
		}
		if err != nil && (len(err.Error()) > 3*messageLimit+len("machine") && status/100 != 2 || strings.ContainsAny(err.Error(), "\n\r\x00")) {
			t.Errorf("%q", err.Error())
		}
	})
}
