// Tests of a tenant's bans.

package admin

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func (g *fakeGate) Ban(ctx context.Context, tenant string, network netip.Prefix, d time.Duration) error {
	return g.called(ctx, "ban "+network.String()+" for "+d.String()+" at", tenant)
}

func TestBansOfATenant(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme/bans"
	w.to(t, "read", "GET", path, "").is(200, `{"bans":[]}`)
	w.gate.bans = []Ban{{Address: network("203.0.113.7/32"), Left: 90*time.Second - 1, Failures: 10}, {Address: network("2001:db8::/56"), Left: time.Second, Failures: 40},
		{Address: network("198.51.100.0/24"), Left: time.Hour, Manual: true}}
	w.to(t, "read", "GET", path, "").is(200, `{"bans":[{"address":"203.0.113.7","seconds_left":90,"failures":10,"manual":false},`+
		`{"address":"2001:db8::/56","seconds_left":1,"failures":40,"manual":false},{"address":"198.51.100.0/24","seconds_left":3600,"failures":0,"manual":true}]}`)
	w.gate.calls = nil
	w.to(t, "write", "POST", path, `{"address":"192.0.2.0/24","seconds":60}`).is(201, `{"address":"192.0.2.0/24","seconds_left":60,"failures":0,"manual":true}`)
	w.to(t, "operator", "POST", path, `{"address":"2001:db8::7","seconds":2592000}`).is(201, `"address":"2001:db8::7"`)
	w.to(t, "write", "DELETE", path, `{"address":"203.0.113.7"}`).is(200, `{"removed":1}`)
	w.to(t, "write", "DELETE", path, `{"address":"2001:db8::/56"}`).is(200, `{"removed":1}`)
	w.to(t, "write", "DELETE", path, `{"address":"192.0.2.9"}`).is(404, "nothing at the tenant bans this address")
	if got, want := strings.Join(w.gate.calls, ", "), "ban 192.0.2.0/24 for 1m0s at acme, ban 2001:db8::7/128 for 720h0m0s at acme, lift 203.0.113.7 at acme, lift 2001:db8:: at acme, lift 192.0.2.9 at acme"; got != want {
		t.Errorf("the gate was asked\n%s, want\n%s", got, want)
	}
	w.gate.calls = nil
	w.to(t, "write", "POST", path, "", "Content-Type", "application/json").is(400, "missing")
	for body, says := range map[string]string{
		`{}`: "address", `{"address":"192.0.2.1"}`: "seconds", `{"address":"192.0.2.1","seconds":0}`: "seconds", `{"address":"192.0.2.1","seconds":2592001}`: "seconds",
		`{"address":"192.0.2.1/24","seconds":1}`: "192.0.2.0/24", `{"address":"fe80::1%eth0","seconds":1}`: "zone", `{"address":"192.0.2.1","seconds":1,"tenant":"x"}`: "no such key", `{"address":"192.0.2.1","seconds":null}`: "null",
		`{"address":"192.0.2.1","seconds":"1"}`: "seconds",
	} {
		w.to(t, "write", "POST", path, body, "Content-Type", "application/json").is(422, says)
	}
	w.to(t, "write", "DELETE", path, `{"address":"nowhere"}`).is(422, "/address")
	w.to(t, "read", "POST", path, `{"address":"192.0.2.1","seconds":1}`).is(403)
	w.to(t, "read", "DELETE", path, `{"address":"192.0.2.1"}`).is(403)
	w.to(t, "read", "GET", "/v1/tenants/globex/bans", "").is(404)
	if len(w.gate.calls) > 0 {
		t.Errorf("the gate was asked: %v", w.gate.calls)
	}
	for want, err := range map[int]error{404: ErrNoTenant, 409: ErrNeverBanned, 500: errors.New("10.1.2.3")} {
		w.gate.fail = map[string]error{"ban 192.0.2.1/32 for 1s at": err}
		w.to(t, "write", "POST", path, `{"address":"192.0.2.1","seconds":1}`).is(want)
	}
}
