// What was asked, for assertions.

package fakefly

import "time"

// The actions of the API that the fake knows.
const (
	Get     = "get"
	List    = "list"
	Start   = "start"
	Wait    = "wait"
	Suspend = "suspend"
	Stop    = "stop"
	Lease   = "lease"   // taking one
	Release = "release" // giving it back: the same path, another method
)

// Call is one request that was asked, whatever came of it.
type Call struct {
	At      time.Time
	Took    time.Duration
	Action  string // get, list, ...; "": no such call
	App     string
	Machine string
	Method  string
	Path    string
	Status  int // that was answered; 0: none was
}

// Calls returns all calls that have ended, in the order of their ends.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Count is how many calls of an action have arrived, ended or not; "": of any. machine may be "": of any.
func (s *Server) Count(action, machine string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.arrived {
		if (action == "" || c.Action == action) && (machine == "" || c.Machine == machine) {
			n++
		}
	}
	return n
}

// Forget drops the record so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.arrived = nil, nil
}

// Violations returns what was asked that no client may ask.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.violations...)
}

// AllowViolations keeps violations from failing the test.
func (s *Server) AllowViolations() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lenient = true
}
