// Logging in to servers: what follows from a failure, and for whom.

package proxy

import (
	"testing"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/pgwire"
)

// TestNothingToLogInWith: who waits is told at once, and it is no failure of the server's: the next client, who may bring a
// key, does not find the pool pausing, however many have asked in vain.
func TestNothingToLogInWith(t *testing.T) {
	b := newBench(t)
	b.server()
	old := b.client(transactionMode)
	b.tenant.call(func() {
		b.tenant.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("retired") })
	})
	if _, err := old.Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
		t.Fatal(err)
	}
	if typ, body := readMessage(t, old); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "08006" {
		t.Errorf("got %q %q, want to be told to connect again", typ, body)
	}
	ended(t, old, "the client")
	b.tenant.call(func() {
		for p := range b.tenant.books.Pools() {
			if at := p.DialAfter(); !at.IsZero() {
				t.Errorf("the pool pauses until %v", at)
			}
		}
		if n := b.tenant.counters.serverLoginsFailed.Load(); n != 0 {
			t.Errorf("%d logins have failed, and nobody has tried", n)
		}
		if err := b.tenant.books.Check(); err != nil {
			t.Error(err)
		}
	})
}
