// The log for what strangers can cause: what it drops, and that it stays small.

package proxy

import (
	"fmt"
	"testing"
	"time"
)

// TestLimitedLog: lines of one kind come once in a while, and no tenant's hide another's.
func TestLimitedLog(t *testing.T) {
	l := newLimitedLog()
	now := time.Unix(1000, 0)
	pass := func(at time.Duration, tenant, cause string, dropped int, ok bool) {
		t.Helper()
		if n, got := l.pass(now.Add(at), logKey{tenant, cause}); n != dropped || got != ok {
			t.Errorf("%v, %s, %s: %d, %v; want %d, %v", at, tenant, cause, n, got, dropped, ok)
		}
	}
	pass(0, "t010", "wrong_password", 0, true)
	pass(1, "t010", "wrong_password", 0, false)
	pass(1, "t020", "wrong_password", 0, true)
	pass(1, "t010", "address_not_allowed", 0, true)
	pass(1, "", "wrong_password", 0, true)
	pass(logEvery-1, "t010", "wrong_password", 0, false)
	pass(logEvery, "t010", "wrong_password", 2, true)
	pass(logEvery+1, "t010", "wrong_password", 0, false)
}

// TestLimitedLogIsBounded: with too many tenants at a time, those that come late share their lines, and what was quiet makes room.
func TestLimitedLogIsBounded(t *testing.T) {
	l := newLimitedLog()
	now := time.Unix(1000, 0)
	wrote := 0
	for i := range 2 * logKinds {
		if _, ok := l.pass(now, logKey{fmt.Sprint(i), "x"}); ok {
			wrote++
		}
	}
	if wrote != logKinds+1 || len(l.kinds) != logKinds+1 {
		t.Errorf("%d lines of %d kinds, want %d and one for all others", wrote, len(l.kinds), logKinds)
	}
	if _, ok := l.pass(now.Add(logEvery), logKey{"late", "x"}); !ok || len(l.kinds) != 1 {
		t.Errorf("written %v, %d kinds are kept after a while", ok, len(l.kinds))
	}
}

// TestStrangersShareTheirLines: a name that is no tenant's gets no kind of its own.
func TestStrangersShareTheirLines(t *testing.T) {
	b := newBench(t)
	if got, want := b.gate.logKey("acme", "x"), (logKey{"acme", "x"}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := b.gate.logKey("stranger", "x"), (logKey{"", "x"}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
