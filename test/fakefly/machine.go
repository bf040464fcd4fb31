// One machine: its states, its transitions, and what can befall it.

package fakefly

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

const (
	noNetworkPort = 5432
	eventsShown   = 20
)

// Machine is one machine of the fake.
type Machine struct {
	s       *Server
	app, id string
	port    uint16
	vm      VM
	net     forwarder

	// Guarded by Server.mu.
	state      string
	instance   string
	address    netip.Addr
	hostStatus string
	events     []event       // newest first
	starts     int           // accepted
	tail       chan struct{} // closed when the last transition that was asked for has ended
	interrupt  chan struct{}
	on, frozen bool // what the VM is, with its memory
	ineligible string
	cold, move bool
	closedFor  time.Duration
	crashes    bool
	held       lease
	leases     int // taken
}

type event struct {
	Type      string `json:"type"`
	Status    string `json:"status"`
	Source    string `json:"source"`
	Timestamp int64  `json:"timestamp"`
}

type shown struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	State      string         `json:"state"`
	Region     string         `json:"region"`
	InstanceID string         `json:"instance_id"`
	PrivateIP  string         `json:"private_ip"`
	HostStatus string         `json:"host_status"`
	Config     map[string]any `json:"config,omitempty"`
	Incomplete map[string]any `json:"incomplete_config,omitempty"`
	Events     []event        `json:"events"`
	Checks     []any          `json:"checks"`
}

// AddMachine adds a stopped machine. The VM must be stopped, too.
func (s *Server) AddMachine(app, id string, vm VM) *Machine {
	s.t.Helper()
	m := &Machine{s: s, app: app, id: id, vm: vm, port: noNetworkPort, state: "stopped", hostStatus: "ok", address: newAddress()}
	if s.opts.Address.IsValid() {
		m.address = s.opts.Address
	}
	if vm.Addr() != "" {
		port, err := freePort()
		if err != nil {
			s.t.Fatal(err)
		}
		m.port = port
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.instance = fmt.Sprintf("01INSTANCE%04d", len(s.machines)+1)
	m.note("launch", "created", "user")
	s.machines = append(s.machines, m)
	return m
}

// Port is where Postgres listens on the private address; it never changes.
func (m *Machine) Port() uint16 { return m.port }

// State is the state now.
func (m *Machine) State() string {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.state
}

// Starts is how many starts were accepted.
func (m *Machine) Starts() int {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.starts
}

// WaitFor returns when the machine is in a state, and fails the test after ten seconds.
func (m *Machine) WaitFor(state string) {
	m.s.t.Helper()
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	for {
		m.s.mu.Lock()
		now, changed := m.state, m.s.changed
		m.s.mu.Unlock()
		if now == state {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			m.s.t.Fatalf("machine %s is %s, not %s", m.id, now, state)
		}
	}
}

// What can befall it. The first four concern the next start; the others hold, or happen, at once.

// Cold makes the next start from a snapshot a boot: the snapshot is lost.
func (m *Machine) Cold() { m.set(func() { m.cold = true }) }

// Move makes the next start happen on another host, at another private address.
func (m *Machine) Move() { m.set(func() { m.move = true }) }

// CloseFor keeps the private address refusing for a while after the next start.
func (m *Machine) CloseFor(d time.Duration) { m.set(func() { m.closedFor = d }) }

// FailToStart makes the next start end in failed.
func (m *Machine) FailToStart() { m.set(func() { m.crashes = true }) }

// CannotSuspend refuses suspends with a message; "": does not.
func (m *Machine) CannotSuspend(message string) { m.set(func() { m.ineligible = message }) }

// SetHostStatus is ok, unknown or unreachable.
func (m *Machine) SetHostStatus(status string) { m.set(func() { m.hostStatus = status }) }

// SetState makes the API tell of a state, and does nothing else: for states that the fake never enters itself.
func (m *Machine) SetState(state string) { m.set(func() { m.state = state }) }

// Exit ends the machine's process, as if it had crashed: the machine is stopped and nobody asked for it.
func (m *Machine) Exit() { m.finish("exit", "stopping", "stopped") }

// Destroy ends the machine for good.
func (m *Machine) Destroy() { m.finish("destroy", "destroying", "destroyed") }

func (m *Machine) set(f func()) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	f()
	m.s.announce()
}

// announce wakes those who wait for a change. Called with mu held.
func (s *Server) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// enter is the one way into a state. Called with mu held.
func (m *Machine) enter(state, event, source string) {
	m.state = state
	m.note(event, state, source)
	m.s.announce()
}

// note adds an event; no two have the same time.
func (m *Machine) note(kind, status, source string) {
	at := time.Now().UnixMilli()
	if len(m.events) > 0 {
		at = max(at, m.events[0].Timestamp+1)
	}
	m.events = slices.Insert(m.events, 0, event{kind, status, source, at})
	m.events = m.events[:min(len(m.events), eventsShown)]
}

func (m *Machine) show() shown {
	v := shown{ID: m.id, Name: m.id, State: m.state, Region: "fra", InstanceID: m.instance, PrivateIP: m.address.String(), HostStatus: m.hostStatus, Events: slices.Clone(m.events), Checks: []any{}}
	config := map[string]any{"image": "registry.fly.io/" + m.app + ":latest", "guest": map[string]any{"cpu_kind": "shared", "cpus": 1, "memory_mb": 512}}
	if m.hostStatus == "ok" {
		v.Config = config
	} else {
		v.Incomplete = config
	}
	return v
}

// start is POST start. Called with mu held, as the next two.
func (m *Machine) start() answer {
	from := m.state
	switch from {
	case "stopped", "suspended", "failed", "suspending":
	case "started", "starting", "stopping":
		return errorAnswer(http.StatusPreconditionFailed, "failed_precondition: machine still active, refusing to start")
	default:
		return errorAnswer(http.StatusPreconditionFailed, "failed_precondition: unable to start machine from current state: '%s'", from)
	}
	if from == "suspending" {
		close(m.interrupt)
	}
	m.starts++
	m.enter("starting", "start", "user")
	warm := (from == "suspended" || from == "suspending") && !m.cold
	var host string
	if m.move {
		m.move, m.address, host = false, newAddress(), "host-b"
	}
	closed, fails := m.closedFor, m.crashes
	m.cold, m.closedFor, m.crashes = false, 0, false
	m.queue(func() { m.comeUp(warm, closed, fails) })
	return answer{status: http.StatusOK, body: fmt.Sprintf(`{"previous_state":%q,"migrated":%v,"new_host":%q}`, from, host != "", host)}
}

func (m *Machine) suspend() answer {
	if m.state != "started" {
		return errorAnswer(http.StatusPreconditionFailed, "failed_precondition: unable to suspend machine from current state: '%s'", m.state)
	}
	if m.ineligible != "" {
		return errorAnswer(http.StatusPreconditionFailed, "%s", m.ineligible)
	}
	m.enter("suspending", "suspend", "user")
	interrupt := make(chan struct{})
	m.interrupt = interrupt
	m.queue(func() { m.goToSleep(interrupt) })
	return answer{status: http.StatusOK, body: `{"ok":true}`}
}

func (m *Machine) stop() answer {
	switch m.state {
	case "started", "suspended":
	case "stopped", "created", "failed":
		return errorAnswer(http.StatusConflict, "unable to stop machine, not currently started")
	default:
		return errorAnswer(http.StatusPreconditionFailed, "failed_precondition: unable to stop machine from current state: '%s'", m.state)
	}
	m.enter("stopping", "stop", "user")
	m.queue(m.goDown)
	return answer{status: http.StatusOK, body: `{"ok":true}`}
}
