// The gate under attack: the real binary in front of the shared PostgreSQL, with tenants for every row.

package hostile

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

func TestMain(m *testing.M) {
	code := harness.Main(m)
	if why := everybody.all.judge(); why != "" {
		fmt.Println("all groups together:", why)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Marked secrets. Whatever happens, none of them may turn up in a log or a metric.
const (
	canaryRight = harness.AppPassword
	canaryFile  = harness.OtherPassword
	canaryWrong = "canary-wrong-Zq7vXw"
	canaryClear = "canary-clear-Zq7vXw"
	canaryQuery = "canary-query-Zq7vXw"
)

// Listeners.
const (
	behindProxy = "behind-proxy" // demands a header; this computer is trusted
	wary        = "wary"         // demands a header; this computer is not trusted
	plain       = "plain"        // takes no header
)

// gateOptions are what tests want otherwise than the default.
type gateOptions struct {
	withoutTLS bool
	bare       bool        // the binary without the race detector, see harness.PlainBinary
	crowd      int         // how many connections it will have at a time, beyond what is usual
	mockSecret string      // file; "": a new one
	timeouts   harness.Map // of the section, each replacing the default one
	limits     harness.Map // likewise
	tenants    []harness.Map
}

// gate is a running process. Tenant acme is the victim of most rows, globex the neighbour who must notice nothing.
type gate struct {
	*harness.Gate
	mockSecret string
	growth     float64 // what R8 allows after a group, in bytes
	brief      bool    // idle server connections go soon
	roots      *x509.CertPool
	secrets    []secret
	clients    atomic.Uint32 // client addresses given away
}

// startGate runs a gate until the end of the test.
func startGate(t *testing.T, o gateOptions) *gate {
	t.Helper()
	g := &gate{mockSecret: o.mockSecret, growth: growth + float64(o.crowd)*perSocket}
	cluster := harness.Postgres(t)
	verifier, err := scram.ParseVerifier(harness.Verifier(t, cluster, harness.App))
	if err != nil {
		t.Fatal(err)
	}
	if g.secrets, err = secrets(verifier); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if g.mockSecret == "" {
		g.mockSecret = file("mock.key", rand.Text()+rand.Text())
	}
	listener := func(name, proxyProtocol string, trusted ...string) harness.Map {
		l := harness.Map{"name": name, "address": "127.0.0.1:0", "pool_mode": "transaction", "proxy_protocol": proxyProtocol}
		if trusted != nil {
			l["trusted_proxies"] = trusted
		}
		return l
	}
	conf := harness.Map{
		"listeners": []harness.Map{listener(behindProxy, "require", "127.0.0.0/8"), listener(wary, "require", "192.0.2.0/24"), listener(plain, "off")},
		"auth":      harness.Map{"mock_secret_file": g.mockSecret},
	}
	if !o.withoutTLS {
		authority := harness.Certificates(t)
		pair := authority.Issue(t, "*.db.example.com", "postern.test")
		g.roots = authority.Pool
		conf["tls"] = harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}, "tenant_domain": "db.example.com"}
	}
	timeouts := harness.Map{"proxy_header": "2m", "login": "2m", "drain": "5s"} // see patience
	maps.Copy(timeouts, o.timeouts)
	conf["timeouts"], g.brief = timeouts, o.timeouts["server_idle"] != nil
	if o.limits != nil {
		conf["limits"] = o.limits
	}
	passwords := file("other.pw", canaryFile)
	tenant := func(id string) harness.Map {
		m := harness.Acme(t, cluster, "postgres")
		m["id"] = id
		m["users"] = []harness.Map{{"name": harness.App, "verifier": verifier.Encode()}, {"name": harness.Other, "password_file": passwords}}
		return m
	}
	walled, sixOnly, secure := tenant("walled"), tenant("sixonly"), tenant("secure")
	walled["allow_list"] = []string{"203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"}
	sixOnly["allow_list"] = []string{"::/0"}
	secure["require_tls"] = true

	t.Cleanup(func() { // registered before the process's own end, so that it comes after it
		if g.Gate != nil {
			g.judgeLog(t)
		}
	})
	g.Gate = harness.Postern(t, harness.GateConfig{Plain: o.bare, Config: conf, Tenants: append([]harness.Map{tenant("acme"), tenant("globex"), walled, sixOnly, secure}, o.tenants...)})
	return g
}

// said makes sure that the log has what it was to be judged by.
func (g *gate) said(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		harness.Eventually(t, patience, "the log has "+part+", or the test has looked at nothing", func() bool { return g.Log().Contains(part) })
	}
}
