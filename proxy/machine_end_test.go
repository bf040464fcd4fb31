// Leaving a machine: what is kept for how long, and that two machines are told apart.

package proxy

import (
	"log/slog"
	"testing"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/pgwire"
)

// part takes part in a machine that nobody has.
func (b *bench) part(key string) *machines.Holder {
	return b.gate.fleet.Hold(key, machines.Options{Driver: brokenDriver{}, Log: slog.New(slog.DiscardHandler)}, func(machines.View) {})
}

// onMachine has the only server lead to a machine, in a run of it.
func (b *bench) onMachine(key string, epoch uint64) {
	for s := range b.tenant.servers {
		s.machine, s.epoch = key, epoch
	}
}

// sessionOn has a client in session mode, whose server leads to a machine in a run of it, and the tenant take part in
// this machine or another.
func (b *bench) sessionOn(key string, epoch uint64, part string) {
	b.t.Helper()
	server := b.server()
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	b.asks(b.client(sessionMode), server, query, query, answer, answer)
	b.tenant.call(func() {
		b.onMachine(key, epoch)
		b.tenant.machine.holder = b.part(part)
	})
}

// TestAFormerMachine is kept while a session of its tenant's is there, and half a minute if the tenant was removed.
func TestAFormerMachine(t *testing.T) {
	b := newBench(t)
	b.sessionOn("local/acme", 7, "local/acme")
	former := func(after time.Duration) (parts, servers int) {
		b.tenant.call(func() {
			b.tenant.retireFormer(b.tenant.loop.Now().Add(after))
			parts, servers = len(b.tenant.machine.former), len(b.tenant.servers)
		})
		return parts, servers
	}
	b.tenant.call(func() { b.tenant.leaveMachine(nil) })
	if parts, servers := former(time.Hour); parts != 1 || servers != 1 {
		t.Errorf("moved: %d parts and %d servers are left", parts, servers)
	}
	b.tenant.call(func() { b.tenant.conf = nil })
	if parts, servers := former(removedFor - time.Second); parts != 1 || servers != 1 {
		t.Errorf("removed a moment ago: %d parts and %d servers are left", parts, servers)
	}
	if _, servers := former(removedFor + time.Second); servers != 0 {
		t.Errorf("removed: %d servers are left", servers)
	}
	if parts, _ := former(0); parts != 0 {
		t.Errorf("%d parts are left without a server", parts)
	}
}

// TestRunsOfTwoMachines say nothing of each other.
func TestRunsOfTwoMachines(t *testing.T) {
	b := newBench(t)
	b.sessionOn("local/acme", 7, "local/next")
	b.tenant.call(func() { b.tenant.machineIs(machines.View{State: machines.StateReady, Epoch: 1}) })
	if n := b.counts(); n.Active != 1 {
		t.Errorf("a session on the former machine was ended: %+v", n)
	}
	b.tenant.call(func() {
		b.onMachine("local/next", 1)
		b.tenant.machineIs(machines.View{State: machines.StateReady, Epoch: 2})
	})
	if n := b.counts(); n.Active != 0 {
		t.Errorf("a session on an earlier run goes on: %+v", n)
	}
}
