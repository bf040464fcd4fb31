// The token: read again when it changes, shown to nobody.

package fly

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

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
	if err := syscall.Mkfifo(path, 0o600); err != nil { // which would hang
		t.Fatal(err)
	}
	get(valid)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("back")
	valid = "Bearer back"
	get(valid)
}
