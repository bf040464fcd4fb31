package postgres

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// TestHere: a node's row says where others reach it, and at once that it leaves; another process of the name replaces all of that.
func TestHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	var leaving atomic.Bool
	here := tenants.Here{Address: netip.MustParseAddrPort("[fdaa::3]:7947"), Gossip: netip.MustParseAddrPort("[fdaa::3]:7946"), Fingerprint: strings.Repeat("ab", 32),
		Region: "ams", Protocol: 1}
	w.opts.Boot, w.opts.Here = "boot-1", func() tenants.Here { h := here; h.Leaving = leaving.Load(); return h }
	f := w.followAs("a")
	row := func(what string, is func(n tenants.Node) bool) {
		t.Helper()
		harness.Eventually(t, harness.Patience, what, func() bool {
			all, _ := w.nodes()
			return len(all) == 1 && is(all[0])
		})
	}
	row("the row says it", func(n tenants.Node) bool { return n.Here == here && n.Boot == "boot-1" })
	leaving.Store(true)
	f.Announce()
	row("it leaves", func(n tenants.Node) bool { return n.Leaving && n.Address == here.Address })
	f.stop()
	w.opts.Boot, w.opts.Here = "", nil
	w.followAs("a")
	row("it is a node of its own", func(n tenants.Node) bool { return n.Here == tenants.Here{} && n.Boot != "" && n.Boot != "boot-1" })
	w.exec(`UPDATE postern.nodes SET address = 'here', gossip = '1.2.3.4'`)
	row("what is no address is none", func(n tenants.Node) bool { return !n.Address.IsValid() && !n.Gossip.IsValid() })
}
