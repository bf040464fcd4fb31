// Targets that cannot work, errors worth a retry, and what is never printed.

package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// An unusable target is told before anything is dialed.
func TestDialRefusesUnusableTargets(t *testing.T) {
	good := Target{Host: "h", Port: 1, TLS: TLSDisable, User: "u", Credentials: scram.Credentials{Password: "p"}}
	for _, tc := range []struct {
		name   string
		change func(*Target)
	}{
		{"no host", func(t *Target) { t.Host = "" }},
		{"no port", func(t *Target) { t.Port = 0 }},
		{"no TLS mode", func(t *Target) { t.TLS = "" }},
		{"TLS mode with a typo", func(t *Target) { t.TLS = "verify_full" }},
		{"no user", func(t *Target) { t.User = "" }},
		{"user with a zero byte", func(t *Target) { t.User = "u\x00user\x00postgres" }},
		{"database with a zero byte", func(t *Target) { t.Database = "d\x00user\x00postgres" }},
		{"no credentials", func(t *Target) { t.Credentials = scram.Credentials{} }},
		{"unknown auth", func(t *Target) { t.Auth = "trust" }},
		{"cleartext in plaintext", func(t *Target) { t.Auth = AuthPassword }},
		{"cleartext over unverified TLS", func(t *Target) { t.Auth, t.TLS = AuthPassword, TLSRequire }},
		{"a certificate that is not there", func(t *Target) { t.Auth, t.TLS = AuthCert, TLSVerifyFull }},
		{"a certificate for whoever asks", func(target *Target) {
			target.Auth, target.TLS, target.Certificate = AuthCert, TLSRequire, newAuthority(t).client(t, "u")
		}},
		{"MD5 with a key", func(t *Target) { t.Auth, t.Credentials = AuthMD5, scram.Credentials{Key: &scram.ClientKey{}} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target := good
			target.Dial = func(context.Context, string, string) (net.Conn, error) {
				t.Error("it was dialed")
				return nil, io.EOF
			}
			tc.change(&target)
			if _, err := Dial(t.Context(), target); !errors.Is(err, ErrTarget) || Retryable(err) {
				t.Errorf("err = %v, want a final ErrTarget", err)
			}
		})
	}
}

func TestRetryable(t *testing.T) {
	server := func(code string) error { return &ServerError{Response: &pgwire.Error{Code: code}} }
	op := func(errno syscall.Errno) error { return &net.OpError{Op: "dial", Err: errno} }
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{op(syscall.ECONNREFUSED), true},
		{op(syscall.EHOSTUNREACH), true},
		{op(syscall.ENETUNREACH), true},
		{op(syscall.EACCES), false},
		{&net.DNSError{Name: "x", IsNotFound: true}, true},
		{io.EOF, true},
		{io.ErrUnexpectedEOF, true},
		{context.DeadlineExceeded, true},
		{context.Canceled, false},
		{server("57P03"), true},
		{server("57P01"), true},
		{server("53300"), false},
		{server("3D000"), false},
		{server("28P01"), false},
		{server("28000"), false},
		{server(""), false},
		{violation("x"), false},
		{ErrNoProof, false},
		{ErrTLSRefused, false},
		{ErrVerifierMismatch, false},
	} {
		err := tc.err
		if err != nil {
			err = fmt.Errorf("backend: login: %w", err)
		}
		if got := Retryable(err); got != tc.want {
			t.Errorf("Retryable(%v) = %v", tc.err, got)
		}
	}
}

func TestRefusedPortIsRetryable(t *testing.T) {
	_, err := Dial(within(t, patience), Target{Host: "127.0.0.1", Port: freePort(), TLS: TLSDisable, User: "u", Credentials: scram.Credentials{Password: "p"}})
	if !errors.Is(err, syscall.ECONNREFUSED) || !Retryable(err) {
		t.Errorf("err = %v, want a retryable ECONNREFUSED", err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	const secret = "hunter2"
	target := Target{User: "u", Credentials: scram.Credentials{Password: secret}}
	conn := &Conn{Net: &loop.Swap{}, PID: 7, Secret: []byte(secret)}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "conn", conn)
	out := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		out += fmt.Sprintf(verb+verb, target, conn)
	}
	if strings.Contains(out, secret) || strings.Contains(out, "68756e746572") || strings.Contains(out, "104 117 110") {
		t.Errorf("the secret was printed: %s", out)
	}
	if !strings.Contains(log.String(), "server process 7") {
		t.Errorf("log = %s", log.String())
	}
}
