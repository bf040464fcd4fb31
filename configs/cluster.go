// Several nodes: the rules of what makes them one.

package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
)

// nodeName is what a node may be called, and a region.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// maxNodes is far above what limits can be divided among.
const maxNodes = 1000

func (c *Config) checkCluster(ps *problems) {
	if c.Region != "" && !nodeName.MatchString(c.Region) {
		ps.add("region", "must be letters, digits and any of . : _ -, 64 at most")
	}
	k := c.Cluster
	if !k.Configured() {
		return
	}
	if c.Tenants.File != "" {
		ps.add("cluster", "needs tenants.postgres: nodes agree by what stands there")
	}
	switch node := c.Tenants.Postgres.Node; {
	case k.Name != "" && !nodeName.MatchString(k.Name):
		ps.add("cluster.name", "must be letters, digits and any of . : _ -, 64 at most")
	case k.Name != "" && node != "" && k.Name != node:
		ps.add("cluster.name", "is another one than tenants.postgres.node: a node has one name, and one of the two is enough")
	}
	if k.Bind == "" {
		ps.add("cluster.bind", "is missing: an address such as [::]:7946")
	} else if at, err := parseAddress(k.Bind); err != nil {
		ps.add("cluster.bind", "%v", err)
	} else if at.Port() == 65535 {
		ps.add("cluster.bind", "its port must be below 65535: the next one is for calls of other nodes")
	} else {
		c.checkClusterPorts(ps, at)
	}
	if k.Advertise != "" {
		if at, err := k.AdvertiseAddress(); err != nil {
			ps.add("cluster.advertise", "%v", err)
		} else if at.Addr().IsUnspecified() || at.Port() == 65535 {
			ps.add("cluster.advertise", "must be an address at which others reach this node")
		} else if bind, err := parseAddress(k.Bind); err == nil && bind.Addr().IsValid() && bind.Addr().IsUnspecified() && bind.Addr().Is4() != at.Addr().Unmap().Is4() {
			ps.add("cluster.advertise", "nobody can reach it: cluster.bind is every address of the other family; with no host, such as :7946, it is those of both")
		}
	}
	for i, seed := range k.Join {
		if err := checkSeed(seed); err != nil {
			ps.add(fmt.Sprintf("cluster.join[%d]", i), "%v", err)
		}
	}
	if k.KeyFile == "" {
		ps.add("cluster.key_file", "is missing: openssl rand -base64 32 makes one, which all nodes share")
	}
	if k.MaxNodes < 1 || k.MaxNodes > maxNodes {
		ps.add("cluster.max_nodes", "must be from 1 to %d", maxNodes)
	}
}

// checkClusterPorts reports addresses that are taken.
func (c *Config) checkClusterPorts(ps *problems, bind netip.AddrPort) {
	taken := func(address string) bool {
		at, err := parseAddress(address)
		return err == nil && at.Addr() == bind.Addr() && at.Port() != 0 && bind.Port() != 0 && (at.Port() == bind.Port() || at.Port() == bind.Port()+1)
	}
	for i, l := range c.Listeners {
		if taken(l.Address) {
			ps.add("cluster.bind", "its port or the next one, which is for calls of other nodes, is that of listeners[%d]", i)
		}
	}
	if taken(c.Admin.Address) {
		ps.add("cluster.bind", "its port or the next one, which is for calls of other nodes, is that of admin.address")
	}
}

// AdvertiseAddress is what Advertise says. Without a port, its port is 0.
func (c Cluster) AdvertiseAddress() (netip.AddrPort, error) {
	if c.Advertise == "" {
		return netip.AddrPort{}, nil
	}
	if addr, err := netip.ParseAddr(c.Advertise); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 0), nil
	}
	at, err := netip.ParseAddrPort(c.Advertise)
	if err != nil {
		return netip.AddrPort{}, errors.New("must be an IP address, perhaps with a port, such as fdaa::3 or 192.0.2.7:7946")
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

// checkSeed says what is wrong with where to look for nodes.
func checkSeed(seed string) error {
	host := seed
	if h, port, err := net.SplitHostPort(seed); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("its port must be a number from 1 to 65535")
		}
		host = h
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if !hostname.MatchString(host) && !hostLabel.MatchString(host) || len(host) > 253 {
		return errors.New("must be an IP address or a DNS name, perhaps with a port, such as my-postern.internal or [fdaa::3]:7946")
	}
	return nil
}

// hostLabel is a name of one label, such as localhost.
var hostLabel = regexp.MustCompile(`^(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$`)
