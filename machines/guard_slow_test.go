package machines

import (
	"context"
	"errors"
	"testing"
	"time"
)

// asks takes as long as an answer does.
func (p *process) asks(ctx context.Context) error {
	p.s.mu.Lock()
	takes, patience := p.s.takes, p.s.patience
	p.s.mu.Unlock()
	if takes == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return &Error{Kind: Transient, Err: errors.Join(ErrUnguarded, ErrUnanswered)}
	}
}

// TestASlowAnswerIsWaitedFor as long as a wake may take, whether the machine sleeps or runs already, and no longer.
func TestASlowAnswerIsWaitedFor(t *testing.T) {
	for _, power := range []Power{Asleep, Running} {
		for _, c := range []struct {
			takes, patience time.Duration
			slow            time.Duration // for how long it is
			want            State
		}{
			{5 * time.Second, 10 * time.Second, time.Hour, StateReady},
			{10 * time.Second, time.Second, 20 * time.Second, StateReady},
			{time.Hour, 10 * time.Second, time.Hour, StateFailed},
		} {
			inShared(t, 1, power, func(s *shared) {
				s.takes, s.patience = c.takes, c.patience
				p := s.processes[0]
				p.works(true)
				time.AfterFunc(c.slow, func() {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.takes = 0
				})
				pass(usual.WakeLimit - 10*time.Second)
				v := p.part.View()
				if c.want == StateReady && v.State != StateReady || v.State == StateFailed {
					t.Errorf("%v, %+v: too early it is %v, %v", power, c, v.State, v.Err)
				}
				pass(20 * time.Second)
				if v = p.part.View(); v.State != c.want || c.want == StateFailed && !errors.Is(v.Err, ErrUnguarded) {
					t.Errorf("%v, %+v: it is %v, %v", power, c, v.State, v.Err)
				}
			})
		}
	}
}
