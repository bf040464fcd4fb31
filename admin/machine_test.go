// Tests of a machine's JSON.

package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// awake is a machine of which everything is known, with times that are not in UTC.
func awake() Machine {
	at := time.Date(2026, 3, 1, 14, 0, 0, 250e6, time.FixedZone("", 2*60*60))
	return Machine{
		Tenant: "acme", Provider: "local", Name: "local/acme", State: "ready", Since: at,
		Error:        "the last wake was slow",
		Generation:   Generation{Instance: "i-1", Started: at, Epoch: 3},
		AwakeBecause: []string{"2 clients in session mode", "1 server connection in use"},
		SuspendAfter: 10 * time.Second, SuspendsAt: at.Add(10 * time.Second),
		WaitingClients: 4, Paused: true,
		LastWake:    Transition{at, "client", "ok", 410 * time.Millisecond},
		LastSuspend: Transition{at, "idle", "ok", 0},
	}
}

const awakeJSON = `{"tenant":"acme","provider":"local","machine":"local/acme","state":"ready","since":"2026-03-01T12:00:00.25Z",` +
	`"error":"the last wake was slow","generation":{"instance":"i-1","started":"2026-03-01T12:00:00.25Z","epoch":3},` +
	`"awake_because":["2 clients in session mode","1 server connection in use"],"suspend_after_seconds":10,` +
	`"suspends_at":"2026-03-01T12:00:10.25Z","waiting_clients":4,"paused":true,` +
	`"last_wake":{"at":"2026-03-01T12:00:00.25Z","reason":"client","result":"ok","seconds":0.41},` +
	`"last_suspend":{"at":"2026-03-01T12:00:00.25Z","reason":"idle","result":"ok","seconds":0}}`

func TestMachineJSON(t *testing.T) {
	for name, tc := range map[string]struct {
		m    Machine
		want string
	}{
		"full": {awake(), awakeJSON},
		"bare": {Machine{Tenant: "acme", Provider: "fly", Name: "fly/acme-db/9080e6f1", State: "unknown"},
			`{"tenant":"acme","provider":"fly","machine":"fly/acme-db/9080e6f1","state":"unknown","since":null,"error":null,` +
				`"generation":null,"awake_because":[],"suspend_after_seconds":null,"suspends_at":null,"waiting_clients":0,"paused":false,` +
				`"last_wake":null,"last_suspend":null}`},
		"run without a name": {Machine{Tenant: "acme", Provider: "fly", Name: "fly/a/b", State: "waking", Generation: Generation{Epoch: 1}},
			`{"tenant":"acme","provider":"fly","machine":"fly/a/b","state":"waking","since":null,"error":null,` +
				`"generation":{"instance":null,"started":null,"epoch":1},"awake_because":[],"suspend_after_seconds":null,"suspends_at":null,` +
				`"waiting_clients":0,"paused":false,"last_wake":null,"last_suspend":null}`},
	} {
		got, err := json.Marshal(tc.m)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: (%v)\ngot  %s\nwant %s", name, err, got, tc.want)
		}
		loadSchemas(t).checkAnswer(t, "GET", "/v1/tenants/{id}/machine", 200, got)
	}
}

// TestStatesAreDocumented: each one passes the document, and no other word does.
func TestStatesAreDocumented(t *testing.T) {
	s := loadSchemas(t)
	schema := map[string]any{"$ref": "#/components/schemas/Machine"}
	for _, state := range strings.Fields("unknown asleep waking ready draining suspending failed other") {
		m := awake()
		m.State = state
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.check(schema, decode(t, body)); (err == nil) != (state != "other") {
			t.Errorf("%s: %v", state, err)
		}
	}
}
