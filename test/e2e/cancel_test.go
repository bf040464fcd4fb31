// Cancel: only the issuer's own running query, and nothing else, whoever asks how often.

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

// sendCancel sends a CancelRequest and returns when the gate has closed the connection.
func (g *gate) sendCancel(listener string, pid uint32, secret []byte) error {
	return harness.SendCancel(g.Addr(g.t, listener), pid, secret)
}

// awaitRunning waits until a query with the text runs in the gate's database.
func (g *gate) awaitRunning(t *testing.T, text string) {
	t.Helper()
	watch := g.direct(t)
	quoted := strings.ReplaceAll(text, "'", "''")
	harness.Eventually(t, harness.Patience, "running: "+text, func() bool {
		return value(t, watch, "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and query = '"+quoted+"'") != "0"
	})
	closeConn(watch)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	for _, mode := range modes {
		for i, options := range [][]string{nil, {"max_protocol_version=3.2"}, {"sslmode=require"}} {
			s := g.script(t, mode, options...)
			if want := map[bool]int{false: 4, true: 32}[i == 1]; len(s.secret) != want {
				t.Errorf("%s %v: a secret of %d bytes, want %d", mode, options, len(s.secret), want)
			}
			if s.pid == 0 || s.pid>>31 != 0 {
				t.Errorf("process id %d", s.pid)
			}
			text := fmt.Sprintf("select pg_sleep(60+%d)", i)
			s.say(query(text))
			g.awaitRunning(t, text)
			wrong := append([]byte(nil), s.secret...)
			wrong[0] ^= 1
			for _, key := range [][]byte{wrong, s.secret[:3], append(append([]byte(nil), s.secret...), 0)} {
				if err := g.sendCancel(mode, s.pid, key); err != nil {
					t.Fatal(err)
				}
			}
			if err := g.sendCancel(modes[(i+1)%3], s.pid, s.secret); err != nil { // by any listener
				t.Fatal(err)
			}
			if got := s.hear(1); got != "T E:57014 Z:I" {
				t.Errorf("%s: %s", mode, got)
			}
			s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
			s.conn.Close()
		}
	}
	// Counted when the request has arrived for certain, which the client does not wait for.
	harness.Eventually(t, harness.Patience, "nine cancels sent, none by a wrong key", func() bool {
		return g.metric("postern_cancels_total", "result", "sent") == 9 && g.metric("postern_cancels_total", "result", "unknown") == 27
	})
}

func TestCancelByPGX(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	for _, options := range [][]string{{"sslmode=require"}, {"max_protocol_version=3.2", "min_protocol_version=3.2"}} {
		conn := g.connect(t, "transaction", options...)
		ended := make(chan error, 1)
		text := "select pg_sleep(70)"
		go func() {
			_, err := conn.PgConn().Exec(context.Background(), text).ReadAll()
			ended <- err
		}()
		g.awaitRunning(t, text)
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, <-ended, "57014")
		if v := value(t, conn, "select 1"); v != "1" {
			t.Error(v)
		}
	}
}

// TestCancelByPSQL interrupts psql, which then sends a cancel request by libpq, of both generations.
func TestCancelByPSQL(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	for name, env := range map[string][]string{"15": nil, "18": harness.LibpqEnv(t), "18 at 3.2": append(harness.LibpqEnv(t), "PGMAXPROTOCOLVERSION=3.2", "PGMINPROTOCOLVERSION=3.2")} {
		for _, sslmode := range []string{"disable", "require"} {
			cmd := exec.Command(harness.Program(t, "psql"), "-X", "-A", "-t", "-d", strings.Replace(g.dsn("transaction"), "sslmode=disable", "sslmode="+sslmode, 1))
			cmd.Env = append(os.Environ(), env...)
			cmd.Stdin = strings.NewReader("select pg_sleep(80);\n")
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			g.awaitRunning(t, "select pg_sleep(80);")
			_ = cmd.Process.Signal(syscall.SIGINT)
			err := cmd.Wait()
			if !strings.Contains(out.String(), "canceling statement due to user request") {
				t.Errorf("psql %s, %s: %v\n%s", name, sslmode, err, out.String())
			}
		}
	}
}

