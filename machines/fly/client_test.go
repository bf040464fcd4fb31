// The client against handlers that answer anything at all.

package fly

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/test/fakefly"
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

func TestRefusalsMeanSomething(t *testing.T) {
	for _, tt := range []struct {
		op     string
		status int
		body   string
		want   machines.Kind
	}{
		{opGet, 401, `{"error":"unauthorized"}`, machines.Auth},
		{opStart, 403, `{"error":"insufficient resources for you"}`, machines.Auth},
		{opGet, 404, `{"error":"machine not found"}`, machines.Gone},
		{opGet, 410, ``, machines.Gone},
		{opStart, 429, `{"error":"rate limit exceeded"}`, machines.RateLimited},
		{opStart, 408, `{"error":"deadline_exceeded: request timed out"}`, machines.Unreachable},
		{opStart, 409, `{"status":"error","message":"machine ID 9080e6f1 lease currently held by a@b, expires at x"}`, machines.Busy},
		{opStart, 409, `{"error":"current_version does not match"}`, machines.Busy},
		{opStart, 409, `{"error":"something new"}`, machines.Busy},
		{opStart, 409, `{"error":"aborted: could not reserve resource for machine: insufficient memory available to fulfill request"}`, machines.Capacity},
		{opStart, 409, `{"error":"aborted: could not reserve resource for machine: insufficient CPUs available to fulfill request on the current host"}`, machines.Capacity},
		{opStart, 409, `{"error":"insufficient resources available"}`, machines.Capacity},
		{opStart, 409, `{"error":"governor policy blocked start"}`, machines.Capacity},
		{opStart, 409, `{"error":"deploys to this host are temporarily disabled"}`, machines.Capacity},
		{opStop, 409, `{"error":"unable to stop machine, not currently started"}`, machines.Busy},
		{opStart, 412, `{"error":"failed_precondition: machine still active, refusing to start"}`, machines.Busy},
		{opStart, 412, `{"error":"failed_precondition: unable to start machine from current state: 'created'"}`, machines.Busy},
		{opStart, 412, `{"error":"x","status":"volume_placement_capacity"}`, machines.Capacity},
		{opStart, 412, `{"error":"not enough capacity"}`, machines.Capacity},
		{opStart, 412, `{"error":"volume vol_1 in use"}`, machines.Busy},
		{opStart, 412, `{"error":"something new"}`, machines.Transient},
		{opStart, 422, `{"error":"no room","status":"insufficient_capacity"}`, machines.Capacity},
		{opStart, 422, `{"error":"your organization has reached its machine limit"}`, machines.Capacity},
		{opStart, 422, `{"error":"invalid"}`, machines.Transient},
		{opStart, 500, `{"error":"insufficient resources available"}`, machines.Capacity},
		{opStart, 500, `{"error":"internal"}`, machines.Transient},
		{opStart, 502, `<html>Bad Gateway</html>`, machines.Transient},
		{opStart, 503, ``, machines.Transient},
		{opStart, 400, `{"error":{"nested":"object"},"status":7}`, machines.Transient},
		{opStart, 302, `moved`, machines.Transient},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.body), func(t *testing.T) {
			c := newClient(t, Options{Transport: says(tt.status, tt.body, "fly-request-id", "01REQ-fra", "Retry-After", "7")})
			var err error
			switch tt.op {
			case opGet:
				_, err = c.Get(t.Context(), "a", "m")
			case opStart:
				_, err = c.Start(t.Context(), "a", "m")
			case opStop:
				err = c.Stop(t.Context(), "a", "m")
			}
			var refused *APIError
			if !errors.As(err, &refused) {
				t.Fatalf("%v", err)
			}
			if refused.Kind() != tt.want || refused.Status != tt.status || refused.RequestID != "01REQ-fra" || refused.After != 7*time.Second {
				t.Errorf("%v: %+v", refused.Kind(), refused)
			}
			if !strings.Contains(err.Error(), "01REQ-fra") || len(err.Error()) > 2*messageLimit {
				t.Error(err)
			}
		})
	}
}

