// A gate that stands still while it changes a machine that gates share, and many clients that want it at once.

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// TestOneStartForMany: clients of three gates come at once, and the machine is started once; whoever did not start it hears that it runs.
func TestOneStartForMany(t *testing.T) {
	t.Parallel()
	each := 20
	if harness.Long() {
		each = 100
	}
	s, api, m := serveSharedFly(t, fakefly.Options{Boot: 300 * time.Millisecond}, "a", "b", "c")
	api.Forget()
	began := time.Now()
	s.rush(t, each)
	t.Logf("%d clients of each of three gates were served after %v, with %d calls of the API", each, time.Since(began), api.Count("", "1"))
	if n, _ := m.Leases(); n != 1 {
		t.Errorf("Fly's lease was taken %d times for one start", n)
	}
	for i, g := range s.gates {
		if n := g.logged("machine wake ended", "result", "ok"); n != 1 {
			t.Errorf("gate %d has woken it %d times, by its own account", i, n)
		}
	}
}

// TestThawedGate: a gate stands still while a call with which it puts the machine to sleep is on its way. Another gate takes over and has
// clients there. When the first one goes on, and its call arrives, the machine stays awake.
func TestThawedGate(t *testing.T) {
	t.Parallel()
	for name, action := range map[string]string{"before it has Fly's lease": fakefly.Lease, "before the machine is told": fakefly.Suspend} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, api, m := serveSharedFly(t, fakefly.Options{}, "a", "b")
			a, b := s.gates[0], s.gates[1]
			a.connect(t, "transaction")
			hold := make(chan struct{})
			api.Inject(fakefly.Fault{Action: action, Times: 1, Hold: hold})
			before := api.Count(action, "1")
			harness.Eventually(t, harness.Patience, "a puts the machine to sleep", func() bool { return api.Count(action, "1") > before })
			a.Freeze(t)
			defer func() { _ = syscall.Kill(a.PID(), syscall.SIGCONT) }()
			if _, err := s.w.connect().Exec(t.Context(), `UPDATE postern.leases SET until = clock_timestamp()`); err != nil { // its time is over
				t.Fatal(err)
			}
			m.EndLease()
			conn := b.connect(t, "session")
			close(hold)
			a.Signal(t, syscall.SIGCONT)
			harness.Eventually(t, harness.Patience, "a has ended its try", func() bool { return a.logged("machine put to sleep") > 0 })
			if n := a.logged("machine put to sleep", "result", "busy"); n != 1 {
				t.Errorf("a believes: %v", a.Log().Find("machine put to sleep", nil))
			}
			if _, err := conn.Exec(t.Context(), "select 1"); err != nil || m.State() != "started" || s.starts() != 1 {
				t.Errorf("a client of b: %v; the machine is %s, and was started %d times", err, m.State(), s.starts())
			}
		})
	}
}