// TestCancelStorm sends 100 cancel requests at once, around the end of a short query, on a pool of one. Whatever becomes of
// that query, nobody else's is hit: neither those of others on the same server, nor the issuer's next.
func TestCancelStorm(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	const senders, bystanders, rounds = 100, 4, 20
	var quiet errgroup.Group
	var stop atomic.Bool
	for n := range bystanders {
		s := g.script(t, "transaction")
		quiet.Go(func() error {
			for i := 0; !stop.Load(); i++ {
				want := fmt.Sprintf("T D:bystander %d, C:SELECT_1 Z:I", i)
				if got, err := s.try(1, query(fmt.Sprintf("select 'bystander %d', pg_sleep(0.003)", i))); err != nil || got != want {
					return fmt.Errorf("bystander %d: %s (%v)", n, got, err)
				}
			}
			return nil
		})
	}
	issuer := g.script(t, "transaction")
	hit := 0
	for round := 0; round < rounds || hit == 0 && round < 10*rounds; round++ { // on a busy computer it may take some more to hit
		// The second row drives the first out of the server's buffer: when that comes, the query is running.
		issuer.say(query("select repeat('x', 10000) from generate_series(1, 2); select pg_sleep(0.02)"))
		if got := issuer.next() + issuer.next()[:2]; got != "TD:" {
			t.Fatal(got)
		}
		var storm errgroup.Group
		for range senders {
			storm.Go(func() error {
				time.Sleep(rand.N(20 * time.Millisecond))
				return g.sendCancel("transaction", issuer.pid, issuer.secret)
			})
		}
		switch got := issuer.hear(1); {
		case strings.HasSuffix(got, " C:SELECT_2 T D: C:SELECT_1 Z:I"):
		case strings.HasSuffix(got, " E:57014 Z:I"):
			hit++
		default:
			t.Errorf("issuer: %s", got)
		}
		if err := storm.Wait(); err != nil {
			t.Error(err)
		}
		issuer.want("T D:next, C:SELECT_1 Z:I", 1, query("select 'next', pg_sleep(0.002)"))
	}
	stop.Store(true)
	if err := quiet.Wait(); err != nil {
		t.Error(err)
	}
	if hit == 0 || g.metric("postern_cancels_total", "result", "sent") == 0 {
		t.Error("no cancel ever hit")
	}
}

