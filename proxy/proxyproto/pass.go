// What one Postern tells another of a client that it passes on: a header of version 2, with everything in it that the client was judged by.

package proxyproto

import (
	"bufio"
	"encoding/binary"
	"net"
	"net/netip"

	pires "github.com/pires/go-proxyproto"
)

// maxListener bounds a listener's name in a header.
const maxListener = 255

// Header is a header of version 2 that [ReadPassed] reads back: who is calling, and at which listener. It fails if a name is too long.
func Header(p Peer, listener string) ([]byte, error) {
	if len(listener) > maxListener {
		return nil, malformed("the listener's name is too long")
	}
	destination := p.Destination
	if !destination.IsValid() { // a header has one
		destination = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		if p.Client.Addr().Is4() {
			destination = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	h := &pires.Header{Version: 2, Command: pires.PROXY, TransportProtocol: pires.TCPv6, SourceAddr: tcpAddr(p.Client), DestinationAddr: tcpAddr(destination)}
	if p.Client.Addr().Is4() && destination.Addr().Is4() {
		h.TransportProtocol = pires.TCPv4
	}
	var all []pires.TLV
	add := func(kind pires.PP2Type, value []byte) {
		if len(value) > 0 {
			all = append(all, pires.TLV{Type: kind, Value: value})
		}
	}
	add(typeListener, []byte(listener))
	add(typeAuthority, []byte(p.Authority))
	add(typeUniqueID, p.UniqueID)
	if p.AWSEndpoint != "" {
		add(typeAWS, append([]byte{subtypeAWSEndpoint}, p.AWSEndpoint...))
	}
	if p.AzureLinkSet {
		add(typeAzure, binary.LittleEndian.AppendUint32([]byte{subtypeAzureLink}, p.AzureLink))
	}
	if p.GCPEndpointSet {
		add(typeGCP, binary.BigEndian.AppendUint64(nil, p.GCPEndpoint))
	}
	if err := h.SetTLVs(all); err != nil {
		return nil, err
	}
	return h.Format()
}

// tcpAddr is an address as the library takes it. A zone means nothing to others.
func tcpAddr(a netip.AddrPort) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()))
}

// ReadPassed is [Read] for what Header has made. It takes no version 1, and no client without the name of a listener.
func ReadPassed(br *bufio.Reader, socket netip.AddrPort) (p Peer, listener string, err error) {
	p, x, err := readBy(readV2, br, socket)
	if err != nil {
		return Peer{}, "", err
	}
	name := x[typeListener]
	if len(name) == 0 || len(name) > maxListener {
		return Peer{}, "", malformed("no listener is named")
	}
	if p.Destination.Addr().IsUnspecified() {
		p.Destination = netip.AddrPort{}
	}
	return p, string(name), nil
}
