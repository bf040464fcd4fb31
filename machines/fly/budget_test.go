// Bursts of calls, in a time that is not real.

package fly

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/test/fakefly"
)

func TestABurstStaysInsideTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakefly.New(t, fakefly.Options{NoSocket: true})
		s.AddMachine("a", "m", fakefly.NewMemory())
		s.AddMachine("a", "n", fakefly.NewMemory())
		results := map[string]int{}
		var mu sync.Mutex
		c := newClient(t, Options{BaseURL: s.URL, TokenFile: s.TokenFile(), Transport: s.Transport(), OnCall: func(op, result string) {
			mu.Lock()
			defer mu.Unlock()
			results[op+" "+result]++
		}})
		began := time.Now()
		var wg sync.WaitGroup
		for range 30 {
			for _, id := range []string{"m", "n"} {
				wg.Go(func() { _, _ = c.Start(t.Context(), "a", id, "") })
				wg.Go(func() { _, _ = c.Get(t.Context(), "a", id) })
			}
		}
		wg.Wait()
		if took := time.Since(began); took < 27*time.Second || took > 31*time.Second {
			t.Errorf("30 starts took %v", took)
		}
		want := map[string]int{"start ok": 2, "start busy": 58, "get ok": 60}
		for k, n := range want {
			if results[k] != n {
				t.Errorf("%v, want %v", results, want)
				break
			}
		}
		// Whoever cannot wait for the turn is told so, and has spent nothing.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		for range 4 {
			_, _ = c.Start(t.Context(), "a", "m", "")
		}
		n := s.Count(fakefly.Start, "m")
		if _, err := c.Start(ctx, "a", "m", ""); !errors.Is(err, context.DeadlineExceeded) || s.Count(fakefly.Start, "m") != n {
			t.Error(err)
		}
	})
}

func TestTheBudgetForgetsFullBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		for i := range 100 * sweepAt {
			if err := b.take(t.Context(), spender{"a", fmt.Sprint(i), opStart}); err != nil {
				t.Fatal(err)
			}
			if i%sweepAt == 0 {
				time.Sleep(time.Minute)
			}
		}
		if n := len(b.buckets); n > 3*sweepAt {
			t.Errorf("%d buckets", n)
		}
	})
}
