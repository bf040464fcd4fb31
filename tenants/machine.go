// What is known about the machine of a tenant whose Postgres can sleep.

package tenants

import (
	"regexp"
	"time"
)

// leastSuspendAfter keeps a machine from being put to sleep between two queries.
const leastSuspendAfter = time.Second

// Provider is who runs a machine.
type Provider string

// The providers.
const (
	ProviderFly   Provider = "fly"   // a machine of Fly.io
	ProviderLocal Provider = "local" // a PostgreSQL cluster on this computer
)

// WakeOn says what wakes a sleeping machine.
type WakeOn string

// The occasions.
const (
	WakeOnConnect WakeOn = "connect" // a client that has proven its password
	WakeOnQuery   WakeOn = "query"   // the first query of such a client
)

// Sleep says how a machine sleeps.
type Sleep string

// The ways.
const (
	SleepSuspend Sleep = "suspend" // with its memory: Fly's snapshot, or processes that are frozen
	SleepStop    Sleep = "stop"    // without: waking is a start
)

// Machine says where a tenant's Postgres lives when that can sleep. What it listens on is asked of the provider while the
// machine runs; the rest of how to get there is in Tenant.Upstream.
type Machine struct {
	Provider     Provider
	App, ID      string        // of a fly machine: its app and the machine's id
	Name         string        // of a local machine: its folder
	SuspendAfter time.Duration // how long unused before it is put to sleep; 0: never
	Wake         WakeOn
	Sleep        Sleep
	Token        Secret // of a fly machine: what Fly's API is asked with about it; zero: the process's token
}

// Key names the machine, and no other one, in this process: "fly/acme-db/9080e6f1", "local/acme".
func (m *Machine) Key() string {
	if m.Provider == ProviderFly {
		return string(m.Provider) + "/" + m.App + "/" + m.ID
	}
	return string(m.Provider) + "/" + m.Name
}

// Needs is the key below machines of the process's configuration without which it cannot be run.
func (m *Machine) Needs() string {
	if m.Provider == ProviderFly && m.Token.IsZero() {
		return "fly.token_file"
	}
	return string(m.Provider)
}

// named reports whether Key names it: a machine that is not valid may lack what makes it one.
func (m *Machine) named() bool {
	return m.Provider == ProviderFly && m.App != "" && m.ID != "" || m.Provider == ProviderLocal && m.Name != ""
}

// SameMachine reports whether both are one machine that sleeps in one way, so that who runs it need not be replaced. Where
// it holds, at most SuspendAfter, Wake and Token differ, which take effect while the machine runs. Neither may be nil.
func (m *Machine) SameMachine(o *Machine) bool { return m.Key() == o.Key() && m.Sleep == o.Sleep }

// maxToken bounds a token in bytes: macaroons are long.
const maxToken = 16 << 10

// flyToken is what `fly tokens create` prints, with its scheme or without.
var flyToken = regexp.MustCompile(`^((FlyV1|Bearer) )?[!-~]+$`)

// validateToken judges the token of a fly machine. It becomes a part of a header.
func validateToken(p place, token Secret) {
	switch text := token.Reveal(); {
	case token.IsZero():
	case len(text) > maxToken:
		p.fail("must not be longer than %d bytes", maxToken)
	case !flyToken.MatchString(text) || text == "FlyV1" || text == "Bearer":
		p.fail("is no token: it must be one word, with FlyV1 or Bearer and a space before it or without")
	}
}
