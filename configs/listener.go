// Addresses to listen on: what they mean, and who can reach them.

package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Network returns the network to listen on, for net.Listen: tcp4 for an IPv4 literal and tcp6 for an IPv6 literal, so that
// neither is ever dual-stack (on Fly, a dual-stack listener would let neighbours on the private IPv6 network reach a port
// that is meant for Fly Proxy alone); tcp, which is both, for an address without a host.
func (l Listener) Network() string { return network(l.Address) }

// Network returns the network to listen on, as Listener.Network does.
func (a Admin) Network() string { return network(a.Address) }

func network(address string) string {
	ap, err := parseAddress(address)
	switch {
	case err != nil || !ap.Addr().IsValid():
		return "tcp"
	case ap.Addr().Is4():
		return "tcp4"
	default:
		return "tcp6"
	}
}

// CheckExposure reports the listeners that take any peer's address at face value although others than this computer can
// reach them, if anyAllowList says that some tenant judges addresses: behind a proxy all clients would share the proxy's
// address. It depends on the tenants and is therefore asked again whenever they change.
func (c *Config) CheckExposure(anyAllowList bool) error {
	if !anyAllowList {
		return nil
	}
	var ps problems
	for i, l := range c.Listeners {
		if l.ProxyProtocol == ProxyOff && !isLoopback(l.Address) {
			ps.add(fmt.Sprintf("listeners[%d].proxy_protocol", i),
				"listener %q is %q on %s, which others can reach, while a tenant has an allow_list: require a PROXY header, or listen on a loopback address",
				l.Name, ProxyOff, l.Address)
		}
	}
	return ps.err()
}

// parseAddress reads host:port. Without a host, the result's Addr is not valid.
func parseAddress(address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, errors.New("must be host:port, such as 0.0.0.0:6543, [::1]:6543 or :6543")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port[0] == '+' {
		return netip.AddrPort{}, errors.New("its port must be a number from 0 to 65535 (0: any free one)")
	}
	if host == "" {
		return netip.AddrPortFrom(netip.Addr{}, uint16(n)), nil
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return netip.AddrPort{}, errors.New("its host must be an IP address, not a name, or be left out")
	case ip.Is4In6():
		return netip.AddrPort{}, fmt.Errorf("its host must be written as IPv4: %s", ip.Unmap())
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// isLoopback reports whether only this computer can reach the address.
func isLoopback(address string) bool {
	ap, err := parseAddress(address)
	return err == nil && ap.Addr().IsValid() && ap.Addr().IsLoopback()
}
