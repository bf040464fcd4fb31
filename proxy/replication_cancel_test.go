// Bytes and cancel requests of a replication session that meet.

package proxy

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestCrossing: bytes wait for a request that was there before them, and one request that is newer waits for the bytes.
func TestCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x crossing
		x.yield(t.Context())() // nothing is on its way
		over, ok := x.enter(t.Context())
		if !ok {
			t.Fatal("the first request is not sent")
		}
		if _, ok := x.enter(t.Context()); ok {
			t.Error("a second one is sent for the same")
		}
		var events []string
		sent := make(chan struct{})
		go func() {
			passed := x.yield(t.Context())
			events = append(events, "bytes")
			passed()
			close(sent)
		}()
		synctest.Wait()
		if len(events) > 0 {
			t.Error("bytes pass a request that is on its way")
		}
		go func() {
			over, ok := x.enter(t.Context())
			if !ok {
				t.Error("one for what waits is not sent")
				return
			}
			events = append(events, "another")
			over()
		}()
		synctest.Wait()
		if _, ok := x.enter(t.Context()); ok {
			t.Error("and a third")
		}
		over()
		<-sent
		synctest.Wait()
		if len(events) != 2 || events[0] != "bytes" || events[1] != "another" {
			t.Errorf("in this order: %v", events)
		}
		if x.onWay != nil || x.held != nil || x.another {
			t.Errorf("something is left: %+v", &x)
		}
	})
}

// TestCrossingEnds when there is no more time.
func TestCrossingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x crossing
		over, _ := x.enter(t.Context())
		ended, stop := context.WithCancel(t.Context())
		go x.yield(t.Context())
		synctest.Wait()
		go func() {
			if _, ok := x.enter(ended); ok {
				t.Error("sent all the same")
			}
		}()
		synctest.Wait()
		stop()
		synctest.Wait()
		over()
	})
}
