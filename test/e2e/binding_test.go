// Channel binding: a login inside one TLS session opens nothing in another.

package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// TestChannelBindingRequired has pgx demand that the channel is bound: in plaintext, where nothing can be; in TLS with the
// gate itself; and in TLS that ends at a man in the middle whose certificate pgx trusts, and who passes on what is said.
func TestChannelBindingRequired(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	through := middleman(t, g)
	own := g.port("transaction")
	for _, c := range []struct {
		name, port string
		options    []string
		code       string // of the error; "": it works
	}{
		{"plaintext", own, []string{"sslmode=disable", "channel_binding=require"}, "channel binding required"},
		{"TLS", own, []string{"sslmode=verify-full", "channel_binding=require"}, ""},
		{"direct TLS", own, []string{"sslmode=verify-full", "sslnegotiation=direct", "channel_binding=require"}, ""},
		{"a man in the middle, unnoticed", through, []string{"sslmode=verify-full", "sslnegotiation=direct", "channel_binding=disable"}, ""},
		{"a man in the middle, required", through, []string{"sslmode=verify-full", "sslnegotiation=direct", "channel_binding=require"}, "28000"},
		{"a man in the middle, preferred", through, []string{"sslmode=verify-full", "sslnegotiation=direct", "channel_binding=prefer"}, "28000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := append([]string{"host=localhost", "port=" + c.port, "user=app.acme", "password=pw-app", "connect_timeout=20"}, c.options...)
			if c.options[0] != "sslmode=disable" {
				all = append(all, "sslrootcert="+g.ca.CAFile)
			}
			conf, err := pgx.ParseConfig(strings.Join(all, " "))
			if err != nil {
				t.Fatal(err)
			}
			conf.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
			conn, err := pgx.ConnectConfig(t.Context(), conf)
			if err == nil {
				defer closeConn(conn)
			}
			switch got := sqlstate(err); {
			case c.code == "":
				if err != nil {
					t.Fatal(err)
				}
				if v := value(t, conn, "select 1"); v != "1" {
					t.Error(v)
				}
			case !strings.Contains(got, c.code):
				t.Errorf("got %s (%v), want %s", got, err, c.code)
			}
		})
	}
}

// middleman ends clients' TLS with a certificate of his own, for the same name and of the same authority, and has TLS of
// his own with the gate. Both are direct, so that he need not know the protocol. It returns his port.
func middleman(t *testing.T, g *gate) string {
	t.Helper()
	pair := g.ca.Issue(t, "localhost")
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	alpn := []string{"postgresql"}
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpn})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	target := g.Addr(t, harness.Transaction)
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer client.Close()
				server, err := tls.Dial("tcp4", target, &tls.Config{RootCAs: g.ca.Pool, ServerName: "localhost", NextProtos: alpn})
				if err != nil {
					return
				}
				defer server.Close()
				work.Go(func() { _, _ = io.Copy(server, client); server.Close() })
				_, _ = io.Copy(client, server)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
