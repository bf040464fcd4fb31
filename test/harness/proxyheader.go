// Senders of PROXY headers: a load balancer for tests.

package harness

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"testing"
	"time"
)

// A TLV is a type-length-value entry of a v2 header.
type TLV struct {
	Type  byte
	Value []byte
}

// The v2 signature, and the TLV with the checksum (PROXY protocol specification, sections 2.2 and 2.2.3).
const (
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	tlvCRC32C   = 0x03
)

// V1 is a text header: PROXY TCP4 or TCP6, by the family of src, which must be that of dst.
func V1(src, dst netip.AddrPort) []byte {
	family := "TCP4"
	if src.Addr().Is6() {
		family = "TCP6"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, src.Addr(), dst.Addr(), src.Port(), dst.Port())
}

// V2 is a binary header for a TCP connection with tlvs and then a correct CRC32C.
func V2(src, dst netip.AddrPort, tlvs ...TLV) []byte {
	family := byte(0x11)
	if src.Addr().Is6() {
		family = 0x21
	}
	var body []byte
	body = append(body, src.Addr().AsSlice()...)
	body = append(body, dst.Addr().AsSlice()...)
	body = binary.BigEndian.AppendUint16(body, src.Port())
	body = binary.BigEndian.AppendUint16(body, dst.Port())
	for _, tlv := range append(tlvs[:len(tlvs):len(tlvs)], TLV{tlvCRC32C, make([]byte, 4)}) {
		body = append(body, tlv.Type)
		body = binary.BigEndian.AppendUint16(body, uint16(len(tlv.Value)))
		body = append(body, tlv.Value...)
	}
	header := append([]byte(v2Signature), 0x21, family)
	header = binary.BigEndian.AppendUint16(header, uint16(len(body)))
	header = append(header, body...)
	// Over the whole header, with the checksum's own field zero.
	sum := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(header[len(header)-4:], sum)
	return header
}

// A ProxyDialer connects and sends its header first. DialContext is for pgconn's DialFunc; with the other two it is a
// lib/pq Dialer.
type ProxyDialer struct{ Header []byte }

// DialContext connects and sends the header.
func (d ProxyDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(d.Header); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// Dial is DialContext without a bound.
func (d ProxyDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialTimeout is DialContext with one.
func (d ProxyDialer) DialTimeout(network, address string, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// ProxyRelay runs a load balancer in front of target until the test ends and returns its address. header gets the client's
// address and returns what goes first to the target.
func ProxyRelay(t testing.TB, target string, header func(client netip.AddrPort) []byte) string {
	t.Helper()
	return NewRelay(t, target, Faults{First: header}).Addr()
}
