// Tests of the age of what was frozen.

package cluster

import (
	"testing"
	"time"
)

// steps are what a process's clocks have done between two readings.
func TestSinceIsTheLongerTime(t *testing.T) {
	start := time.Now()
	for _, tc := range []struct {
		name         string
		steady, wall time.Duration
		want         time.Duration
	}{
		{"both", 3 * time.Second, 3 * time.Second, 3 * time.Second},
		{"the machine was frozen", time.Millisecond, time.Hour, time.Hour},
		{"somebody has set the clock back", 3 * time.Second, -time.Hour, 3 * time.Second},
		{"nothing", 0, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Clock{start: start, now: func() time.Time { return start }}
			now := c.Read()
			was := Reading{now.Steady - tc.steady, now.Wall - int64(tc.wall)}
			if got := c.Since(was); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

func TestClockGoes(t *testing.T) {
	now := time.Now()
	c := NewClock(func() time.Time { return now })
	r := c.Read()
	if now = now.Add(5 * time.Second); c.Since(r) != 5*time.Second {
		t.Errorf("%v have passed", c.Since(r))
	}
}
