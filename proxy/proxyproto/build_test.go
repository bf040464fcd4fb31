// Builders of headers, good and bad, for the tests.

package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
)

var (
	balancer = netip.MustParseAddrPort("172.19.0.1:40000")
	v4block  = []byte{203, 0, 113, 7, 198, 51, 100, 9, 0xd9, 0x03, 0x19, 0x8f} // 203.0.113.7:55555 -> 198.51.100.9:6543
	v6block  = slices36("2001:db8::7", "2001:db8::9", 55555, 6543)
)

func slices36(source, destination string, sourcePort, destinationPort uint16) []byte {
	s, d := netip.MustParseAddr(source).As16(), netip.MustParseAddr(destination).As16()
	b := append(s[:], d[:]...)
	b = binary.BigEndian.AppendUint16(b, sourcePort)
	return binary.BigEndian.AppendUint16(b, destinationPort)
}

// v2 builds a version 2 header with a right length.
func v2(command, family byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	b := append([]byte(v2Signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

func tlv(kind byte, value string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))
	return append(b, value...)
}

// withCRC appends a checksum extension, right but for the bits in flip.
func withCRC(header []byte, flip uint32) []byte {
	b := append(bytes.Clone(header), tlv(typeCRC32C, "\x00\x00\x00\x00")...)
	binary.BigEndian.PutUint16(b[14:], binary.BigEndian.Uint16(b[14:])+7)
	at := len(b) - 4
	crcOver(b, at)
	binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])^flip)
	return b
}

// readAll runs Read over r and says what is left behind the header.
func readAll(t *testing.T, r io.Reader, size int) (Peer, Reason, string) {
	t.Helper()
	br := bufio.NewReaderSize(r, size)
	peer, err := Read(br, balancer)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("Read gave %T, want *Error", err)
		}
		if e.Err == nil || !strings.Contains(e.Error(), string(e.Reason)) {
			t.Fatalf("an error without a cause or its reason: %#v", e)
		}
		return peer, e.Reason, ""
	}
	rest, err := io.ReadAll(br)
	if err != nil {
		t.Fatal(err)
	}
	return peer, ReasonOK, string(rest)
}

// crcOver puts the right checksum into header at offset at, where there are zeros.
func crcOver(header []byte, at int) []byte {
	sum := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(header[at:], sum)
	return header
}
