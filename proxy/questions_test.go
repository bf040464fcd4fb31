// Questions of Postern's own that a server does not answer.

package proxy

import (
	"testing"
	"time"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// inspecting is the question in full, as a client in transaction mode has it asked.
func inspecting(kinds sqltext.State, names ...string) []byte {
	q := (&lease.Holder{}).Ask()
	q.Inspect(kinds, names)
	return q.Out
}

// changing carries changes out on a server with nothing unusual set.
func changing(list []params.Change) []byte {
	q := (&lease.Holder{}).Ask()
	q.Change(&params.Set{}, list)
	return q.Out
}

// noWaitFirst is what a server answers to a question before the rows.
func noWaitFirst() []byte { return append(tagged(empty("12"), "SET"), empty("12")...) }

// TestAQuestionThatIsNotAnswered ends, and the session of whoever waits for it.
func TestAQuestionThatIsNotAnswered(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	conn := b.client(transactionMode)
	text, answer := pgwire.AppendQuery(nil, "select pg_advisory_lock(1)"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	b.asks(conn, server, text, text, answer, answer)
	expect(t, server, inspecting(sqltext.StateLock), "question")
	after := func(d time.Duration) {
		b.tenant.loop.Call(func() { b.tenant.sweepQuestions(b.tenant.loop.Now().Add(d)) })
	}
	after(answerFor / 2)
	b.first(func(c *client) {
		if c.gone() || c.server == nil {
			t.Error("it does not wait any more")
		}
	})
	after(answerFor + time.Second)
	gone(t, server)
	expect(t, conn, errServerLost.Append(nil), "the end")
}
