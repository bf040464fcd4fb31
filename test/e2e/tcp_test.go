// What TCP says of peers: one that acknowledges lives however long it takes, one that does not is gone.

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// userTimeout is the shortest there is.
const userTimeout = 2 * time.Second

// impatient is a gate that gives up peers that acknowledge nothing as soon as may be.
func impatient(t *testing.T, tenant func(harness.Map)) *gate {
	return startGate(t, gateConf{PoolSize: 2, TCP: harness.Map{"user_timeout": userTimeout.String()}, Tenant: tenant})
}

// TestPeersThatOnlyPauseLive for much longer than tcp.user_timeout: a server that reads nothing because of a lock, and a client
// that reads nothing of a large result.
func TestPeersThatOnlyPauseLive(t *testing.T) {
	t.Parallel()
	g := impatient(t, nil)
	locker := g.direct(t)
	do(t, locker, "create table heap (line text); grant all on heap to app")
	do(t, locker, "begin")
	do(t, locker, "lock table heap")

	reader := g.script(t, harness.Session)
	defer reader.conn.Close()
	reader.say(query("select repeat('x', 1000000) from generate_series(1, 30)"))

	uploader, err := pgconn.Connect(t.Context(), g.dsn(harness.Transaction))
	if err != nil {
		t.Fatal(err)
	}
	defer uploader.Close(context.Background())
	line := strings.Repeat("y", 1023) + "\n"
	const lines = 30 << 10
	copied := make(chan error, 1)
	go func() {
		ctx, stop := context.WithTimeout(context.Background(), harness.Patience)
		defer stop()
		tag, err := uploader.CopyFrom(ctx, strings.NewReader(strings.Repeat(line, lines)), "copy heap from stdin")
		if err == nil && tag.RowsAffected() != lines {
			t.Errorf("copied %s", tag)
		}
		copied <- err
	}()
	select {
	case err := <-copied:
		t.Errorf("the upload behind a lock ended: %v", err)
	case <-time.After(3 * userTimeout):
	}
	do(t, locker, "rollback")
	if !t.Failed() {
		if err := <-copied; err != nil {
			t.Error(err)
		}
	}
	_ = reader.conn.SetDeadline(time.Now().Add(harness.Patience))
	for rows := 0; ; {
		m, err := reader.Receive()
		if err != nil {
			t.Fatalf("after %d rows: %v", rows, err)
		}
		if _, ok := m.(*pgproto3.DataRow); ok {
			rows++
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			if rows != 30 {
				t.Errorf("%d rows", rows)
			}
			break
		}
	}
}

// TestPeersThatVanish: nobody waits for what was sent to a client or a server that acknowledges nothing any more, and the log
// says what it was.
func TestPeersThatVanish(t *testing.T) {
	t.Parallel()
	var toServer *harness.Relay
	g := impatient(t, func(tenant harness.Map) {
		up := tenant["upstream"].(harness.Map)
		toServer = harness.NewRelay(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(up["port"].(int))), harness.Faults{})
		host, port, err := net.SplitHostPort(toServer.Addr())
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		tenant["upstream"] = harness.Map{"host": host, "port": number, "tls": "disable"}
	})
	do(t, g.direct(t), "create table heap (line text); grant all on heap to app")
	toClient := harness.NewRelay(t, g.Addr(t, harness.Session), harness.Faults{})
	conf, err := pgconn.ParseConfig(g.dsn(harness.Session))
	if err != nil {
		t.Fatal(err)
	}
	conf.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, toClient.Addr())
	}
	client, err := pgconn.ConnectConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	socket := client.Conn()
	defer socket.Close()
	ask, err := query("select repeat('x', 1000000) from generate_series(1, 100)").Encode(nil)
	if err == nil {
		_, err = socket.Write(ask)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, socket, 3<<20); err != nil {
		t.Fatal(err)
	}
	toClient.Lose(t, 100)
	harness.Eventually(t, harness.Patience, "the client that vanished has no server", func() bool {
		return g.metric("postern_client_connections", "tenant", "acme") == 0 && g.metric("postern_server_connections", "tenant", "acme", "state", "active") == 0
	})
	harness.Eventually(t, harness.Patience, "the log says that a client acknowledged nothing", func() bool {
		return g.logged("session ended", "reason", "client_timeout") == 1
	})

	uploader := g.script(t, harness.Transaction)
	uploader.want("C:BEGIN Z:T", 1, query("begin")) // it has a server, which is not logged in to through a dead network
	uploader.say(query("copy heap from stdin"))
	if answer, err := uploader.Receive(); err != nil {
		t.Fatalf("%T, %v", answer, err)
	}
	told := make(chan string, 1)
	go func() { // while it writes, because what it is told may come before a write fails
		answer, err := uploader.Receive()
		if e, ok := answer.(*pgproto3.ErrorResponse); ok {
			told <- e.Code
			return
		}
		told <- fmt.Sprintf("%T, %v", answer, err)
	}()
	lines, err := (&pgproto3.CopyData{Data: []byte(strings.Repeat(strings.Repeat("z", 99)+"\n", 100))}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for sent := 0; err == nil; sent += len(lines) {
		if sent > 1<<20 && sent-len(lines) <= 1<<20 {
			toServer.Lose(t, 100)
		}
		_, err = uploader.conn.Write(lines)
	}
	if code := <-told; code != "08006" {
		t.Errorf("the client of a server that vanished was told %s", code)
	}
	harness.Eventually(t, harness.Patience, "the log names the cause", func() bool {
		return g.logged("server connection lost", "why", "timed out: the server acknowledges nothing") == 1
	})
}

// TestListenersSpeakPlainTCP: on sockets of multipath TCP the options of tcp would have no effect.
func TestListenersSpeakPlainTCP(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	for _, address := range []string{g.Addr(t, harness.Transaction), g.Addr(t, harness.Session+proxied), strings.TrimPrefix(g.AdminURL(), "http://")} {
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if multipath, err := conn.(*net.TCPConn).MultipathTCP(); multipath || err != nil {
			t.Errorf("%s speaks multipath TCP: %v, %v", address, multipath, err)
		}
		conn.Close()
	}
}
