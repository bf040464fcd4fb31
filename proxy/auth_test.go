// Logins that prove their passwords at the same time.

package proxy

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// guess holds the server's side of a login against a client with a wrong password, which sends its proof once go is closed.
func (b *bench) guess(verifier scram.Verifier, ready func(), start <-chan struct{}) error {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	var client sync.WaitGroup
	client.Go(func() {
		conn, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			b.t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = readMessage(b.t, conn)
		c := scram.NewClient(scram.Credentials{Password: "wrong"}, scram.ChannelBinding{}, false, scram.ClientOptions{})
		first := append(append([]byte(scram.Mechanism), 0, 0, 0, 0, byte(len(c.First()))), c.First()...)
		_, _ = conn.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(first)), first...))
		_, body := readMessage(b.t, conn)
		final, err := c.Final(body[4:])
		if err != nil {
			b.t.Error(err)
		}
		ready()
		<-start
		_, _ = conn.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(final)), final...))
	})
	defer client.Wait()
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	v := &visitor{gate: b.gate, startup: new(pgwire.Startup), route: tenants.Route{Tenant: "acme", User: "app"},
		peer: proxyproto.Direct(netip.MustParseAddrPort("192.0.2.1:1"))}
	_, _, err = sasl{in: conn, out: conn}.prove(b.t.Context(), v, verifier, true)
	return err
}

// TestParallelLoginsShareTheirGuesses: however many logins of one address are under way, it has no more guesses than the
// throttle allows.
func TestParallelLoginsShareTheirGuesses(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	const logins = 20 * netrestrict.DefaultTenantFailures
	b := newBench(t)
	verifier, err := scram.NewVerifier("right", scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all, ready sync.WaitGroup
	var guessed, refused atomic.Int64
	start := make(chan struct{})
	ready.Add(logins)
	for range logins {
		all.Go(func() {
			var e *pgwire.Error
			switch err := b.guess(verifier, ready.Done, start); {
			case !errors.As(err, &e):
				t.Errorf("got %v", err)
			case e.Code == "28P01":
				guessed.Add(1)
			case e.Code == "53400":
				refused.Add(1)
			default:
				t.Error(e)
			}
		})
	}
	ready.Wait()
	close(start)
	all.Wait()
	if guessed.Load() != netrestrict.DefaultTenantFailures || refused.Load() != logins-netrestrict.DefaultTenantFailures {
		t.Errorf("%d guesses and %d refusals, want %d and the rest", guessed.Load(), refused.Load(), netrestrict.DefaultTenantFailures)
	}
}
