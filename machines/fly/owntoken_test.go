// A machine's own token: it takes the place of the token of all, as it is at each call.

package fly

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/postern/postern/machines"
)

func TestAMachinesOwnToken(t *testing.T) {
	var seen []string
	var log bytes.Buffer
	own, valid, rotate := "", "Bearer of-all", func() {}
	answer := roundTrip(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.Header.Get("Authorization"))
		if seen[len(seen)-1] != valid {
			rotate()
			return says(401, fmt.Sprintf(`{"error":"%s is not authorized"}`, seen[len(seen)-1]))(r)
		}
		return says(200, `{"id":"m","state":"started"}`)(r)
	})
	o := Options{Transport: answer, TokenFile: tokenIn(t, "of-all"), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	all := newClient(t, o)
	m, err := NewMachine(all.WithToken(func() string { return own }), MachineOptions{App: "a", ID: "m", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	state := func(kind machines.Kind, want ...string) {
		t.Helper()
		seen = nil
		_, err := m.State(t.Context())
		if !slices.Equal(seen, want) || (err == nil) != (len(want) > 0 && want[len(want)-1] == valid) || err != nil && machines.KindOf(err) != kind {
			t.Errorf("sent %q, want %q: %v", seen, want, err)
		}
		fmt.Fprintf(&said, "%v %+v %#v %+v\n", err, err, err, m)
	}
	state(0, "Bearer of-all")
	own, valid = "FlyV1 fm2_secretsecret-1", "FlyV1 fm2_secretsecret-1"
	state(0, valid)
	own, valid = "fm2_secretsecret-2", "FlyV1 fm2_secretsecret-2" // rotated: from the next call on
	state(0, valid)
	valid = "FlyV1 fm2_secretsecret-3"
	state(machines.Auth, "FlyV1 fm2_secretsecret-2") // once, for it is what it was
	rotate = func() { own = "fm2_secretsecret-3" }   // while the call is under way
	state(0, "FlyV1 fm2_secretsecret-2", valid)
	own, valid, rotate = "Bearer secretsecret-4", "Bearer secretsecret-4", func() {}
	state(0, valid)
	own = "secretsecret secretsecret" // which no store lets pass
	state(machines.Auth)
	own, valid = "", "Bearer of-all" // taken away
	state(0, valid)
	if _, err := all.Get(t.Context(), "a", "m"); err != nil {
		t.Errorf("the others' token: %v", err)
	}

	// Without a token for all.
	none, err := NewClient(Options{BaseURL: "http://_api.internal:4280", Transport: answer, Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	if m, err = NewMachine(none.WithToken(func() string { return own }), MachineOptions{App: "a", ID: "m", Port: 1}); err != nil {
		t.Fatal(err)
	}
	state(machines.Auth) // nothing is sent
	own, valid = "secretsecret-5", "Bearer secretsecret-5"
	state(0, valid)
	valid, rotate = "nothing", func() { own = "" } // taken away while it was refused
	state(machines.Auth, "Bearer secretsecret-5")
	if leaks(said.String()) || leaks(log.String()) {
		t.Errorf("%s\n%s", &said, &log)
	}
}
