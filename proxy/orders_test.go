// Orders of other nodes: what pauses a tenant here and everywhere, and what an order does.

package proxy

import (
	"errors"
	"io"
	"slices"
	"testing"
)

// pausedAt says whether the tenant is paused on a node.
func pausedAt(b *bench) (is bool) {
	b.tenant.call(func() { is = b.tenant.paused })
	return is
}

// TestWhatPausesATenant is the table of who has held it, and what its row says.
func TestWhatPausesATenant(t *testing.T) {
	b := newBench(t)
	row := func(is bool) func() {
		return func() {
			conf := *b.conf()
			conf.Paused = is
			put(t, b.gate, &conf)
		}
	}
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() {}, false},
		{row(true), true},
		{row(true), true},
		{func() { _, _ = b.gate.Resume("acme") }, true}, // that is the row's to end
		{row(false), false},
		{func() { _ = b.gate.Pause("acme") }, true},
		{row(true), true},
		{row(false), true},
		{func() { _, _ = b.gate.Resume("acme") }, false},
		{func() { _ = b.gate.Pause("acme"); b.gate.holdAll(); b.gate.unholdAll() }, true}, // which was not held by it
		{func() { _, _ = b.gate.Resume("acme") }, false},
		{func() { b.gate.holdAll() }, true},
		{row(true), true},
		{func() { b.gate.unholdAll() }, true},
		{row(false), false},
	} {
		if step.do(); pausedAt(b) != step.want {
			t.Fatalf("after step %d: paused is %t", i, pausedAt(b))
		}
	}
	// One that nobody has used yet is paused from its first use.
	conf := withPassword("globex", 1, "secret")
	conf.Paused, conf.Disabled = true, true
	put(t, b.gate, conf)
	later := b.gate.tenant("globex")
	later.call(func() {
		if !later.paused || !b.gate.disabled(conf) || b.gate.disabled(b.conf()) {
			t.Error("what the row says of it is not so")
		}
	})
}

// TestOrders: what one node has another do, and what that counts.
func TestOrders(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	server := a.server()
	conn := a.client(sessionMode)
	order := func(o Order, want int) {
		t.Helper()
		if n, silent := b.gate.order(o); n != want || len(silent) > 0 {
			t.Errorf("%+v: %d and %v, want %d", o, n, silent, want)
		}
	}
	order(Order{Do: DoLeave, Tenant: "acme"}, 0) // it is not paused
	order(Order{Do: DoPause}, 1)
	order(Order{Do: DoPause}, 0)
	order(Order{Do: DoLeave, Tenant: "acme"}, 1)
	order(Order{Do: DoLeave}, 1)
	if !pausedAt(a) || pausedAt(b) {
		t.Error("it is not paused, or the one is that has ordered it")
	}
	order(Order{Do: DoResume, Tenant: "acme"}, 1)
	order(Order{Do: DoResume, Tenant: "acme"}, 0)
	order(Order{Do: DoResume}, 1)
	order(Order{Do: DoResume}, 0)
	if pausedAt(a) {
		t.Error("it is paused")
	}
	order(Order{Do: DoKill, Tenant: "acme"}, 1)
	expect(t, conn, errKilled.Append(nil), "the end")
	if _, err := io.ReadAll(server); err != nil {
		t.Errorf("its server: %v", err)
	}
	if _, silent := b.gate.order(Order{Do: DoKill, Tenant: "nobody"}); len(silent) != 1 {
		t.Errorf("nobody was killed by all but %v", silent)
	}
	if _, err := a.gate.Obey(Order{Do: "dance"}); err == nil {
		t.Error("a deed that nobody knows is done")
	}
	w.frozen["a"] = true
	if silent, err := b.gate.Resume("acme"); err != nil || !slices.Equal(silent, []string{"a"}) {
		t.Errorf("%v, %v", silent, err)
	}
	if _, err := b.gate.Resume("nobody"); !errors.Is(err, ErrNoTenant) {
		t.Errorf("nobody is resumed: %v", err)
	}
}
