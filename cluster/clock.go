// How old something is that two nodes deal with, whose clocks have nothing to do with each other.

package cluster

import "time"

// Clock is a process's own. What it reads it tells others, who give it back: so a node knows for how long a message was on its way
// or lay before it while it was frozen.
type Clock struct {
	start time.Time
	now   func() time.Time
}

// NewClock starts one; now has a monotonic part, as time.Now has.
func NewClock(now func() time.Time) Clock { return Clock{now(), now} }

// Reading is what a clock reads. It means something to that clock alone.
type Reading struct {
	Steady time.Duration `json:"steady"` // since the start; stands still while the machine does
	Wall   int64         `json:"wall"`   // nanoseconds since 1970; may be set
}

// Read reads the clock.
func (c Clock) Read() Reading {
	now := c.now()
	return Reading{now.Sub(c.start), now.Round(0).UnixNano()}
}

// Since is for how long something has been read: the longer time if two clocks disagree, since it is asked what is too old.
func (c Clock) Since(r Reading) time.Duration {
	now := c.Read()
	return max(now.Steady-r.Steady, time.Duration(now.Wall-r.Wall))
}
