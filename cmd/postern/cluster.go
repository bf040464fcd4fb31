// This process as one of several nodes: what it is opened with, and what others are told of it. Without `cluster` there is nothing of it.

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/admin"
	"github.com/postern/postern/cluster"
	"github.com/postern/postern/configs"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
)

// fellowship is the cluster that this process is in, and how it reads the nodes' rows. A nil one is none; its methods do nothing.
type fellowship struct {
	*cluster.Cluster
	store    *postgres.Store
	registry *postgres.Registry
	running  sync.WaitGroup
}

// openCluster binds the ports for other nodes; nil: the configuration has no cluster. It is opened before the store, which is told where this
// node is, and gets the store by follow.
func openCluster(conf *configs.Config, reg prometheus.Registerer, log *slog.Logger) (*fellowship, error) {
	if !conf.Cluster.Configured() {
		return nil, nil
	}
	name, err := nodeName(conf)
	if err != nil {
		return nil, err
	}
	at, err := advertisedHere(conf.Cluster)
	if err != nil {
		return nil, err
	}
	f := &fellowship{}
	f.Cluster, err = cluster.Open(cluster.Options{Name: name, Boot: rand.Text(), Region: region(conf), Bind: conf.Cluster.Bind, Advertise: at, Join: conf.Cluster.Join,
		KeyFile: conf.Cluster.KeyFile, MaxNodes: conf.Cluster.MaxNodes, Log: log, Registerer: reg,
		Announce: func() { f.store.Announce() },
		Nodes:    func(ctx context.Context) ([]tenants.Node, error) { return f.registry.Nodes(ctx) }})
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return f, nil
}

// region is where this process is; "": it does not say.
func region(conf *configs.Config) string { return cmp.Or(conf.Region, os.Getenv("FLY_REGION")) }

// ownAddresses are those of this computer.
func ownAddresses() (out []netip.Addr, err error) {
	all, err := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out, err
}

// advertisedHere is where others reach this node if it runs on this computer.
func advertisedHere(conf configs.Cluster) (netip.AddrPort, error) {
	own, err := ownAddresses()
	if err != nil {
		return netip.AddrPort{}, err
	}
	return advertised(conf, os.Getenv("FLY_PRIVATE_IP"), own)
}

// checkAdvertised says that cluster.advertise is missing. What is wrong with addresses that are there the configuration says itself.
func checkAdvertised(conf configs.Cluster) error {
	host, _, err := net.SplitHostPort(conf.Bind)
	if _, wrong := netip.ParseAddr(host); err != nil || host != "" && wrong != nil || conf.Advertise != "" {
		return nil
	}
	_, err = advertisedHere(conf)
	return err
}

// advertised is where others reach this node; no address: where it is bound. A node that is bound to every address is reached at Fly's private
// one, or else at the only private one that the computer has.
func advertised(conf configs.Cluster, fly string, own []netip.Addr) (netip.AddrPort, error) {
	if conf.Advertise != "" {
		return conf.AdvertiseAddress()
	}
	host, _, err := net.SplitHostPort(conf.Bind)
	if err != nil {
		return netip.AddrPort{}, err
	}
	bound, _ := netip.ParseAddr(host) // or none: every address of both families
	if bound.IsValid() && !bound.IsUnspecified() {
		return netip.AddrPort{}, nil
	}
	if addr, err := netip.ParseAddr(fly); err == nil {
		own = []netip.Addr{addr}
	}
	var found []netip.Addr
	for _, addr := range own {
		if addr.IsPrivate() && (!bound.IsValid() || addr.Is4() == bound.Is4()) {
			found = append(found, addr)
		}
	}
	if len(found) != 1 {
		return netip.AddrPort{}, fmt.Errorf("cluster.advertise: is needed: cluster.bind is every address, and of those this computer has %d private ones, not one: say at which one others reach this node", len(found))
	}
	return netip.AddrPortFrom(found[0], 0), nil
}

// here is what the store is told of this node; nil: nothing.
func (f *fellowship) here() func() tenants.Here {
	if f == nil {
		return nil
	}
	return f.Cluster.Here
}

func (f *fellowship) boot() string {
	if f == nil {
		return ""
	}
	return f.Cluster.Boot()
}

// follow has the cluster believe what a store says about nodes.
func (f *fellowship) follow(s tenantStore) (err error) {
	if f == nil {
		return nil
	}
	store, ok := s.(*postgres.Store)
	if !ok {
		return errors.New("cluster: needs tenants.postgres")
	}
	f.store = store
	f.registry, err = store.Registry()
	return err
}

// start takes part until end is called, which waits for it.
func (f *fellowship) start() (end func()) {
	if f == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.running.Go(func() { f.Cluster.Run(ctx) })
	return sync.OnceFunc(func() {
		cancel()
		f.running.Wait()
		f.registry.Close()
	})
}

// drain says at once that this node goes: its peers hear it by the gossip, and the store with the row. It does not wait.
func (f *fellowship) drain(ctx context.Context) {
	if f == nil {
		return
	}
	f.running.Go(func() { f.Cluster.Leave(ctx) })
}

// reload reads the cluster's keys again.
func (f *fellowship) reload() error {
	if f == nil {
		return nil
	}
	return f.Cluster.ReloadKeys()
}

// members are what the gossip tells, for the admin API; nil: there is no cluster.
func (f *fellowship) members() func() []admin.Member {
	if f == nil {
		return nil
	}
	return func() (out []admin.Member) {
		for _, m := range f.Members() {
			out = append(out, admin.Member{Name: m.Name, Boot: m.Boot, Region: m.Region, Address: m.Address, State: string(m.State), Since: m.Since,
				Protocol: m.Protocol, Leaving: m.Leaving})
		}
		return out
	}
}

// rows are the nodes' rows as they were read last, for the admin API; nil: there is no cluster.
func (f *fellowship) rows() func() []tenants.Node {
	if f == nil {
		return nil
	}
	return f.Nodes
}

// nodes are the rows of SHOW NODES: those of the store, and after them who is only heard of.
func (f *fellowship) nodes() (out []console.Node) {
	if f == nil {
		return nil
	}
	heard := make(map[string]cluster.Member)
	for _, m := range f.Members() {
		heard[m.Boot] = m
	}
	for _, n := range f.Nodes() {
		m, ok := heard[n.Boot]
		delete(heard, n.Boot)
		row := console.Node{Name: n.Name, Region: n.Region, Address: addressText(n.Address), Seen: n.Seen, Silent: n.Silent, Leaving: n.Leaving || m.Leaving,
			Protocol: n.Protocol, Applied: n.Applied}
		if ok {
			row.Member, row.Since = string(m.State), m.Since
		}
		out = append(out, row)
	}
	for _, m := range f.Members() {
		if _, ok := heard[m.Boot]; ok {
			out = append(out, console.Node{Name: m.Name, Region: m.Region, Address: addressText(m.Address), Member: string(m.State), Since: m.Since, Leaving: m.Leaving,
				Protocol: m.Protocol})
		}
	}
	return out
}

// addressText is an address; "": none.
func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
