// HAProxy before the nodes, as an operator would set it up: with their state from /readyz, and the clients' addresses handed on.

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// Ports of a node, each on its own address.
const (
	transactionPort = 6432
	sessionPort     = 6433
	adminPort       = 9187
)

// balancer is where clients connect: to any node in either mode, or to one node alone.
type balancer struct {
	transaction, session int // ports of 127.0.0.1
	one                  [nodes]int
}

// startBalancer runs an HAProxy that ends with the test.
func startBalancer(t *testing.T, p place) *balancer {
	t.Helper()
	b := &balancer{transaction: harness.FreePort(), session: harness.FreePort()}
	var conf strings.Builder
	conf.WriteString(`
global
	maxconn 2000
defaults
	mode tcp
	timeout connect 5s
	timeout client 1h
	timeout server 1h
	timeout check 2s
	retries 3
	option redispatch 1
	option httpchk GET /readyz
	default-server send-proxy-v2 check inter 300ms fall 2 rise 1
`)
	proxy := func(name string, at, port int, to ...int) {
		fmt.Fprintf(&conf, "listen %s\n\tbind 127.0.0.1:%d\n\tbalance roundrobin\n", name, at)
		for _, i := range to {
			fmt.Fprintf(&conf, "\tserver %s %v:%d check port %d\n", nodeName(i), p.address(i), port, adminPort)
		}
	}
	proxy("transaction", b.transaction, transactionPort, 0, 1, 2)
	proxy("session", b.session, sessionPort, 0, 1, 2)
	for i := range nodes {
		b.one[i] = harness.FreePort()
		proxy("only_"+nodeName(i), b.one[i], transactionPort, i)
	}
	path := filepath.Join(harness.Dir(t), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy" // where not everybody's PATH leads
	}
	var said strings.Builder
	cmd := exec.Command(program, "-db", "-f", path)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run scripts/install-test-deps.sh", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy:\n%s", said.String())
		}
	})
	return b
}

func nodeName(i int) string { return string(rune('a' + i)) }
