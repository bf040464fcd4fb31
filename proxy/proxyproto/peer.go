// A Peer is who is calling; Trusted is whom we believe about that.

package proxyproto

import (
	"net/netip"
	"slices"
)

// Peer is who is calling.
type Peer struct {
	Socket      netip.AddrPort // the TCP peer, unmapped: the balancer, or the client itself
	Client      netip.AddrPort // the real client, unmapped; equals Socket where the listener has no header
	Destination netip.AddrPort // where the client connected to, from the header; zero without one

	// From the header's extensions; zero where absent or not usable.
	Authority      string // the host name that the client asked for: valid UTF-8 without control characters, at most 255 bytes
	UniqueID       []byte // names the connection in the balancer's logs, at most 128 bytes; opaque, so not for logs as it is
	AWSEndpoint    string // VPC endpoint id: printable ASCII, at most 255 bytes
	AzureLink      uint32 // private endpoint LinkID
	AzureLinkSet   bool
	GCPEndpoint    uint64 // Private Service Connect connection id
	GCPEndpointSet bool
}

// Direct is the Peer of a connection on a listener that takes no header.
func Direct(socket netip.AddrPort) Peer {
	socket = unmap(socket)
	return Peer{Socket: socket, Client: socket}
}

// Trusted is a set of networks whose senders are believed. The zero value believes nobody. It is immutable, so safe for
// concurrent use.
type Trusted struct{ prefixes []netip.Prefix }

// NewTrusted returns the set of the given networks. Networks of IPv4-mapped addresses count as the IPv4 networks they
// mean; invalid prefixes contain nothing.
func NewTrusted(prefixes []netip.Prefix) Trusted {
	t := Trusted{prefixes: slices.Clone(prefixes)}
	for i, p := range t.prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			t.prefixes[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
	}
	return t
}

// Contains says whether a sender at addr is believed. Mapped addresses are unmapped and zones ignored first.
func (t Trusted) Contains(addr netip.Addr) bool {
	// A handful of prefixes, asked once per connection: a loop beats any tree.
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(t.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// unmap makes an IPv4 address of an IPv4-mapped one and drops nothing else.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
