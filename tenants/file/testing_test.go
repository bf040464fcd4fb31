// Helpers of this package's tests.

package file

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

var when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadText loads content from a folder that also has a password file web.pw, a second rw.pw and a certificate ca.pem.
func loadText(t testing.TB, content string) (*Snapshot, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "web.pw", "pw of web\n")
	write(t, dir, "fly.token", "  FlyV1  fm2_a,fm2_b\r\n\n")
	write(t, dir, "rw.pw", "pw of rw\r\n")
	write(t, dir, "blank.pw", "\n")
	write(t, dir, "two-lines.pw", "a\nb\n")
	ca, key := harness.SelfSigned(t)
	write(t, dir, "ca.pem", ca)
	write(t, dir, "ca.key", key)
	write(t, dir, "bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	write(t, dir, "key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	path := write(t, dir, "tenants.yaml", content)
	return Load(Options{Path: path, CheckVerifier: checkVerifier, Now: func() time.Time { return when }})
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
