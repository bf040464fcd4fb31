// How a machine gets from state to state.

package fakefly

import (
	"context"
	"net/netip"
	"time"
)

const (
	bindTries = 50
	bindPause = 100 * time.Millisecond
)

// goToSleep freezes the machine at once and writes the snapshot for as long as Options say, unless it is interrupted.
func (m *Machine) goToSleep(interrupt chan struct{}) {
	m.net.freeze()
	err := m.vm.Suspend(m.s.ctx)
	timer := time.NewTimer(m.s.opts.Suspend)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-interrupt:
	case <-m.s.ctx.Done():
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.check(err)
	m.frozen = true
	if m.state == "suspending" {
		m.enter("suspended", "suspend", "flyd")
	}
}

// goDown stops the VM. The machine may be destroyed meanwhile.
func (m *Machine) goDown() {
	m.pause(m.s.opts.Stop)
	m.off()
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.state == "stopping" {
		m.enter("stopped", "exit", "flyd")
	}
}

// comeUp boots or resumes the VM and opens the private address.
func (m *Machine) comeUp(warm bool, closed time.Duration, fails bool) {
	var err error
	switch {
	case fails:
		m.pause(m.s.opts.Boot)
		m.off()
		m.s.mu.Lock()
		defer m.s.mu.Unlock()
		if m.state == "starting" {
			m.enter("failed", "exit", "flyd")
		}
		return
	case warm:
		m.pause(m.s.opts.Resume)
		err = m.vm.Resume(m.s.ctx)
	default:
		m.pause(m.s.opts.Boot)
		m.off()
		err = m.vm.Start(m.s.ctx)
	}
	m.s.check(err)
	if err == nil && closed == 0 {
		m.s.check(m.listen())
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.on, m.frozen = err == nil, false
	if m.state != "starting" {
		return
	}
	if err != nil {
		m.enter("failed", "exit", "flyd")
		return
	}
	m.enter("started", "start", "flyd")
	if closed > 0 {
		m.s.wg.Go(func() { m.openLater(closed) })
	}
}

// openLater opens the private address after a while, if the machine still runs.
func (m *Machine) openLater(d time.Duration) {
	m.pause(d)
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.queue(func() {
		if m.State() == "started" && m.s.ctx.Err() == nil {
			m.s.check(m.listen())
		}
	})
}

// listen opens the private address. Its port may be in use for a moment, by a connection that is ending.
func (m *Machine) listen() error {
	if m.vm.Addr() == "" {
		return nil
	}
	m.s.mu.Lock()
	at := netip.AddrPortFrom(m.address, m.port)
	m.s.mu.Unlock()
	var err error
	for range bindTries {
		if err = m.net.open(at, m.vm.Addr); err == nil || m.s.ctx.Err() != nil {
			return nil
		}
		m.pause(bindPause)
	}
	return err
}

// finish ends what runs and enters a last state by way of another. It returns when that is done.
func (m *Machine) finish(event, onTheWay, state string) {
	m.s.mu.Lock()
	if m.state == "suspending" {
		close(m.interrupt)
	}
	m.state = onTheWay
	m.s.announce()
	done := m.queue(func() {
		m.off()
		m.s.mu.Lock()
		defer m.s.mu.Unlock()
		m.enter(state, event, "flyd")
	})
	m.s.mu.Unlock()
	<-done
}

// off cuts the network and turns off a VM that is on.
func (m *Machine) off() {
	m.net.close()
	if !m.isOn() {
		return
	}
	m.s.check(m.vm.Stop(m.s.ctx))
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.on, m.frozen = false, false
}

// queue runs a transition after those before it, and returns a channel that is closed at its end. Called with mu held.
func (m *Machine) queue(f func()) (done chan struct{}) {
	before := m.tail
	done = make(chan struct{})
	m.tail = done
	m.s.wg.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		f()
	})
	return done
}

// end leaves nothing behind: no socket, and no frozen process, which nobody could stop. Nothing else runs any more.
func (m *Machine) end() {
	m.net.close()
	if m.frozen {
		if err := m.vm.Resume(context.WithoutCancel(m.s.ctx)); err != nil {
			m.s.t.Error(err)
		}
	}
}

func (m *Machine) isOn() bool {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.on
}

func (m *Machine) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.s.ctx.Done():
	}
}

// check makes a VM's failure the test's, unless the test is over. Called with mu held; Server.check without.
func (m *Machine) check(err error) {
	if err != nil && m.s.ctx.Err() == nil {
		m.s.violate("machine %s: %v", m.id, err)
	}
}

func (s *Server) check(err error) {
	if err == nil || s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violate("a machine: %v", err)
}
