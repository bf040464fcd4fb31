// The door of package proxy, in this process, against a real PostgreSQL: a driver works over what a seat opens.

package e2e

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/proxy"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// greetedAlready is a connection whose other end has had the startup message.
type greetedAlready struct {
	net.Conn
	begun bool
}

func (g *greetedAlready) Write(p []byte) (int, error) {
	if !g.begun {
		g.begun = true
		return len(p), nil
	}
	return g.Conn.Write(p)
}

func TestDriverThroughTheDoor(t *testing.T) {
	cluster := harness.Postgres(t)
	database := harness.Database(t, cluster)
	user := &tenants.User{Name: harness.App, ServerUser: harness.App, ServerAuth: tenants.AuthSCRAM, Verifier: tenants.NewSecret(harness.Verifier(t, cluster, harness.App))}
	directory, err := tenants.NewDirectory(&tenants.Tenant{ID: "acme", Database: database, Users: map[string]*tenants.User{harness.App: user},
		Upstream: tenants.Upstream{Host: "127.0.0.1", Port: uint16(cluster.Port()), TLS: tenants.TLSDisable}, Pool: tenants.Pool{Size: 1, MaxClients: 10, MaxServers: 1}})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := proxy.New(proxy.Options{Directory: directory, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Loops: 1,
		Timeouts: proxy.Timeouts{Login: harness.Patience, ServerConnect: harness.Patience}, Session: tenants.Timeouts{QueryWait: new(harness.Patience)},
		Limits: proxy.Limits{Clients: 10, Handshakes: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if err := gate.Start(); err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	door := gate.Door(proxy.Listener{Name: "door", Mode: harness.Transaction})
	startup, err := pgwire.StartupBody([]pgwire.Param{{Name: "user", Value: harness.App + ".acme"}, {Name: "application_name", Value: "caller"}})
	if err != nil {
		t.Fatal(err)
	}

	var conns []*pgx.Conn
	for range 2 { // who share a server
		seat, err := door.Admit(t.Context(), proxy.Caller{Client: netip.MustParseAddrPort("198.51.100.7:1234"), Startup: startup, Proof: proxy.Password(harness.AppPassword)})
		if err != nil {
			t.Fatal(err)
		}
		defer seat.Leave()
		conf, err := pgx.ParseConfig("postgres://nobody@198.51.100.1/none?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		conf.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			far, err := seat.Open()
			return &greetedAlready{Conn: far}, err
		}
		conn, err := pgx.ConnectConfig(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for i := range 6 {
		var who, where, name string
		err := conns[i%2].QueryRow(t.Context(), "select current_user, current_database(), current_setting('application_name') where $1::int = $1", i).Scan(&who, &where, &name)
		if err != nil || who != harness.App || where != database || name != "caller" {
			t.Errorf("%s in %s as %s, %v", who, where, name, err)
		}
	}
	for _, conn := range conns {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	drained, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	gate.Drain(drained) // returns at once if nobody has a place any more
	if drained.Err() != nil {
		t.Error("somebody still has a place")
	}
}
