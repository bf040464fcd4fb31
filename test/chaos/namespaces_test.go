// Network namespaces: each node on a virtual computer of its own, all on one wire. A cut is a wrong hardware address, so that what one sends to
// another arrives nowhere, in one direction or in both. It wants root, CAP_NET_ADMIN and iproute2.

package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

const nowhere = "02:00:00:00:00:01"

type namespaces struct {
	name string // of the wire; namespaces are called by it and their number
	net  [2]byte
}

// namespacesCan says why there can be none.
func namespacesCan() error {
	name := fmt.Sprintf("pt%d-%s", os.Getpid(), harness.Unique("")) // tests ask at the same time
	if err := ip("netns", "add", name); err != nil {
		return err
	}
	err := ip("-n", name, "link", "add", "name", "wire", "type", "bridge")
	if err == nil {
		err = ip("netns", "exec", name, "true")
	}
	if end := ip("netns", "del", name); err == nil {
		err = end
	}
	return err
}

func ip(args ...string) error {
	program, err := exec.LookPath("ip")
	if err != nil {
		program = "/usr/sbin/ip"
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func must(t *testing.T, args ...string) {
	t.Helper()
	if err := ip(args...); err != nil {
		t.Fatal(err)
	}
}

func newNamespaces(t *testing.T) *namespaces {
	t.Helper()
	n := &namespaces{net: [2]byte{byte(200 + rand.N(55)), byte(rand.N(256))}}
	n.name = fmt.Sprintf("pt%d-%s", os.Getpid()%100000, harness.Unique(""))
	must(t, "link", "add", n.name, "type", "bridge")
	t.Cleanup(func() {
		if err := ip("link", "del", n.name); err != nil {
			t.Error(err)
		}
	})
	must(t, "addr", "add", n.at(1).String()+"/24", "dev", n.name)
	must(t, "addr", "add", n.own().String()+"/24", "dev", n.name)
	must(t, "link", "set", n.name, "up")
	for i := range nodes {
		space := n.space(i)
		must(t, "netns", "add", space)
		t.Cleanup(func() {
			if err := ip("netns", "del", space); err != nil {
				t.Error(err)
			}
		})
		must(t, "link", "add", fmt.Sprintf("%s.%d", n.name, i), "type", "veth", "peer", "name", "eth0", "netns", space)
		must(t, "link", "set", fmt.Sprintf("%s.%d", n.name, i), "master", n.name, "up")
		must(t, "-n", space, "addr", "add", n.address(i).String()+"/24", "dev", "eth0")
		must(t, "-n", space, "link", "set", "eth0", "up")
		must(t, "-n", space, "link", "set", "lo", "up")
	}
	return n
}

func (n *namespaces) space(node int) string { return fmt.Sprintf("%s-%d", n.name, node) }
func (n *namespaces) at(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, n.net[0], n.net[1], byte(host)})
}
func (n *namespaces) address(node int) netip.Addr { return n.at(11 + node) }
func (n *namespaces) own() netip.Addr             { return n.at(31) }
func (n *namespaces) store() netip.Addr           { return n.at(2) }
func (n *namespaces) told(node int) netip.AddrPort {
	return netip.AddrPortFrom(n.address(node), gossipPort)
}

func (n *namespaces) program(t *testing.T, node int) string {
	t.Helper()
	path := filepath.Join(harness.Dir(t), "postern")
	script := fmt.Sprintf("#!/bin/sh\nPATH=$PATH:/usr/sbin exec ip netns exec %s %s \"$@\"\n", n.space(node), harness.Binary(t))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// way leads by an address that is the store's alone.
func (n *namespaces) way(t *testing.T, node int, store string) string {
	t.Helper()
	if node == 0 {
		must(t, "addr", "add", n.store().String()+"/24", "dev", n.name)
	}
	return harness.NewRelayAt(t, atPort(n.store(), 0), store, harness.Faults{}).Addr()
}

func (n *namespaces) common(t *testing.T, target string) string {
	t.Helper()
	return harness.NewRelayAt(t, atPort(n.at(1), 0), target, harness.Faults{}).Addr()
}

// lost has what a node sends to an address be lost.
func (n *namespaces) lost(t *testing.T, node int, to netip.Addr) (heal func()) {
	t.Helper()
	must(t, "-n", n.space(node), "neigh", "replace", to.String(), "lladdr", nowhere, "dev", "eth0", "nud", "permanent")
	return func() { must(t, "-n", n.space(node), "neigh", "del", to.String(), "dev", "eth0") }
}

func (n *namespaces) cuts() (every []cut, lost cut) {
	mute := cut{"without a way to any other node", false, func(t *testing.T, node int) func() {
		var heals []func()
		for i := range nodes {
			if i != node {
				heals = append(heals, n.lost(t, node, n.address(i)))
			}
		}
		return all(heals)
	}}
	deaf := cut{"reached by no other node", false, func(t *testing.T, node int) func() {
		var heals []func()
		for i := range nodes {
			if i != node {
				heals = append(heals, n.lost(t, i, n.address(node)))
			}
		}
		return all(heals)
	}}
	peers := both("cut off from all other nodes", mute, deaf)
	store := cut{"cut off from the store", false, func(t *testing.T, node int) func() { return n.lost(t, node, n.store()) }}
	lost = both("cut off from the store and from all other nodes", store, peers)
	return []cut{store, peers, lost, mute, deaf}, lost
}

func all(do []func()) func() {
	return func() {
		for _, f := range do {
			f()
		}
	}
}
