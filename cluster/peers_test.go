package cluster

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// TestWhoDoesNotAnswerIsNotDialedByEachCaller: callers do not wait for a dead node one after the other, and one that lives is dialed.
func TestWhoDoesNotAnswerIsNotDialedByEachCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		at := &peer{row: tenants.Node{Name: "b", Silent: true, Here: tenants.Here{Address: netip.MustParseAddrPort("192.0.2.1:7947")}}, transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}}
		p := newPeers(nil)
		p.all["b"] = at
		var dialing sync.WaitGroup
		try := func() time.Duration {
			t.Helper()
			began := time.Now()
			if _, err := at.connection(t.Context(), &dialing); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%v", err)
			}
			return time.Since(began)
		}
		for i := range 40 {
			if d := try(); i == 0 && d != handshakeWait || i > 0 && d > 0 {
				t.Fatalf("call %d took %v", i, d)
			}
		}
		p.keep([]tenants.Node{at.row})
		if try(); dials.Load() != 1 {
			t.Errorf("%d dials", dials.Load())
		}
		after(deafFor)
		if try(); dials.Load() != 2 {
			t.Errorf("%d dials: it is not tried again", dials.Load())
		}
		at.row.Silent = false
		p.keep([]tenants.Node{at.row}) // it says that it lives
		if try(); dials.Load() != 3 {
			t.Errorf("%d dials: one that lives is not tried", dials.Load())
		}
		dialing.Wait()
	})
}
