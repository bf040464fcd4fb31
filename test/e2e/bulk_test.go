// Bulk load: texts that are longer than what is read at a time.

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestBulkInsertsShareServers: 40 clients with two servers insert 200 kB at a time. All of them get on, and so does one who
// asks for little, while none of them leaves. What is collected of their texts, 8 MB, is not kept many times over.
func TestBulkInsertsShareServers(t *testing.T) {
	t.Parallel()
	const clients, rounds = 40, 2
	g := startGate(t, gateConf{PoolSize: 2})
	do(t, g.direct(t), "create unlogged table bulk (line text); grant all on bulk to app")
	insert := "insert into bulk values " + strings.Repeat("('"+strings.Repeat("y", 195)+"'),", 999) + "('z')"

	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var done [clients]atomic.Int64
	var all errgroup.Group
	for i := range done {
		conn := g.connect(t, "transaction")
		all.Go(func() error {
			for ctx.Err() == nil {
				if _, err := tryValue(ctx, conn, insert); err != nil && ctx.Err() == nil {
					return fmt.Errorf("client %d: %w", i, err)
				}
				done[i].Add(1)
			}
			return nil
		})
	}
	least := func() int64 {
		n := done[0].Load()
		for i := range done {
			n = min(n, done[i].Load())
		}
		return n
	}
	one := g.connect(t, "transaction")
	g.WatchPeakRSS(t)
	answers := 0
	for ; least() < rounds || answers < 2*rounds; answers++ {
		if got, err := tryValue(ctx, one, "select 1"); got != "1" {
			t.Errorf("after %d answers, and %d inserts of the slowest client: %q, %v", answers, least(), got, err)
			break
		}
	}
	t.Logf("%d answers while the slowest client inserted %d times", answers, least())
	if most := int64(128 << 20); g.PeakRSS(t) > most {
		t.Errorf("%d MB of memory, want at most %d", g.PeakRSS(t)>>20, most>>20)
	}
	stop()
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if n := g.metric("postern_pins_total", "tenant", "acme"); n != 0 {
		t.Errorf("%v of them kept a server", n)
	}
}
