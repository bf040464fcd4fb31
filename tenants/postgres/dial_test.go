// Tests of connections to a store that is cut off, and of what a process that is cut off leaves there.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// relayed is a store behind a relay.
func relayed(t *testing.T) (*world, *harness.Relay) {
	t.Helper()
	c := harness.Postgres(t)
	w := newWorld(t, c)
	r := harness.NewRelay(t, c.Addr(), harness.Faults{})
	host, port, _ := net.SplitHostPort(r.Addr())
	w.dsn = strings.Replace(w.dsn, fmt.Sprintf("host=127.0.0.1 port=%d", c.Port()), "host="+host+" port="+port, 1)
	return w, r
}

// TestCutOffConnectionsEnd, those that wait for an answer as well as idle ones, long before TCP would give up.
func TestCutOffConnectionsEnd(t *testing.T) {
	t.Parallel()
	w, r := relayed(t)
	dial := w.conf().DialFunc
	var conns [2]net.Conn
	for i := range conns {
		var err error
		if conns[i], err = dial(t.Context(), "tcp", r.Addr()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	harness.Eventually(t, harness.Patience, "they have come", func() bool { return r.Came() == len(conns) })
	r.Lose(t, 100)
	if runtime.GOOS == "linux" { // elsewhere what was sent is sent again for minutes
		if _, err := conns[0].Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, len(conns)+1)
	for _, conn := range conns {
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
	}
	go func() {
		_, err := dial(t.Context(), "tcp", r.Addr())
		ended <- err
	}()
	for range cap(ended) {
		select {
		case err := <-ended:
			var network net.Error
			if !errors.As(err, &network) || !network.Timeout() {
				t.Errorf("it ends with %v", err)
			}
		case <-time.After(harness.Patience):
			t.Fatal("somebody still waits for who is not there")
		}
	}
}

// TestCutOffWhileConnecting: what has begun to talk to the store does not wait for its answers for long.
func TestCutOffWhileConnecting(t *testing.T) {
	t.Parallel()
	w, r := relayed(t)
	conf := w.conf()
	conf.DialFunc = new(net.Dialer).DialContext // which alone would notice it, too
	conf.AfterConnect = func(context.Context, *pgconn.PgConn) error { r.Lose(t, 100); return nil }
	ended := make(chan error, 1)
	go func() {
		_, err := connect(t.Context(), conf)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !pgconn.Timeout(err) {
			t.Errorf("%v", err)
		}
	case <-time.After(harness.Patience):
		t.Error("it waits for ever")
	}
}

// TestServerForgets: a session whose process is not reached any more ends, unless the connection string wants something else.
func TestServerForgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	has := func(want ...string) {
		t.Helper()
		conn, err := connect(t.Context(), w.conf())
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(conn)
		var got []string
		for _, p := range sessionParams {
			var value string
			if err := conn.QueryRow(t.Context(), "SELECT setting FROM pg_settings WHERE name = $1", p[0]).Scan(&value); err != nil {
				t.Fatal(err)
			}
			got = append(got, value)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	has("off", "5", "2", "3", "10000")
	w.dsn += " tcp_user_timeout=20000 jit=on"
	has("on", "5", "2", "3", "20000")
}

// TestAnnouncingHoldsUpNobody: others go on saying that they live while a process stands still that was about to take its row.
func TestAnnouncingHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	f := w.followAs("a")
	seen := func() time.Time {
		all, _ := w.nodes()
		if len(all) != 1 {
			return time.Time{}
		}
		return all[0].Seen
	}
	harness.Eventually(t, harness.Patience, "it is there", func() bool { return !seen().IsZero() })
	frozen := w.connect()
	tx, err := frozen.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := f.opts
	o.Node, o.Boot = "b", "frozen"
	if err := newPresence(&o, func() string { return "" }).take(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	last := seen()
	harness.Eventually(t, harness.Patience, "the other one is heard of again", func() bool { return seen().After(last) })
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("it goes on when others have gone on")
	}
}

// TestNames: while nobody says where the store is, it is where it was.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer []string
		var fails error
		hangs := false
		n := newNames(func(ctx context.Context, host string) ([]string, error) {
			if hangs {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return answer, fails
		})
		is := func(want string, wantErr error) {
			t.Helper()
			if at, err := n.lookup(t.Context(), "db"); strings.Join(at, " ") != want || !errors.Is(err, wantErr) {
				t.Errorf("%v, %v, want %s, %v", at, err, want, wantErr)
			}
		}
		away, gone := &net.DNSError{IsTimeout: true}, &net.DNSError{IsNotFound: true}
		fails = away
		is("", away) // it was never found
		answer, fails = []string{"192.0.2.1", "192.0.2.2"}, nil
		is("192.0.2.1 192.0.2.2", nil)
		hangs = true
		began := time.Now()
		is("192.0.2.1 192.0.2.2", nil)
		if waited := time.Since(began); waited != namePatience {
			t.Errorf("it has waited %v", waited)
		}
		<-time.After(nameWithin)
		synctest.Wait()
		hangs, fails = false, away
		is("192.0.2.1 192.0.2.2", nil)
		answer, fails = nil, gone
		is("", gone)
		answer, fails = []string{"192.0.2.3"}, nil
		is("192.0.2.3", nil)
	})
}

// TestBackInTime: who was cut off is heard of before anybody who looks 5 s later: a try that has just begun to wait in vain, a pause, and one that
// succeeds.
func TestBackInTime(t *testing.T) {
	firstRetransmit := time.Second // of TCP's, when a connection begins
	if worst := dialTimeout - firstRetransmit + longestPause + namePatience; worst >= silentAfter {
		t.Errorf("it takes %v", worst)
	}
}

// TestNotAllAtOnce: pauses differ between processes, and are neither longer than they should be nor none.
func TestNotAllAtOnce(t *testing.T) {
	all := make(map[time.Duration]bool)
	for range 100 {
		pause := pauseBefore(longestPause)
		if all[pause] = true; pause > longestPause || pause <= longestPause/2 {
			t.Errorf("a pause of %v", pause)
		}
	}
	if len(all) < 2 {
		t.Error("all processes come at once")
	}
}
