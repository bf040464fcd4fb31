// What clients are told of failed logins to servers and of machines: nothing of the inside.

package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
)

func TestDialErrorsTellNothingOfTheInside(t *testing.T) {
	server := func(code string, proven bool) error {
		return fmt.Errorf("login at 10.1.2.3: %w", &backend.ServerError{Proven: proven,
			Response: &pgwire.Error{Severity: "FATAL", Code: code, Message: "secret of 10.1.2.3"}})
	}
	const moment, log = "Try again in a moment.", "The pooler's log says what is wrong."
	const verifier, password = "The verifier differs: copy it from pg_authid.", "The password differs: see the user's password_file."
	for name, c := range map[string]struct {
		err        error
		code, hint string
		ownMessage bool
	}{
		"unknown database, after the proof":  {server("3D000", true), "3D000", "", false},
		"unknown database, before the proof": {server("3D000", false), "57P03", log, true},
		"too many connections":               {server("53300", false), "53300", moment, true},
		"starting up":                        {server("57P03", false), "57P03", moment, true},
		"starting up, said by a proven one":  {server("57P03", true), "57P03", "", false},
		"wrong password":                     {fmt.Errorf("%w: %w", backend.ErrPassword, server("28P01", false)), "08006", password, true},
		"wrong key":                          {server("28P01", false), "08006", verifier, true},
		"wrong key, said by a proven one":    {server("28P01", true), "08006", verifier, true},
		"rejected by pg_hba.conf":            {server("28000", false), "28000", errLoginDenied.Hint, true},
		"a role that may not log in":         {server("28000", true), "28000", errLoginDenied.Hint, true},
		"no SQLSTATE":                        {server("", true), "57P03", log, true},
		"refused":                            {fmt.Errorf("dial 10.1.2.3: %w", syscall.ECONNREFUSED), "57P03", moment, true},
		"too slow":                           {fmt.Errorf("dial 10.1.2.3: %w", context.DeadlineExceeded), "57P03", moment, true},
		"verifiers differ":                   {fmt.Errorf("x: %w", backend.ErrVerifierMismatch), "08006", verifier, true},
		"nothing to log in with":             {errNoCredentials, "08006", "Connect again.", true},
		"no TLS":                             {fmt.Errorf("10.1.2.3: %w", backend.ErrTLSRefused), "57P03", log, true},
		"no proof":                           {fmt.Errorf("10.1.2.3: %w", backend.ErrNoProof), "57P03", log, true},
		"a target that is none":              {fmt.Errorf("10.1.2.3: %w", backend.ErrTarget), "57P03", log, true},
		"not the protocol":                   {fmt.Errorf("10.1.2.3: %w", &backend.ProtocolError{Reason: "10.1.2.3"}), "57P03", log, true},
		"another certificate":                {fmt.Errorf("10.1.2.3: %w", x509.UnknownAuthorityError{}), "57P03", log, true},
		"anything else":                      {errors.New("10.1.2.3 is odd"), "57P03", log, true},
	} {
		e := errDial(c.err)
		if e.Code != c.code || e.Severity != pgwire.Fatal || e.Hint != c.hint {
			t.Errorf("%s: %s %s, hint %q; want FATAL %s, hint %q", name, e.Severity, e.Code, e.Hint, c.code, c.hint)
		}
		if inside := strings.Contains(e.Message+e.Detail+e.Hint, "10.1.2.3"); inside == c.ownMessage {
			t.Errorf("%s: message %q", name, e.Message)
		}
	}
}

// TestMachineErrors: trying again is advised only where it can help without anybody's doing.
func TestMachineErrors(t *testing.T) {
	const moment, minutes, log = "Try again in a moment.", "Try again in a few minutes.", "The pooler's log says what is wrong."
	for err, hint := range map[error]string{
		machines.ErrSlow:                            moment,
		machines.ErrBudget:                          minutes,
		&machines.Error{Kind: machines.Capacity}:    minutes,
		&machines.Error{Kind: machines.Transient}:   moment,
		&machines.Error{Kind: machines.Busy}:        moment,
		&machines.Error{Kind: machines.RateLimited}: moment,
		&machines.Error{Kind: machines.Unreachable}: moment,
		&machines.Error{Kind: machines.Auth}:        log,
		&machines.Error{Kind: machines.Gone}:        log,
		errors.New("odd"):                           moment,
	} {
		if e := errMachine(fmt.Errorf("x: %w", err)); e.Code != "57P03" || e.Hint != hint {
			t.Errorf("%v: %s, hint %q; want 57P03, hint %q", err, e.Code, e.Hint, hint)
		}
	}
}
