// Denials: what each is told and counted as, and that all have a row.

package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// TestDenials goes through the table: every row is filled in, with a cause of its own, and what it says to clients is whole.
func TestDenials(t *testing.T) {
	causes := make(map[string]denial)
	args := map[denial][]any{denyAddress: {"198.51.100.7", "acme"}, denyThrottled: {7}, denyBanned: {7}, denyRate: {7}, denyRegion: {"h"}, denyUserClients: {"u"}, denyDatabaseClients: {"d"},
		denyCertificateOfAnother: {"u"}, denyCertificateOfNobody: {"u"},
		denyUnknownTenant: {"u"}, denyUnknownUser: {"u"}, denyPassword: {"u"}, denyDatabase: {"d"}, denyStartOnly: {"p"}, denySetting: {"p"}}
	for d := range numDenials {
		row := denials[d]
		if other, twice := causes[row.cause]; row.cause == "" || twice {
			t.Errorf("denial %d: cause %q, as %d", d, row.cause, other)
		}
		causes[row.cause] = d
		if row.reason >= numReasons || row.reason != uncounted && row.reason.String() == "" {
			t.Errorf("%s: reason %d", row.cause, row.reason)
		}
		e := d.tell(args[d]...)
		if row.code == "" {
			if e != nil || row.text+row.hint != "" {
				t.Errorf("%s: tells %v", row.cause, e)
			}
			continue
		}
		if e.Severity != pgwire.Fatal || len(e.Code) != 5 || e.Message == "" || strings.Contains(e.Message+e.Hint, "%") {
			t.Errorf("%s: tells %+v", row.cause, e)
		}
	}
	var labels []string
	for r := uncounted + 1; r < numReasons; r++ {
		labels = append(labels, r.String())
	}
	if want := []string{"address", "tls", "certificate", "limit", "throttle", "ban", "proxy_header", "startup", "tenant", "region"}; !slices.Equal(labels, want) {
		t.Errorf("labels %q, want %q", labels, want)
	}
	// Whoever may not know which it was is told the same.
	a, b, c := denyUnknownTenant.tell("u"), denyUnknownUser.tell("u"), denyPassword.tell("u")
	if *a != *b || *a != *c {
		t.Errorf("%v, %v and %v differ", a, b, c)
	}
	if a, b := denyCertificateOfAnother.tell("u"), denyCertificateOfNobody.tell("u"); *a != *b {
		t.Errorf("%v and %v differ", a, b)
	}
}

// TestDenialTexts are what docs/errors.md has.
func TestDenialTexts(t *testing.T) {
	for d, want := range map[*denied]string{
		deny(denyAddress, "198.51.100.7", "acme"): `28000 address 198.51.100.7 is not allowed to connect to "acme"`,
		denyFor(denyThrottled, 1):                 "53400 too many failed logins Try again in 1 seconds.",
		denyFor(denyThrottled, 2e9):               "53400 too many failed logins Try again in 2 seconds.",
		denyFor(denyBanned, 2e9+1):                "53400 this address is banned Try again in 3 seconds.",
		deny(denyTLS):                             "28000 this tenant requires TLS Connect with sslmode=require or stronger.",
		deny(denyPassword, "a%b"):                 `28P01 password authentication failed for user "a%b"`,
	} {
		if got := strings.TrimSpace(fmt.Sprintf("%s %s %s", d.told.Code, d.told.Message, d.told.Hint)); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestBlame(t *testing.T) {
	proof := denyProof(&scram.Error{Kind: scram.BadProof}, "u")
	message := denyProof(&scram.Error{Kind: scram.Malformed, Message: "malformed SCRAM message"}, "u")
	if proof.why != denyPassword || message.why != denySASL || message.told.Code != "08P01" || denyProof(errors.New("BUG"), "u").told.Code != "28P01" {
		t.Errorf("proofs are judged %v and %v", proof, message)
	}
	if n := len(denyProof(errors.New("BUG"), strings.Repeat("u", 200)).told.Message); n > 120 {
		t.Errorf("a name of 200 bytes makes a message of %d", n)
	}
	for _, c := range []struct {
		err          error
		tenant, user bool
		want         error
	}{
		{proof, true, true, deny(denyPassword, "u")},
		{proof, true, false, deny(denyUnknownUser, "u")},
		{proof, false, false, deny(denyUnknownTenant, "u")},
		{message, true, true, message},
		{message, true, false, message},
		{message, false, false, &denied{denyUnknownTenant, message.told}},
		{denyFor(denyThrottled, 1), false, false, denyFor(denyThrottled, 1)},
		{errQuiet, false, false, errQuiet},
	} {
		got := blame(c.err, c.tenant, c.user)
		var a, b *denied
		if errors.As(got, &a) != errors.As(c.want, &b) || a == nil && got != c.want || a != nil && (a.why != b.why || *a.told != *b.told) {
			t.Errorf("%v, tenant %v, user %v: %v, want %v", c.err, c.tenant, c.user, got, c.want)
		}
	}
}

// TestTenantDenials: only registered tenants are counted for, and one that is gone is forgotten.
func TestTenantDenials(t *testing.T) {
	b := newBench(t)
	for range 3 {
		b.gate.count(denyAddress, "acme")
		b.gate.count(denyThrottled, "stranger")
		b.gate.count(denyPassword, "acme")
	}
	if n := b.gate.denials.of("acme").refused[reasonAddress].Load(); n != 3 {
		t.Errorf("%d are counted", n)
	}
	if n := len(b.gate.denials.byID); n != 1 {
		t.Errorf("%d tenants are counted for", n)
	}
	b.gate.denials.of("gone")
	b.gate.denials.keep(b.gate.opts.Directory)
	if n := len(b.gate.denials.byID); n != 1 {
		t.Errorf("%d tenants are kept", n)
	}
}