func TestSuspendIneligible(t *testing.T) {
	for body, want := range map[string]bool{
		`{"error":"machine has swap enabled"}`:                                     true,
		`{"error":"Machines with a Schedule cannot be suspended"}`:                 true,
		`{"error":"suspend is not supported for GPU machines"}`:                    true,
		`{"error":"unable to suspend machine from current state: 'stopped'"}`:      false,
		`{"status":"error","message":"lease currently held by schedule"}`:          false,
		`{"error":"insufficient memory available to fulfill request"}`:             false,
		`{"error":"failed_precondition: something that nobody has thought about"}`: false,
	} {
		c := newClient(t, Options{Transport: says(412, body)})
		if got := ineligible(c.Suspend(t.Context(), "a", "m")); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "30": 30 * time.Second, "999999999": maxAfter, "soon": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Thu, 01 Jan 2026 00:00:00 GMT": 0,
	} {
		if got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {value}}}, now); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
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
		if _, err := c.Start(t.Context(), "a", "m"); err == nil || visited {
			t.Errorf("%d: visited %v: %v", status, visited, err)
		}
		c.Close()
		api.Close()
	}
}

// leaks tells whether a text holds any part of the secret.
func leaks(text string) bool {
	return strings.Contains(text, "fm2_") || strings.Contains(text, "secretsecret") || strings.Contains(text, "Macaroon")
}

func TestTheTokenIsNowhere(t *testing.T) {
	var log bytes.Buffer
	var results []string
	var sent string
	c := newClient(t, Options{
		Log:    slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnCall: func(op, result string) { results = append(results, op+" "+result) },
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = r.Header.Get("Authorization")
			first, second, _ := strings.Cut(secret, ",")
			switch r.URL.Path {
			case "/v1/apps/a/machines/json":
				return says(400, fmt.Sprintf(`{"error":"bad token %s","status":%q}`, secret, second), "fly-request-id", first)(r)
			case "/v1/apps/a/machines/text":
				return says(500, strings.Repeat("x", messageLimit-10)+sent, "Retry-After", sent)(r)
			case "/v1/apps/a/machines/wrong":
				return says(200, `{"id":"`+second+`","state":"x"}`)(r)
			}
			return nil, errors.New("no route")
		}),
	})
	var said strings.Builder
	for _, id := range []string{"json", "text", "wrong", "none"} {
		_, err := c.Get(t.Context(), "a", id)
		if err == nil {
			t.Fatal(id)
		}
		m, _ := NewMachine(c, MachineOptions{App: "a", ID: id, Port: 1})
		_, wrapped := m.State(t.Context())
		fmt.Fprintf(&said, "%v %+v %#v %v\n", err, err, err, wrapped)
	}
	if sent != "FlyV1 "+secret {
		t.Errorf("the token was not sent but %q", sent)
	}
	tok, err := c.token.current()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(map[string]any{"t": tok})
	fmt.Fprintf(&said, "%v %+v %#v %s %q %x %d %s %v %+v %v", tok, tok, tok, tok, tok, tok, tok, text, c.token, c, slog.AnyValue(tok).Resolve())
	if leaks(said.String()) || leaks(log.String()) || strings.Contains(said.String(), fmt.Sprintf("%x", "secret")) {
		t.Errorf("%s\n%s", &said, &log)
	}
	if !slices.Contains(results, "get transient") || !strings.Contains(log.String(), `"machine":"text"`) {
		t.Errorf("%q %s", results, &log)
	}
}

