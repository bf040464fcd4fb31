// What clients that wait are told of, by what they wait for.

package proxy

import (
	"syscall"
	"testing"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
)

func TestWhatClientsWaitFor(t *testing.T) {
	b := newBench(t)
	b.tenant.call(func() {
		tt := b.tenant
		now := tt.loop.Now()
		p := tt.pool(poolKey{"app", "app"}).books
		other := tt.pool(poolKey{"app", "other"}).books
		want := func(when string, notice, code, reason string) {
			t.Helper()
			if w := tt.waitsFor(p); w.notice.Message != notice || w.fatal.Code != code || w.reason != reason {
				t.Errorf("%s: %q, %s, %s; want %q, %s, %s", when, w.notice.Message, w.fatal.Code, w.reason, notice, code, reason)
			}
		}
		dial := func() *server {
			s := &server{tenant: tt, pool: tt.pools[poolKey{"app", "app"}], loop: tt.loop}
			s.books.Owner = s
			p.StartDial(&s.books, now)
			return s
		}
		want("others have all servers", noticeWaiting.Message, "53300", "query_wait")
		first := dial()
		want("the first is being dialed", noticeConnecting.Message, "57P03", "no_server")
		p.DialFailed(&first.books, syscall.ECONNREFUSED, pool.Passing, now)
		want("it was refused", noticeDown.Message, "57P03", "no_server")
		again := dial()
		want("it is tried again", noticeDown.Message, "57P03", "no_server")
		tt.paused = true
		want("paused", noticePaused.Message, "57P03", "paused")
		tt.paused, tt.machine.reachable = false, false
		want("asleep", noticeWaking.Message, "57P03", "wake")
		tt.machine.reachable = true
		p.DialDone(&again.books, now)
		want("one is there", noticeWaiting.Message, "53300", "query_wait")
		second := dial()
		p.DialFailed(&second.books, backend.ErrTLSRefused, pool.Final, now)
		want("one is there, and another failed", noticeWaiting.Message, "53300", "query_wait")
		p.RemoveServer(&again.books)
		want("it has ended", noticeDown.Message, "57P03", "no_server")
		if w := tt.waitsFor(other); w.notice != noticeWaiting {
			t.Errorf("another pool: %q", w.notice.Message)
		}
	})
}