// TestLateCancel aims at queries that may be over when it arrives: the issuer's own next one is not hit either, whether its
// server is its own or not.
func TestLateCancel(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 5})
	var all errgroup.Group
	for n, tc := range []struct{ mode, first, last string }{
		{mode: harness.Transaction}, {mode: harness.Transaction}, {mode: harness.Transaction},
		{mode: harness.Session}, {mode: harness.Session}, {harness.Transaction, "begin", "rollback"},
	} {
		s := g.script(t, tc.mode)
		random := rand.New(rand.NewPCG(7, uint64(n)))
		all.Go(func() error {
			for range 30 {
				ok, status := "Z:I", "I"
				if tc.first != "" {
					if got, err := s.try(1, query(tc.first)); err != nil || got != "C:BEGIN Z:T" {
						return fmt.Errorf("client %d: %s (%v)", n, got, err)
					}
					ok, status = "Z:T", "E"
				}
				s.Send(query("select pg_sleep(0.003)"))
				if err := s.Flush(); err != nil {
					return err
				}
				time.Sleep(time.Duration(random.IntN(10000)) * time.Microsecond) // any moment is a good one
				if err := g.sendCancel(tc.mode, s.pid, s.secret); err != nil {
					return err
				}
				got, err := s.tryHear(1)
				hit := got == "T E:57014 Z:"+status || got == "E:57014 Z:"+status || got == "T D: E:57014 Z:"+status
				if err != nil || !hit && got != "T D: C:SELECT_1 "+ok {
					return fmt.Errorf("client %d: %s (%v)", n, got, err)
				}
				if tc.last != "" && hit {
					if got, err := s.try(1, query(tc.last)); err != nil || got != "C:ROLLBACK Z:I" {
						return fmt.Errorf("client %d: %s (%v)", n, got, err)
					}
					continue
				}
				if got, err := s.try(1, query("select 'next', pg_sleep(0.002)")); err != nil || got != "T D:next, C:SELECT_1 "+ok {
					return fmt.Errorf("client %d, next: %s (%v)", n, got, err)
				}
				if tc.last != "" {
					if got, err := s.try(1, query(tc.last)); err != nil || got != "C:ROLLBACK Z:I" {
						return fmt.Errorf("client %d: %s (%v)", n, got, err)
					}
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCancelWithoutAQuery does nothing: the key of an idle session, and that of one that has ended.
func TestCancelWithoutAQuery(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	idle, ended := g.script(t, "transaction"), g.script(t, "transaction")
	ended.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	ended.conn.Close()
	harness.Eventually(t, harness.Patience, "the session has ended", func() bool { return g.logged("session ended") > 0 })
	busy := g.script(t, "transaction")
	busy.say(query("select pg_sleep(3)"))
	g.awaitRunning(t, "select pg_sleep(3)")
	for _, s := range []*script{idle, ended} {
		if err := g.sendCancel("transaction", s.pid, s.secret); err != nil {
			t.Fatal(err)
		}
	}
	if got := busy.hear(1); got != "T D: C:SELECT_1 Z:I" {
		t.Error(got)
	}
	harness.Eventually(t, harness.Patience, "one is counted as idle, one as unknown", func() bool {
		return g.metric("postern_cancels_total", "result", "idle") == 1 && g.metric("postern_cancels_total", "result", "unknown") == 1
	})
}

// TestCancelWhileWaiting ends a query that has no server yet.
func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	holder, waiter, extended := g.script(t, "transaction"), g.script(t, "transaction"), g.script(t, "transaction")
	holder.want("C:BEGIN Z:T", 1, query("begin"))
	waiter.say(query("select 'never'"))
	extended.say(parse("", "select 'never'"), bind(""), execute(), syncUp())
	harness.Eventually(t, harness.Patience, "both wait", func() bool { return g.metric("postern_waiting_clients", "tenant", "acme") == 2 })
	for _, s := range []*script{waiter, extended} {
		if err := g.sendCancel("transaction", s.pid, s.secret); err != nil {
			t.Fatal(err)
		}
		if got := s.hear(1); got != "E:57014 Z:I" {
			t.Error(got)
		}
	}
	holder.want("C:COMMIT Z:I", 1, query("commit"))
	waiter.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	extended.want("E:26000 Z:I", 1, bind(""), execute(), syncUp()) // that Parse was never run
}

// TestCancelObeysTheAllowList, by the address that the PROXY header names.
func TestCancelObeysTheAllowList(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: func(m harness.Map) { m["allow_list"] = []string{"198.51.100.0/24"} }})
	conn, err := g.from(t, "transaction", "198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	pid, secret := conn.PgConn().PID(), conn.PgConn().SecretKey()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(context.Background(), "select pg_sleep(90)").ReadAll()
		ended <- err
	}()
	g.awaitRunning(t, "select pg_sleep(90)")
	for _, client := range []string{"203.0.113.9", "198.51.100.8"} {
		c, err := harness.ProxyDialer{Header: header(2, client)}.DialContext(t.Context(), "tcp4", g.Addr(t, "transaction"+proxied))
		if err != nil {
			t.Fatal(err)
		}
		b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, byte(12 + len(secret)), 4, 210, 22, 46}, pid)
		if _, err := c.Write(append(b, secret...)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(c)
		c.Close()
		if client == "203.0.113.9" {
			select {
			case err := <-ended:
				t.Fatalf("cancelled by a stranger: %v", err)
			default:
			}
			harness.Eventually(t, harness.Patience, "one is refused", func() bool { return g.metric("postern_cancels_total", "result", "refused") == 1 })
		}
	}
	wantState(t, <-ended, "57014")
}
