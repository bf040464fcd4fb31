// Tests of Diff: which keys differ, and that no value is repeated.

package configs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	load := func(text string) *Config {
		t.Helper()
		c, err := loadBytes([]byte(text), "/d")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const base = `
listeners:
  - {name: a, address: "127.0.0.1:1", proxy_protocol: require, trusted_proxies: [10.0.0.0/8], console: true}
  - {name: b, address: "127.0.0.1:2", timeouts: {query: 30s}}
tls: {certificates: [{cert: a.crt, key: a.key}]}
admin: {address: "127.0.0.1:3", metrics_public: true, console_users: [{name: ops, verifier: "SCRAM-SHA-256$4096:OwUpZtnwAQNeZ5go05fS/g==$nvncrHVveO+h6abcsNWNMgHB1RQrWDxNmOSQIY5nSHI=:WMrKJVo4IVEI1IyN6y+SOVxP5aMBAAuGyuC7t1JOZfc="}]}
tenants: {file: tenants.yaml}
limits: {clients: 10}
`
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"x", "x", nil},
		{"limits: {clients: 10}", "limits: {clients: 11}", []string{"limits.clients"}},
		{"limits: {clients: 10}", "limits: {clients: 10, handshakes: 5}\nio_uring: \"off\"", []string{"limits.handshakes", "io_uring"}},
		{"127.0.0.1:2", "127.0.0.1:4", []string{"listeners[1].address"}},
		{"query: 30s", "query: 31s", []string{"listeners[1].timeouts.query"}},
		{"10.0.0.0/8", "11.0.0.0/8", []string{"listeners[0].trusted_proxies"}},
		{"trusted_proxies: [10.0.0.0/8]", "trusted_proxies: [10.0.0.0/8, 11.0.0.0/8]", []string{"listeners[0].trusted_proxies"}},
		{"  - {name: b", "  - {name: c, address: \"127.0.0.1:5\"}\n  - {name: b", []string{"listeners"}},
		{"a.key", "b.key", []string{"tls.certificates[0].key"}},
		{"$4096", "$8192", []string{"admin.console_users[0].verifier"}},
		{"file: tenants.yaml", "file: other.yaml", []string{"tenants.file"}},
	} {
		got := Diff(load(base), load(strings.Replace(base, c.from, c.to, 1)))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s → %s: %s", c.from, c.to, diff)
		}
		if strings.Contains(fmt.Sprint(got), "SCRAM") {
			t.Errorf("a secret is told: %s", got)
		}
	}
	// Where the file is makes no difference by itself.
	moved := load(base)
	moved.Dir = "/elsewhere"
	if got := Diff(load(base), moved); got != nil {
		t.Errorf("got %s", got)
	}
}
