// Passwords that are told at the door: how many are judged, what that costs, and for whom.

package proxy

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// TestDoorPasswords that are nobody's.
func TestDoorPasswords(t *testing.T) {
	d := newDoor(t)
	for _, pw := range []string{"", "right\x00", "righ", "rightt", strings.Repeat("right", 1000)} {
		_, err := d.gate.Door(Listener{}).Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startupOf(t, "user", "app.acme"), Proof: Password(pw)})
		var e *pgwire.Error
		if !errors.As(err, &e) || e.Code != "28P01" {
			t.Errorf("%.20q: %v", pw, err)
		}
	}
	if n := d.gate.tenant("acme").counters.loginsFailed.Load(); n != 5 {
		t.Errorf("%d failed logins", n)
	}

	// Nor is one that happens to fit a mock.
	fits, err := scram.NewVerifier("right", scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{gate: d.gate, route: tenants.Route{Tenant: "acme", User: "ghost"}, startup: new(pgwire.Startup)}
	v.peer.Client = netip.MustParseAddrPort("192.0.2.2:1")
	for genuine, want := range map[bool]bool{true: true, false: false} {
		if key, _, err := Password("right").prove(t.Context(), v, fits, genuine); (err == nil) != want || key.Matches(fits) != want {
			t.Errorf("genuine %v: %v", genuine, err)
		}
	}
}

// TestDoorGuesses: however many tell a password at the same time, an address has no more guesses than the throttle allows, and no
// more are hashed at a time than the process can spare.
func TestDoorGuesses(t *testing.T) {
	const callers = 5 * netrestrict.DefaultTenantFailures
	d := newDoor(t)
	d.gate.handshakes = make(chan struct{}, callers)
	d.gate.room.Handshakes = 2 * callers
	way := d.gate.Door(Listener{})
	startup := startupOf(t, "user", "app.acme")
	var all sync.WaitGroup
	var guessed, refused atomic.Int64
	for range callers {
		all.Go(func() {
			_, err := way.Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startup, Proof: Password("wrong")})
			var e *pgwire.Error
			switch {
			case !errors.As(err, &e):
				t.Errorf("got %v", err)
			case e.Code == "28P01":
				guessed.Add(1)
			case e.Code == "53400":
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if guessed.Load() != netrestrict.DefaultTenantFailures || refused.Load() != callers-netrestrict.DefaultTenantFailures {
		t.Errorf("%d guesses and %d refusals, want %d and the rest", guessed.Load(), refused.Load(), netrestrict.DefaultTenantFailures)
	}
}

// TestDoorHashesOutsideTheLock: nobody else's login waits while a password is hashed, however long that takes, and whoever has
// used up its guesses while it waited for its turn is not hashed for.
func TestDoorHashesOutsideTheLock(t *testing.T) {
	d := newDoor(t)
	address := netip.MustParseAddrPort("192.0.2.1:1")
	for range cap(d.gate.proofs) {
		d.gate.proofs <- struct{}{}
	}
	v := &visitor{gate: d.gate, route: tenants.Route{Tenant: "acme", User: "app"}, startup: new(pgwire.Startup)}
	v.peer.Client = address
	slow := scram.Mock([]byte("secret"), "acme", "app", scram.MaxIterations)
	var all sync.WaitGroup
	all.Go(func() {
		if _, _, err := Password("wrong").prove(t.Context(), v, slow, true); err == nil {
			t.Error("let in")
		}
	})
	<-d.gate.proofs // its turn
	free := 0
	for end := time.Now().Add(time.Minute); free < 10 && time.Now().Before(end); {
		before := len(d.gate.proofs)
		if before == cap(d.gate.proofs) && d.gate.throttle.mu.TryLock() {
			d.gate.throttle.mu.Unlock()
			if len(d.gate.proofs) == before {
				free++
			}
		}
		time.Sleep(time.Millisecond)
	}
	all.Wait()
	if free < 10 {
		t.Errorf("the throttle was free %d times while a password was hashed", free)
	}
	d.gate.throttle.with(func(th throttle) {
		for range netrestrict.DefaultTenantFailures {
			th.Failed(time.Now(), "acme", address.Addr())
		}
	})
	began := time.Now()
	var e *pgwire.Error
	if _, err := (password{"wrong"}).derive(t.Context(), v, scram.Verifier{}); !errors.As(err, &e) || e.Code != "53400" {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// TestDoorGhostsCostAsMuch: a password of nobody's is hashed, too, as often as one of somebody's.
func TestDoorGhostsCostAsMuch(t *testing.T) {
	d := newDoor(t)
	way := d.gate.Door(Listener{})
	took := make(map[string][]time.Duration)
	users := []string{"app.acme", "nobody.acme", "app.nowhere"}
	for i := range 30 {
		for _, user := range users {
			began := time.Now()
			_, err := way.Admit(t.Context(), Caller{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 1), Startup: startupOf(t, "user", user), Proof: Password("wrong")})
			took[user] = append(took[user], time.Since(began))
			if err == nil {
				t.Fatal("let in")
			}
		}
	}
	median := func(user string) time.Duration { return slices.Sorted(slices.Values(took[user]))[15] }
	for _, user := range users[1:] {
		if a, b := median(user), median(users[0]); a > 3*b || b > 3*a {
			t.Errorf("%s takes %v, %s takes %v", user, a, users[0], b)
		}
	}
}
