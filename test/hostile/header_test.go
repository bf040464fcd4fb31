// PROXY headers that may be bent; the harness has the good ones.

package hostile

import (
	"encoding/binary"
	"net/netip"
)

const v2Signature = "\r\n\r\n\x00\r\nQUIT\n"

// The version 2 bytes (specification section 2.2).
const (
	v2Local, v2Proxy                              = 0x20, 0x21
	v2Unspec, v2TCP4, v2UDP4, v2TCP6, v2UDP6      = 0x00, 0x11, 0x12, 0x21, 0x22
	v2UnixStream, v2UnixDatagram                  = 0x31, 0x32
	tlvALPN, tlvAuthority, tlvNoop                = 0x01, 0x02, 0x04
	tlvUniqueID, tlvSSL, tlvAWS, tlvGCP, tlvAzure = 0x05, 0x20, 0xEA, 0xE0, 0xEE
)

// v2 builds a version 2 header around a payload.
func v2(command, family byte, payload ...[]byte) []byte {
	body := join(payload...)
	return v2Claimed(command, family, uint16(len(body)), body)
}

// v2Claimed builds one that declares its own idea of its length.
func v2Claimed(command, family byte, length uint16, body []byte) []byte {
	return join([]byte(v2Signature), []byte{command, family}, binary.BigEndian.AppendUint16(nil, length), body)
}

// somewhere is where a client connected to, in its own family.
func somewhere(client netip.AddrPort) netip.AddrPort {
	if client.Addr().Is6() {
		return netip.MustParseAddrPort("[2001:db8::1]:5432")
	}
	return netip.MustParseAddrPort("192.0.2.1:5432")
}

// v2Addrs encodes source and destination.
func v2Addrs(src netip.AddrPort) []byte {
	dst := somewhere(src)
	b := join(src.Addr().AsSlice(), dst.Addr().AsSlice())
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

// v2From is a good header, without the checksum that the harness's senders add.
func v2From(src netip.AddrPort, tlvs ...[]byte) []byte {
	family := byte(v2TCP4)
	if src.Addr().Is6() {
		family = v2TCP6
	}
	return v2(v2Proxy, family, v2Addrs(src), join(tlvs...))
}

func tlv(kind byte, value []byte) []byte {
	return join([]byte{kind}, binary.BigEndian.AppendUint16(nil, uint16(len(value))), value)
}
