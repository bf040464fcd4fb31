// One change of a machine at a time: who changes it, who waits, and who may cut a change short.

package local

import (
	"context"
	"errors"
	"sync/atomic"
)

var errClosed = errors.New("the machine was closed")

// operation is a start, a stop or a change of what is wanted, while it is under way.
type operation struct {
	done     chan struct{} // closed at its end
	cancel   context.CancelCauseFunc
	patient  bool        // it goes on when nobody waits, and Close lets it end by itself for as long as it has time
	changing atomic.Bool // it is starting or stopping the server now
}

// begin waits until no other operation is under way and begins one, with the context for it. Whoever got it calls finish.
func (m *Machine) begin(ctx context.Context, patient bool) (*operation, context.Context, error) {
	for {
		op, mine, busy, err := m.tryBegin(ctx, patient)
		if busy == nil {
			return op, mine, err
		}
		select {
		case <-busy.done:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

func (m *Machine) tryBegin(ctx context.Context, patient bool) (op *operation, mine context.Context, busy *operation, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, nil, nil, errClosed
	case m.op != nil:
		return nil, nil, m.op, nil
	case ctx.Err() != nil:
		return nil, nil, nil, context.Cause(ctx)
	}
	op = &operation{done: make(chan struct{}), patient: patient}
	if patient {
		ctx = context.WithoutCancel(ctx)
	}
	mine, op.cancel = context.WithCancelCause(ctx)
	m.op = op
	return op, mine, nil, nil
}

func (m *Machine) finish(op *operation) {
	m.mu.Lock()
	m.op = nil
	m.mu.Unlock()
	op.cancel(nil)
	close(op.done)
}

// closeOperations lets no operation begin any more and waits for the one under way: a start is in vain now, a stop is
// hurried only when ctx ends.
func (m *Machine) closeOperations(ctx context.Context) {
	m.mu.Lock()
	m.closed = true
	op := m.op
	m.mu.Unlock()
	if op == nil {
		return
	}
	if !op.patient {
		op.cancel(errClosed)
	}
	stop := context.AfterFunc(ctx, func() { op.cancel(context.Cause(ctx)) })
	<-op.done
	stop()
}
