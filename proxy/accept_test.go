// Accepting goes on after errors, with pauses that grow.

package proxy

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// exhausted is a listener that never has a descriptor for who comes, and notes when it was asked.
type exhausted struct {
	net.Listener
	began time.Time
	asked []time.Duration
}

func (l *exhausted) Accept() (net.Conn, error) {
	l.asked = append(l.asked, time.Since(l.began))
	if len(l.asked) == 11 {
		return nil, net.ErrClosed
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp4", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

// TestAcceptBacksOff where too many files are open: it goes on, less and less often, and says so once a second at most.
func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		ln := &exhausted{began: time.Now()}
		g := &Gate{log: slog.New(slog.NewTextHandler(&said, nil)), limited: newLimitedLog()}
		newAcceptor(g, &Listener{Name: "a"}, ln).run()
		var want []time.Duration
		for _, ms := range []int{0, 5, 15, 35, 75, 155, 315, 635, 1275, 2275, 3275} {
			want = append(want, time.Duration(ms)*time.Millisecond)
		}
		if diff := cmp.Diff(want, ln.asked); diff != "" {
			t.Error(diff)
		}
		if n := strings.Count(said.String(), "too many open files"); n != 3 {
			t.Errorf("%d lines in 3.3 s:\n%s", n, &said)
		}
	})
}
