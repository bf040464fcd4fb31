// Faults of calls: what may go wrong between a client and the API.

package fakefly

import (
	"net/http"
	"time"
)

// Lost says whether an answer is lost: the connection ends without one.
type Lost uint8

// When the answer is lost.
const (
	NotLost    Lost = iota
	LostBefore      // nothing is done
	LostAfter       // it is done
)

// Fault changes the answers to some calls. Its fields add up: a delay, and what it is held for, then the work unless Status or LostBefore says
// otherwise, then what is answered.
type Fault struct {
	Action  string // of which calls; "": of all
	Machine string // of which machine; "": of all
	Times   int    // of how many calls; 0: of all until removed

	Delay    time.Duration
	Hold     <-chan struct{} // until it is closed; nil: not at all
	Status   int             // answered instead of the work; 0: the work's own
	Body     string          // with Status; with Status 0 instead of the work's own
	Header   http.Header     // added
	Work     bool            // do the work all the same, although Status tells otherwise
	Lost     Lost
	Truncate bool // answer half of the body and close
}

// Inject adds a fault after those that are there; each call meets the first that fits. The function returned removes it.
func (s *Server) Inject(f Fault) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := &fault{Fault: f, left: f.Times}
	s.faults = append(s.faults, live)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		live.gone = true
	}
}

type fault struct {
	Fault
	left int
	gone bool
}

// fault returns the fault that a call meets, if any. Called with mu held.
func (s *Server) fault(action, machine string) *Fault {
	for _, f := range s.faults {
		if f.gone || (f.Action != "" && f.Action != action) || (f.Machine != "" && f.Machine != machine) {
			continue
		}
		if f.Times > 0 {
			if f.left == 0 {
				continue
			}
			f.left--
		}
		return &f.Fault
	}
	return nil
}

// Refusals as they are documented or were seen.
func refused(action string, status int, body string) Fault {
	return Fault{Action: action, Times: 1, Status: status, Body: body}
}

// TooManyRequests is a 429, as when another process has spent the limit.
func TooManyRequests(action string) Fault {
	return refused(action, http.StatusTooManyRequests, `{"error":"rate limit exceeded"}`)
}

// LeaseHeld is a 409: somebody else works on the machine.
func LeaseHeld(action string) Fault {
	return refused(action, http.StatusConflict, `{"status":"error","message":"machine ID 1 lease currently held by deploy@example.com, expires at 2030-01-01T00:00:00Z"}`)
}

// HostFull is a 409: the machine's host has no room.
func HostFull(action string) Fault {
	return refused(action, http.StatusConflict, `{"error":"aborted: could not reserve resource for machine: insufficient memory available to fulfill request"}`)
}

// NoCapacity is a 422: the region has no room.
func NoCapacity(action string) Fault {
	return refused(action, http.StatusUnprocessableEntity, `{"error":"no capacity in this region","status":"insufficient_capacity"}`)
}

// StillActive is a 412: the last run has not quite ended.
func StillActive(action string) Fault {
	return refused(action, http.StatusPreconditionFailed, `{"error":"failed_precondition: machine still active, refusing to start"}`)
}

// HostSilent is a 408: the API could not reach the machine's host in time, or could not hear it.
func HostSilent(action string) Fault {
	return refused(action, http.StatusRequestTimeout, `{"error":"deadline_exceeded: request timed out"}`)
}

// Broken is a 500.
func Broken(action string) Fault {
	return refused(action, http.StatusInternalServerError, `{"error":"internal: something went wrong"}`)
}

// Revoked is a 401.
func Revoked(action string) Fault {
	return refused(action, http.StatusUnauthorized, `{"error":"unauthorized"}`)
}

// Always makes a fault meet every call until it is removed.
func (f Fault) Always() Fault { f.Times = 0; return f }

// For limits a fault to one machine.
func (f Fault) For(machine string) Fault { f.Machine = machine; return f }

// Done has the work done although the answer tells otherwise.
func (f Fault) Done() Fault { f.Work = true; return f }