func TestTheTokenFileIsReadAgain(t *testing.T) {
	path := tokenIn(t, "FlyV1 fm2_first\n")
	var mu sync.Mutex
	var seen []string
	valid := "FlyV1 fm2_first"
	c := newClient(t, Options{TokenFile: path, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Header.Get("Authorization"))
		if seen[len(seen)-1] != valid {
			return says(401, `{"error":"unauthorized"}`)(r)
		}
		return says(200, `{"id":"m","state":"started"}`)(r)
	})})
	get := func(want ...string) {
		t.Helper()
		seen = nil
		_, err := c.Get(t.Context(), "a", "m")
		if !slices.Equal(seen, want) || (err == nil) != (seen[len(seen)-1] == valid) {
			t.Errorf("sent %q, want %q: %v", seen, want, err)
		}
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	get("FlyV1 fm2_first")
	write("plain-and-longer")
	valid = "Bearer plain-and-longer"
	get(valid)
	// A change that the file's times do not show is found when the token is refused.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write("plain-and-LONGER")
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	valid = "Bearer plain-and-LONGER"
	get("Bearer plain-and-longer", valid)
	// Refused for good: asked once, not in a circle.
	valid = "nothing"
	get("Bearer plain-and-LONGER")
	// Away or spoilt: the last good one is used.
	valid = "Bearer plain-and-LONGER"
	write("two words")
	get(valid)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	get(valid)
	write("back")
	valid = "Bearer back"
	get(valid)
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

func TestList(t *testing.T) {
	s := fakefly.New(t, fakefly.Options{})
	s.AddMachine("a", "one", fakefly.NewMemory())
	s.AddMachine("a", "two", fakefly.NewMemory())
	s.AddMachine("b", "three", fakefly.NewMemory())
	c := newClient(t, Options{BaseURL: s.URL, TokenFile: s.TokenFile()})
	all, err := c.List(t.Context(), "a")
	if err != nil || len(all) != 2 || all[0].ID != "one" || all[1].State != "stopped" {
		t.Errorf("%+v %v", all, err)
	}
	if _, err := c.List(t.Context(), "none"); kindOf(err) != machines.Gone {
		t.Error(err)
	}
}

func TestABurstStaysInsideTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakefly.New(t, fakefly.Options{NoSocket: true})
		s.AddMachine("a", "m", fakefly.NewMemory())
		s.AddMachine("a", "n", fakefly.NewMemory())
		results := map[string]int{}
		var mu sync.Mutex
		c := newClient(t, Options{BaseURL: s.URL, TokenFile: s.TokenFile(), Transport: s.Transport(), OnCall: func(op, result string) {
			mu.Lock()
			defer mu.Unlock()
			results[op+" "+result]++
		}})
		began := time.Now()
		var wg sync.WaitGroup
		for range 30 {
			for _, id := range []string{"m", "n"} {
				wg.Go(func() { _, _ = c.Start(t.Context(), "a", id) })
				wg.Go(func() { _, _ = c.Get(t.Context(), "a", id) })
			}
		}
		wg.Wait()
		if took := time.Since(began); took < 27*time.Second || took > 31*time.Second {
			t.Errorf("30 starts took %v", took)
		}
		want := map[string]int{"start ok": 2, "start busy": 58, "get ok": 60}
		for k, n := range want {
			if results[k] != n {
				t.Errorf("%v, want %v", results, want)
				break
			}
		}
		// Whoever cannot wait for the turn is told so, and has spent nothing.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		for range 4 {
			_, _ = c.Start(t.Context(), "a", "m")
		}
		n := s.Count(fakefly.Start, "m")
		if _, err := c.Start(ctx, "a", "m"); !errors.Is(err, context.DeadlineExceeded) || s.Count(fakefly.Start, "m") != n {
			t.Error(err)
		}
	})
}

func TestTheBudgetForgetsFullBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		for i := range 100 * sweepAt {
			if err := b.take(t.Context(), spender{"a", fmt.Sprint(i), opStart}); err != nil {
				t.Fatal(err)
			}
			if i%sweepAt == 0 {
				time.Sleep(time.Minute)
			}
		}
		if n := len(b.buckets); n > 3*sweepAt {
			t.Errorf("%d buckets", n)
		}
	})
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
