// Machines that other processes share: who changes one holds a right to it, and nobody puts to sleep what another process uses.

package machines

import (
	"context"
	"errors"
	"time"
)

// A Guard is asked before a machine is changed, or used. Its methods block, and return early when ctx ends.
type Guard interface {
	// Hold begins a change, Start or Sleep, which no other process makes meanwhile: an *Error with ErrHeld, ErrInUse or ErrUnguarded, and with
	// that ErrUnanswered, too, if it is worth asking again.
	// From Start on this process uses the machine, and no more from Sleep on, also if that fails. held ends when the right does, which may
	// be at any time, and has the fence of the change. end gives it up: changed says that others should look at the machine, err how the
	// driver's call has ended.
	Hold(ctx context.Context, key string, what Action) (held context.Context, end func(changed bool, err error), err error)
	// Use says that this process is about to use the machine: errors as Hold, or ErrAbandoned.
	Use(ctx context.Context, key string) error
	// Await returns when another process may have given up its right, or after a while.
	Await(ctx context.Context, key string, d time.Duration)
}

// What a guard says.
var (
	ErrHeld  = errors.New("machine: another process is changing it")
	ErrInUse = errors.New("machine: another process uses it")
	// ErrAbandoned means that another process has begun to change it and was not heard of any more: see Fence.Takeover.
	ErrAbandoned = errors.New("machine: another process has not said that it has changed it")
	// ErrUnguarded means that it cannot be known whether another process changes the machine, or would heed that this one uses it.
	ErrUnguarded = errors.New("machine: nobody can be asked about other processes")
	// ErrUnanswered means that it is not known yet: who is asked is there, and slow. Clients wait for it as they do for the machine itself.
	ErrUnanswered = errors.New("machine: the question about other processes was not answered in time")
)

// A Fence is what a machine can tell the holder of a right by: it obeys none that is older than one that it has obeyed.
type Fence struct {
	Epoch  int64
	Holder string // for people
	// Takeover says that the holder before has not given the right back, and may be about to use it. A driver that has nothing to do then
	// makes sure that the machine does not obey that one any more.
	Takeover bool
	// Check says why the right has ended by now. A process that stood still knows it before held has ended, so drivers ask at the last
	// moment. nil: it has not.
	Check func() error
	// Confirm asks where rights are written down whether this one lasts, and ends it unless it is known to. A driver whose machine cannot
	// compare epochs asks while it holds the machine's own lock, which whoever has the right next takes as well: then no clock matters. nil:
	// there is nobody to ask.
	Confirm func(ctx context.Context) error
	// Step is told where a change stands: tests make a process stand still there. nil: nobody is.
	Step func(at string)
}

// Over says why the right has ended; nil: it has not.
func (f Fence) Over(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if f.Check != nil {
		return f.Check()
	}
	return nil
}

// Confirmed says why the right does not last; nil: it does.
func (f Fence) Confirmed(ctx context.Context) error {
	if f.Confirm == nil {
		return nil
	}
	return f.Confirm(ctx)
}

// At says where a change stands.
func (f Fence) At(at string) {
	if f.Step != nil {
		f.Step(at)
	}
}

type fenceKey struct{}

// WithFence hands a driver the fence of a change.
func WithFence(ctx context.Context, f Fence) context.Context {
	return context.WithValue(ctx, fenceKey{}, f)
}

// FenceOf is the fence of a change. ok is false where no other process shares the machine.
func FenceOf(ctx context.Context) (f Fence, ok bool) {
	f, ok = ctx.Value(fenceKey{}).(Fence)
	return f, ok
}

// Guarded is a driver whose machine other processes share.
func Guarded(d Driver, g Guard, key string) Driver { return &guarded{d, g, key} }

// user is a driver that is to be told before its machine is used.
type user interface {
	use(ctx context.Context) error
}

type guarded struct {
	Driver
	guard Guard
	key   string
}

const guardPause = 50 * time.Millisecond // at least, between two tries to get a right

// Wake implements Driver. It waits for what another process does to the machine: who comes after a start finds it running. So it does for an answer
// of the guard's.
func (g *guarded) Wake(ctx context.Context) (Status, error) {
	for told := false; ; { // by the one that had the right
		s, wait, err := g.tryWake(ctx, told)
		if err == nil || wait == 0 || ctx.Err() != nil {
			return s, err
		}
		told = errors.Is(err, ErrHeld)
		g.guard.Await(ctx, g.key, wait)
	}
}

// tryWake does it once. wait says that trying again is not in vain, and after which time at the latest.
func (g *guarded) tryWake(ctx context.Context, told bool) (_ Status, wait time.Duration, _ error) {
	held, end, err := g.guard.Hold(ctx, g.key, Start)
	if err != nil {
		if errors.Is(err, ErrHeld) || errors.Is(err, ErrUnanswered) {
			wait = max(after(err), guardPause)
		}
		return Status{}, wait, err
	}
	s, err := g.Driver.Wake(held)
	if f, ok := FenceOf(held); ok && err != nil && f.Over(held) != nil {
		wait = guardPause // the right has ended, not the need
	}
	end(err == nil && !told, err)
	return s, wait, err
}

// Suspend implements Driver.
func (g *guarded) Suspend(ctx context.Context) error {
	held, end, err := g.guard.Hold(ctx, g.key, Sleep)
	if err != nil {
		return err
	}
	err = g.Driver.Suspend(held)
	end(true, err)
	return err
}

func (g *guarded) use(ctx context.Context) error {
	err := g.guard.Use(ctx, g.key)
	if errors.Is(err, ErrAbandoned) { // it runs: waking it does no more than take the right over
		_, err = g.Wake(ctx)
	}
	return err
}
