// Nodes that really call each other, over the nodes' port.

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// book is the rows of nodes, in place of a store.
type book struct {
	mu   sync.Mutex
	rows []tenants.Node
}

func (b *book) read(context.Context) ([]tenants.Node, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.rows), nil
}

// fellow is a node with a gate.
func (b *book) fellow(t *testing.T, name, keys string) control {
	t.Helper()
	c, err := cluster.Open(cluster.Options{Name: name, Boot: rand.Text(), Bind: "127.0.0.1:0", KeyFile: keys, MaxNodes: 8, Nodes: b.read, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	gate := gateOf(t)
	p := newPeers(c, gate)
	b.mu.Lock()
	b.rows = append(b.rows, tenants.Node{Name: name, Boot: c.Boot(), Seen: time.Now(), Here: c.Here()})
	b.mu.Unlock()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return control{gate(), p}
}

// acquainted waits until each knows all others.
func (b *book) acquainted(t *testing.T, all ...control) {
	t.Helper()
	for _, n := range all {
		eventually(t, "it knows the others", func() bool { return len(n.peers.others()) == len(all)-1 })
	}
}

func (b *book) add(n tenants.Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, n)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	harness.Eventually(t, harness.Patience, what, is)
}

// clusterKeys is a key file.
func clusterKeys(t *testing.T) string {
	t.Helper()
	var key [32]byte
	_, _ = rand.Read(key[:])
	path := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(key[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFellows: every question that nodes have is answered by the others, as they are.
func TestFellows(t *testing.T) {
	keys := clusterKeys(t)
	var rows book
	a, b, c := rows.fellow(t, "a", keys), rows.fellow(t, "b", keys), rows.fellow(t, "c", keys)
	rows.acquainted(t, a, b, c)
	secret := a.peers.CancelSecret(4711, true)
	for _, n := range []control{b, c} {
		if got := n.peers.CancelOwners(4711, secret); !slices.Equal(got, []string{"a"}) {
			t.Fatalf("it is taken for one of %v", got)
		}
	}
	clock, err := b.peers.Clock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	who := netrestrict.Who{Address: netip.MustParseAddr("2001:db8::7"), Endpoints: []netrestrict.Endpoint{{Provider: netrestrict.AWS, ID: "vpce-1"}}}
	got, err := b.peers.ForwardCancel(t.Context(), "a", proxy.ForwardedCancel{PID: 4711, Secret: secret, Who: who, Age: time.Second, Clock: clock})
	if err != nil || got != "unknown" {
		t.Errorf("a has no such session, and says %q, %v", got, err)
	}
	for _, step := range []struct {
		from  control
		order proxy.Order
		want  int
	}{
		{a, proxy.Order{Do: proxy.DoPause}, 2}, {b, proxy.Order{Do: proxy.DoPause}, 1}, {a, proxy.Order{Do: proxy.DoLeave}, 0},
		{a, proxy.Order{Do: proxy.DoResume, Tenant: "acme"}, 2}, {b, proxy.Order{Do: proxy.DoResume}, 2}, {c, proxy.Order{Do: proxy.DoResume}, 1},
		{c, proxy.Order{Do: proxy.DoKill, Tenant: "acme"}, 2},
	} {
		if n, silent := step.from.peers.Tell(t.Context(), step.order); n != step.want || len(silent) > 0 {
			t.Errorf("%+v: %d, silent %v, want %d", step.order, n, silent, step.want)
		}
	}
	if list, missing, err := a.Sessions(t.Context(), "acme", "", 10); err != nil || len(list) > 0 || len(missing) > 0 {
		t.Errorf("%v, %v, %v", list, missing, err)
	}
	if n, missing, err := a.EndSessions(t.Context(), "acme"); err != nil || n != 0 || len(missing) > 0 {
		t.Errorf("%d, %v, %v", n, missing, err)
	}
	// One that is gone without a word has a row still.
	rows.mu.Lock()
	gone := rows.rows[2]
	gone.Name, gone.Boot, gone.Fingerprint = "d", "D", fmt.Sprintf("%064x", 1)
	rows.rows = append(rows.rows, gone)
	rows.mu.Unlock()
	eventually(t, "it is known", func() bool { return len(a.peers.others()) == 3 })
	if _, silent := a.peers.Tell(t.Context(), proxy.Order{Do: proxy.DoLeave}); !slices.Equal(silent, []string{"d"}) {
		t.Errorf("silent: %v", silent)
	}
}
