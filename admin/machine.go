// A tenant's machine, as the API shows it.

package admin

import (
	"encoding/json"
	"time"
)

// Machine is what is known of a tenant's machine. Zero values are absent ones, null in JSON. It has no field for an address,
// and no text in it may hold one: who needs addresses reads the log.
type Machine struct {
	Tenant   string
	Provider string // local or fly
	Name     string // the machine's own, with its provider: local/acme
	// State is one of unknown, asleep, waking, ready, draining, suspending, failed.
	State string
	Since time.Time // of State
	Error string    // what went wrong last, while that matters
	// Generation is the run that connections are made to.
	Generation Generation
	// AwakeBecause lists what keeps the machine awake, for people.
	AwakeBecause []string
	// SuspendAfter is how long the machine stays awake unused; 0: for ever.
	SuspendAfter time.Duration
	SuspendsAt   time.Time // when it will be suspended if nothing happens
	// WaitingClients counts the clients that wait for the machine.
	WaitingClients int
	Paused         bool
	LastWake       Transition
	LastSuspend    Transition
}

// Generation tells one run of a machine from the next.
type Generation struct {
	Instance string    // the provider's name for it
	Started  time.Time // of its last start or resume
	Epoch    uint64    // our own count of runs
}

// Transition is a wake or a suspend that has ended. It is absent if At is zero.
type Transition struct {
	At     time.Time     // of its end
	Reason string        // one word, such as client or idle
	Result string        // ok, or in one word what went wrong
	Took   time.Duration // from its beginning to At
}

// MarshalJSON encodes m as openapi.yaml describes it.
func (m Machine) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Tenant         string     `json:"tenant"`
		Provider       string     `json:"provider"`
		Machine        string     `json:"machine"`
		State          string     `json:"state"`
		Since          *string    `json:"since"`
		Error          *string    `json:"error"`
		Generation     Generation `json:"generation"`
		AwakeBecause   []string   `json:"awake_because"`
		SuspendAfter   *float64   `json:"suspend_after_seconds"`
		SuspendsAt     *string    `json:"suspends_at"`
		WaitingClients int        `json:"waiting_clients"`
		Paused         bool       `json:"paused"`
		LastWake       Transition `json:"last_wake"`
		LastSuspend    Transition `json:"last_suspend"`
	}{
		m.Tenant, m.Provider, m.Name, m.State, instant(m.Since), present(m.Error), m.Generation,
		append([]string{}, m.AwakeBecause...), // a list, even when empty
		present(m.SuspendAfter.Seconds()), instant(m.SuspendsAt), m.WaitingClients, m.Paused, m.LastWake, m.LastSuspend,
	})
}

// MarshalJSON encodes g, as null when nothing is known.
func (g Generation) MarshalJSON() ([]byte, error) {
	if g.Instance == "" && g.Started.IsZero() && g.Epoch == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(struct {
		Instance *string `json:"instance"`
		Started  *string `json:"started"`
		Epoch    uint64  `json:"epoch"`
	}{present(g.Instance), instant(g.Started), g.Epoch})
}

// MarshalJSON encodes t, as null when it is absent.
func (t Transition) MarshalJSON() ([]byte, error) {
	if t.At.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(struct {
		At      *string `json:"at"`
		Reason  string  `json:"reason"`
		Result  string  `json:"result"`
		Seconds float64 `json:"seconds"`
	}{instant(t.At), t.Reason, t.Result, t.Took.Seconds()})
}

// instant is a time in RFC 3339 and UTC, or nil for none.
func instant(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC().Format(time.RFC3339Nano))
}

// present is a pointer to v, or nil if v is its type's zero value.
func present[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
