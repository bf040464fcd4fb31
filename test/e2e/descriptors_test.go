// Few files may be open: what strangers hold must not be what clients and their servers need.

package e2e

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

// idlers are sockets of strangers, from several addresses, which do nothing. They are closed at the end of the test.
func idlers(t *testing.T, address string, n int) {
	t.Helper()
	var held []net.Conn
	t.Cleanup(func() {
		for _, conn := range held {
			conn.Close()
		}
	})
	for i := range n {
		d := net.Dialer{Timeout: harness.Patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%50))}}
		conn, err := d.DialContext(t.Context(), "tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
}

// allAtOnce has each client need a server of its own.
func allAtOnce(t *testing.T, clients []*pgx.Conn) {
	t.Helper()
	var all errgroup.Group
	for _, conn := range clients {
		all.Go(func() error {
			_, err := tryValue(t.Context(), conn, "select pg_sleep(0.3)")
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// hadDescriptors looks for what the log says where one was missing.
func (g *gate) hadDescriptors(t *testing.T) {
	t.Helper()
	if g.Log().Contains("too many open files") {
		t.Error("there was a descriptor too few at times")
	}
}

// TestStrangersLeaveDescriptors: five hundred idle sockets of strangers where 256 files may be open.
func TestStrangersLeaveDescriptors(t *testing.T) {
	t.Parallel()
	const files, strangers = 256, 500
	g := startGate(t, gateConf{Files: files, PoolSize: 20})
	if n := g.logged("few files may be open: fewer clients are let in than limits say", "open_files", files); n != 1 {
		t.Errorf("said %d times", n)
	}
	var clients []*pgx.Conn
	for range 20 {
		clients = append(clients, g.connect(t, "transaction"))
	}
	idlers(t, g.Addr(t, "transaction"), strangers)
	harness.Eventually(t, harness.Patience, "strangers are refused", func() bool { return g.metric("postern_refusals_total", "reason", "limit") >= strangers/2 })
	allAtOnce(t, clients)
	if status := readyz(t, g); status != http.StatusOK {
		t.Errorf("/readyz is %d", status)
	}
	g.hadDescriptors(t)
}

// TestClientsLeaveDescriptors: as many clients as are let in, and the next one is told why it is not.
func TestClientsLeaveDescriptors(t *testing.T) {
	t.Parallel()
	const files = 200
	g := startGate(t, gateConf{Files: files, PoolSize: 20})
	var clients []*pgx.Conn
	for {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		conn, err := pgx.ConnectConfig(ctx, configOf(t, g.dsn("transaction")))
		cancel()
		if err != nil {
			var told *pgconn.PgError
			if !errors.As(err, &told) || told.Code != "53300" {
				t.Errorf("after %d clients: %v", len(clients), err)
			}
			break
		}
		t.Cleanup(func() { closeConn(conn) })
		if clients = append(clients, conn); len(clients) >= files {
			t.Fatalf("%d clients with %d files", len(clients), files)
		}
	}
	if len(clients) < files/8 {
		t.Errorf("only %d clients are let in", len(clients))
	}
	idlers(t, g.Addr(t, "session"), 100)
	began := time.Now()
	allAtOnce(t, clients)
	t.Logf("%d clients with %d files; all had a server within %v", len(clients), files, time.Since(began))
	if status := readyz(t, g); status != http.StatusOK {
		t.Errorf("/readyz is %d", status)
	}
	g.hadDescriptors(t)
}

// TestAdminLeavesDescriptors: whoever can reach the admin's address takes no more than what is kept for it.
func TestAdminLeavesDescriptors(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Files: 256, PoolSize: 20})
	var clients []*pgx.Conn
	for range 20 {
		clients = append(clients, g.connect(t, "transaction"))
	}
	idlers(t, g.AdminURL()[len("http://"):], 250)
	allAtOnce(t, clients)
	// They are closed when no request comes, and then it answers again.
	harness.Eventually(t, harness.Patience, "/readyz answers", func() bool {
		resp, err := http.Get(g.AdminURL() + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	g.hadDescriptors(t)
}
