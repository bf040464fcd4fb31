// What a suite may demand of the computer and of its user's time.

package harness

import (
	"os"
	"syscall"
	"testing"
)

// longVariable asks for the longer suite when it is set to anything.
const longVariable = "POSTERN_TEST_LONG"

// Long says whether this is the longer suite, in which a test may take minutes. Both suites run every test; this one runs
// some with larger numbers.
func Long() bool { return os.Getenv(longVariable) != "" }

// Descriptors raises the limit on open files to want, or as far as this account may, for the test and for the processes that
// it starts from now on. It returns how many may be open then, want at most.
func Descriptors(t testing.TB, want int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = max(limit.Cur, uint64(want))
	// A privileged account may raise the hard limit, others the soft one up to that.
	for _, hard := range []uint64{max(limit.Max, limit.Cur), limit.Max} {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: min(limit.Cur, hard), Max: hard}); err == nil {
			return int(min(uint64(want), hard))
		}
	}
	t.Fatalf("the limit on open files cannot be set, not even to %d", limit.Max)
	return 0
}
