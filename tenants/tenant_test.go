// Tests of the typed value: what counts nearer, and when two are the same.

package tenants

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTimeoutsOver: what is said nearer counts, 0s too, for each of them.
func TestTimeoutsOver(t *testing.T) {
	fields := reflect.TypeFor[Timeouts]()
	for i := range fields.NumField() {
		var near, far Timeouts
		set := func(t *Timeouts, d time.Duration) { reflect.ValueOf(t).Elem().Field(i).Set(reflect.ValueOf(&d)) }
		set(&far, time.Minute)
		if d := cmp.Diff(far, near.Over(far)); d != "" {
			t.Errorf("%s, said by the outer: %s", fields.Field(i).Name, d)
		}
		set(&near, 0)
		if d := cmp.Diff(near, near.Over(far)); d != "" {
			t.Errorf("%s, said by both: %s", fields.Field(i).Name, d)
		}
	}
}

func TestSameMachine(t *testing.T) {
	fly := Machine{ProviderFly, "app", "id", "", time.Minute, WakeOnConnect, SleepSuspend, NewSecret("t")}
	local := Machine{ProviderLocal, "", "", "name", time.Minute, WakeOnConnect, SleepStop, Secret{}}
	for _, c := range []struct {
		name   string
		of     Machine
		change func(*Machine)
		same   bool
	}{
		{"suspend_after", fly, func(m *Machine) { m.SuspendAfter = 0 }, true},
		{"wake", fly, func(m *Machine) { m.Wake = WakeOnQuery }, true},
		{"token", fly, func(m *Machine) { m.Token = NewSecret("other") }, true},
		{"token less", fly, func(m *Machine) { m.Token = Secret{} }, true},
		{"sleep", fly, func(m *Machine) { m.Sleep = SleepStop }, false},
		{"app", fly, func(m *Machine) { m.App = "other" }, false},
		{"id", fly, func(m *Machine) { m.ID = "other" }, false},
		{"provider", fly, func(m *Machine) { *m = local }, false},
		{"settings of a local one", local, func(m *Machine) { m.SuspendAfter, m.Wake = 0, WakeOnQuery }, true},
		{"name", local, func(m *Machine) { m.Name = "other" }, false},
	} {
		changed := c.of
		c.change(&changed)
		if got := changed.SameMachine(&c.of); got != c.same || c.of.SameMachine(&changed) != got {
			t.Errorf("another %s: same is %t", c.name, got)
		}
	}
}
