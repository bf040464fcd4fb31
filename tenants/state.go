// What is done about session state where clients share server connections.

package tenants

// StateKind is a kind of session state, by its key in stores.
type StateKind string

// The kinds.
const (
	StateSet          StateKind = "set"           // run-time parameters, the role and the session's user among them
	StateListen       StateKind = "listen"        // channels listened to
	StateTemp         StateKind = "temp"          // temporary tables and the like
	StateAdvisoryLock StateKind = "advisory_lock" // of the session
	StateCursor       StateKind = "cursor"        // WITH HOLD
	StatePrepare      StateKind = "prepare"       // statements made by SQL PREPARE
	StateLoad         StateKind = "load"          // libraries, and what else only the end of the session is sure to end
	StateSequence     StateKind = "sequence"      // numbers drawn from sequences, which currval and lastval show
	StateSeed         StateKind = "seed"          // of random()
)

// Policy is what is done about a kind of session state.
type Policy string

// The policies.
const (
	PolicyTrack  Policy = "track"  // the client finds it again on whatever server it gets; parameters only
	PolicyPin    Policy = "pin"    // the client keeps its server until the state is gone
	PolicyReset  Policy = "reset"  // it is gone after the transaction; StateSequence: where another client would read it
	PolicyRefuse Policy = "refuse" // what would leave it is refused with 0A000; StateSequence: what would read it
	PolicyAllow  Policy = "allow"  // it stays on the server, for whoever comes next
)

func defaultState() map[StateKind]Policy {
	return map[StateKind]Policy{StateSet: PolicyTrack, StateListen: PolicyPin, StateTemp: PolicyPin, StateAdvisoryLock: PolicyPin,
		StateCursor: PolicyPin, StatePrepare: PolicyPin, StateLoad: PolicyPin, StateSequence: PolicyReset, StateSeed: PolicyPin}
}

// ClientAddress is how Postgres learns who the client is.
type ClientAddress string

// The ways.
const (
	AddressOff  ClientAddress = "off"
	AddressName ClientAddress = "application_name" // behind the client's own name
	AddressGUC  ClientAddress = "guc"              // in the setting postern.client_address
)
