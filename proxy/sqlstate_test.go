package proxy

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

func TestDialErrorsTellNothingOfTheInside(t *testing.T) {
	server := func(code string, proven bool) error {
		return fmt.Errorf("login at 10.1.2.3: %w", &backend.ServerError{Proven: proven,
			Response: &pgwire.Error{Severity: "FATAL", Code: code, Message: "secret of 10.1.2.3"}})
	}
	for name, c := range map[string]struct {
		err        error
		code       string
		ownMessage bool
	}{
		"unknown database, after the proof":    {server("3D000", true), "3D000", false},
		"unknown database, before the proof":   {server("3D000", false), "57P03", true},
		"too many connections":                 {server("53300", false), "53300", true},
		"starting up":                          {server("57P03", false), "57P03", true},
		"wrong password":                       {server("28P01", false), "08006", true},
		"wrong password, said by a proven one": {server("28P01", true), "08006", true},
		"no SQLSTATE":                          {server("", true), "57P03", true},
		"refused":                              {fmt.Errorf("dial 10.1.2.3: %w", syscall.ECONNREFUSED), "57P03", true},
		"verifiers differ":                     {fmt.Errorf("x: %w", backend.ErrVerifierMismatch), "08006", true},
		"nothing to log in with":               {errNoCredentials, "08006", true},
		"anything else":                        {errors.New("10.1.2.3 is odd"), "57P03", true},
	} {
		e := errDial(c.err)
		if e.Code != c.code || e.Severity != pgwire.Fatal {
			t.Errorf("%s: %s %s, want FATAL %s", name, e.Severity, e.Code, c.code)
		}
		if inside := strings.Contains(e.Message+e.Detail+e.Hint, "10.1.2.3"); inside == c.ownMessage {
			t.Errorf("%s: message %q", name, e.Message)
		}
	}
}

func TestClientErrors(t *testing.T) {
	if e := errRoute(tenants.ErrConflict); e.Code != "08004" || e.Hint == "" {
		t.Errorf("conflict: %v", e)
	}
	if e := errRoute(tenants.ErrNoTenant); e.Code != "08004" || e.Hint == "" {
		t.Errorf("no tenant: %v", e)
	}
	if e := errSASL(&scram.Error{Kind: scram.BadProof}, "app"); e.Code != "28P01" || e.Message != `password authentication failed for user "app"` {
		t.Errorf("bad proof: %v", e)
	}
	if e := errSASL(&scram.Error{Kind: scram.Malformed, Message: "malformed SCRAM message"}, "app"); e.Code != "08P01" {
		t.Errorf("malformed: %v", e)
	}
	if e := errSASL(errors.New("BUG"), "app"); e.Code != "28P01" {
		t.Errorf("internal: %v", e)
	}
	if e := errPassword(strings.Repeat("u", 200)); len(e.Message) > 120 {
		t.Errorf("name is not clipped: %v", e)
	}
}
