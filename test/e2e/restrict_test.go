// Restrictions by more than an address: private endpoints and Flycast by real PROXY headers, expiry, and what their owner is told.

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// headed is a login by way of this PROXY header.
func (g *gate) headed(t *testing.T, header []byte, options ...string) (*pgx.Conn, error) {
	t.Helper()
	conf := configOf(t, g.dsn("transaction"+proxied, options...))
	conf.DialFunc = harness.ProxyDialer{Header: header}.DialContext
	conn, err := pgx.ConnectConfig(t.Context(), conf)
	if err == nil {
		t.Cleanup(func() { closeConn(conn) })
	}
	return conn, err
}

// privately is a header of somebody in a private network, who came to an address, through an endpoint.
func privately(client, destination string, tlvs ...harness.TLV) []byte {
	return harness.V2(netip.AddrPortFrom(netip.MustParseAddr(client), 40000), netip.AddrPortFrom(netip.MustParseAddr(destination), 5432), tlvs...)
}

// TestPrivateOnly lets in who comes by the tenant's own private network, and nobody else.
func TestPrivateOnly(t *testing.T) {
	t.Parallel()
	const inside = "fdaa:0:1::3"
	g := startGate(t, gateConf{Tenant: func(m harness.Map) {
		m["allow_list"] = []any{
			harness.Map{"endpoint": harness.Map{"provider": "aws", "id": "vpce-08d2bf15fac5001c9"}}, harness.Map{"endpoint": harness.Map{"provider": "azure", "id": "201327"}},
			harness.Map{"endpoint": harness.Map{"provider": "gcp", "id": "9223372036854775808"}}, harness.Map{"flycast": inside, "comment": "our network"}}
		m["flycast"] = inside
	}})
	aws := harness.TLV{Type: 0xea, Value: []byte("\x01vpce-08d2bf15fac5001c9")}
	for name, c := range map[string]struct {
		header []byte
		user   string
		state  string // "": served
	}{
		"aws":                       {privately("10.0.0.7", "10.0.0.1", aws), "app.acme", ""},
		"azure":                     {privately("10.0.0.7", "10.0.0.1", harness.TLV{Type: 0xee, Value: binary.LittleEndian.AppendUint32([]byte{1}, 201327)}), "app.acme", ""},
		"gcp":                       {privately("10.0.0.7", "10.0.0.1", harness.TLV{Type: 0xe0, Value: binary.BigEndian.AppendUint64(nil, 1<<63)}), "app.acme", ""},
		"flycast":                   {privately("fdaa:9::1", inside), "app.acme", ""},
		"flycast names the tenant":  {privately("fdaa:9::1", inside), "app", ""},
		"flycast, another tenant":   {privately("fdaa:9::1", inside), "app.globex", "08004"},
		"another endpoint of aws":   {privately("10.0.0.7", "10.0.0.1", harness.TLV{Type: 0xea, Value: []byte("\x01vpce-08d2bf15fac5001c8")}), "app.acme", "28000"},
		"another kind of aws's":     {privately("10.0.0.7", "10.0.0.1", harness.TLV{Type: 0xea, Value: []byte("\x02vpce-08d2bf15fac5001c9")}), "app.acme", "28000"},
		"azure's number in reverse": {privately("10.0.0.7", "10.0.0.1", harness.TLV{Type: 0xee, Value: binary.BigEndian.AppendUint32([]byte{1}, 201327)}), "app.acme", "28000"},
		"nothing but an address":    {privately("10.0.0.7", "10.0.0.1"), "app.acme", "28000"},
		"another of Flycast's":      {privately("fdaa:9::1", "fdaa:0:1::4"), "app.acme", "28000"},
		"nobody's of Flycast's":     {privately("fdaa:9::1", "fdaa:0:1::4"), "app", "08004"},
	} {
		conn, err := g.headed(t, c.header, "user="+c.user)
		if (err == nil) != (c.state == "") || err != nil && sqlstate(err) != c.state {
			t.Errorf("%s: %v, want %q", name, err, c.state)
		} else if err == nil {
			if v := value(t, conn, "select 1"); v != "1" {
				t.Errorf("%s: %s", name, v)
			}
		}
	}
}

// TestExpiryBites: a rule's end ends sessions and lets nobody else in; the owner is told why, and whom it was.
func TestExpiryBites(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	mary, err := g.from(t, "transaction", "203.0.113.7")
	if err != nil {
		t.Fatal(err)
	}
	office, err := g.from(t, "transaction", "198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(3 * time.Second).Truncate(time.Second)
	g.reload(g.changed("allow_list", []any{"198.51.100.0/24", harness.Map{"cidr": "203.0.113.7", "comment": "Mary", "expires": end.UTC().Format(time.RFC3339)}}))
	harness.Eventually(t, harness.Patience, "the end of who is not allowed any more", func() bool {
		_, err := mary.Exec(t.Context(), "select 1")
		if err != nil && sqlstate(err) != "57P01" {
			t.Fatal(err)
		}
		return err != nil
	})
	if now := time.Now(); now.Before(end) {
		t.Errorf("it came %v before the rule's", end.Sub(now))
	}
	_, err = g.from(t, "transaction", "203.0.113.7")
	wantState(t, err, "28000")
	if v := value(t, office, "select 1"); v != "1" {
		t.Errorf("who is allowed: %s", v)
	}
	got := g.api(t, g.Token, "POST", "/v1/tenants/acme/restrictions/check", harness.Map{"address": "203.0.113.7"}).want(t, 200).body
	if s := fmt.Sprint(got); !strings.Contains(s, "reason:expired") || !strings.Contains(s, "comment:Mary") {
		t.Errorf("the check says %s", s)
	}
	harness.Eventually(t, harness.Patience, "the refusal on the owner's list", func() bool {
		s := fmt.Sprint(g.api(t, g.Token, "GET", "/v1/tenants/acme/refusals", nil).want(t, 200).body)
		return strings.Contains(s, "address:203.0.113.7") && strings.Contains(s, "reason:address") && strings.Contains(s, "user:app")
	})
}

// TestObserveThenEnforce: nobody is refused at first, and it is seen who would be.
func TestObserveThenEnforce(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: func(m harness.Map) {
		m["allow_list"], m["restrictions_mode"] = []string{"198.51.100.0/24"}, "observe"
	}})
	conn, err := g.from(t, "transaction", "203.0.113.7")
	if err != nil {
		t.Fatal(err)
	}
	if v := value(t, conn, "select 1"); v != "1" {
		t.Error(v)
	}
	if n := g.metric("postern_observed_refusals_total"); n != 1 {
		t.Errorf("%v are observed, want 1", n)
	}
	if n := g.metric("postern_refusals_total", "reason", "address"); n != 0 {
		t.Errorf("%v are refused", n)
	}
	if s := fmt.Sprint(g.api(t, g.Token, "GET", "/v1/tenants/acme/refusals", nil).want(t, 200).body); !strings.Contains(s, "mode:observe") {
		t.Errorf("listed are %s", s)
	}
	g.reload(g.changed("restrictions_mode", "enforce"))
	harness.Eventually(t, harness.Patience, "the end of who is not allowed", func() bool {
		_, err := conn.Exec(t.Context(), "select 1")
		return sqlstate(err) == "57P01"
	})
	_, err = g.from(t, "transaction", "203.0.113.7")
	wantState(t, err, "28000")
}
