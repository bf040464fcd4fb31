// Read collects the exact bytes of one header and has them parsed.

package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	pires "github.com/pires/go-proxyproto"
)

const (
	// MaxV1 is the length in bytes of the longest version 1 header with its CRLF (specification section 2.1).
	MaxV1 = 107
	// MaxV2Length bounds what a version 2 header may declare behind its fixed part: addresses and extensions. A client
	// certificate is the largest that senders are known to add, about 2 KiB.
	MaxV2Length = 4096

	v1Signature = "PROXY"
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed     = 16 // signature, version and command, family, length

	// The version 2 bytes that matter here (section 2.2).
	version2     = 0x2
	commandLocal = 0x0
	commandProxy = 0x1
	unspec       = 0x00
	tcp4         = 0x11
	udp4         = 0x12
	tcp6         = 0x21
	udp6         = 0x22
	unixStream   = 0x31
	unixDatagram = 0x32
)

// Read takes exactly one header off br and says who is calling; socket is the address of the TCP peer. It blocks no
// longer than it takes to decide; the deadline is the one that the caller has set on the connection behind br. A non-nil
// error is an *Error, and the connection is to be closed. Read keeps neither br nor its buffer, whose size does not matter.
func Read(br *bufio.Reader, socket netip.AddrPort) (Peer, error) {
	peer, _, err := readBy(read, br, socket)
	return peer, err
}

func readBy(read func(*bufio.Reader, byte) (Peer, extensions, *Error), br *bufio.Reader, socket netip.AddrPort) (Peer, extensions, error) {
	first, err := br.ReadByte()
	if err != nil {
		return Peer{}, nil, ioError(err, 0)
	}
	peer, x, e := read(br, first)
	if e != nil {
		e.FirstByte = first
		return Peer{}, nil, e
	}
	peer.Socket = unmap(socket)
	return peer, x, nil
}

func read(br *bufio.Reader, first byte) (Peer, extensions, *Error) {
	if first != v1Signature[0] {
		return readV2(br, first)
	}
	header, err := collectV1(br)
	if err != nil {
		return Peer{}, nil, err
	}
	peer, err := parse(header)
	return peer, nil, err
}

func readV2(br *bufio.Reader, first byte) (Peer, extensions, *Error) {
	if first != v2Signature[0] {
		return Peer{}, nil, &Error{Reason: ReasonMissing, Err: errors.New("the first byte is not a header's")}
	}
	header, err := collectV2(br)
	if err != nil {
		return Peer{}, nil, err
	}
	x, err := checkV2(header)
	if err != nil {
		return Peer{}, nil, err
	}
	peer, err := parse(header)
	if err != nil {
		return Peer{}, nil, err
	}
	x.apply(&peer)
	return peer, x, nil
}

// collectV1 reads the rest of a version 1 line, whose first byte is read already. It goes byte by byte, since anything
// behind the line is not ours; they come out of br's buffer.
func collectV1(br *bufio.Reader) ([]byte, *Error) {
	line := append(make([]byte, 0, MaxV1), v1Signature[0])
	for {
		c, err := br.ReadByte()
		if err != nil {
			return nil, ioError(err, len(line))
		}
		at := len(line)
		line = append(line, c)
		switch {
		case at < len(v1Signature) && c != v1Signature[at]:
			// POST, PUT, PATCH and PRI * HTTP/2.0 begin like it.
			return nil, &Error{Reason: ReasonMissing, Err: errors.New("the first bytes are not a header's")}
		case at == len(v1Signature) && c != ' ':
			return nil, malformed("no space after the signature")
		case line[at-1] == '\r' && c != '\n':
			return nil, malformed("a CR without LF")
		case line[at-1] == '\r':
			return line, nil
		case c != '\r' && (c < ' ' || c > '~'):
			return nil, malformed("a byte that is not printable ASCII")
		case len(line) == MaxV1:
			return nil, &Error{Reason: ReasonOversize, Err: fmt.Errorf("no end of line in %d bytes", MaxV1)}
		}
	}
}

// collectV2 reads the rest of a version 2 header, whose first byte is read already, and checks its fixed part. It
// reads as much as it needs to know how much it needs.
func collectV2(br *bufio.Reader) ([]byte, *Error) {
	header := append(make([]byte, 0, 128), v2Signature[0])
	for len(header) < v2Fixed {
		c, err := br.ReadByte()
		if err != nil {
			return nil, ioError(err, len(header))
		}
		at := len(header)
		header = append(header, c)
		switch {
		case at < len(v2Signature) && c != v2Signature[at]:
			return nil, malformed("a wrong signature")
		case at == 12 && c>>4 != version2:
			return nil, malformed("an unknown version")
		case at == 12 && c&0xf != commandLocal && c&0xf != commandProxy:
			return nil, malformed("an unknown command")
		case at == 13 && !knownFamily(c):
			return nil, malformed("an unknown family or protocol")
		}
	}
	length := int(binary.BigEndian.Uint16(header[14:16]))
	if length > MaxV2Length {
		return nil, &Error{Reason: ReasonOversize, Err: fmt.Errorf("%d bytes declared, at most %d taken", length, MaxV2Length)}
	}
	whole := append(make([]byte, 0, v2Fixed+length), header...)[:v2Fixed+length]
	if n, err := io.ReadFull(br, whole[v2Fixed:]); err != nil {
		return nil, ioError(err, v2Fixed+n)
	}
	return whole, nil
}

// knownFamily says whether the specification defines this byte; it tells receivers to refuse all others.
func knownFamily(c byte) bool {
	switch c {
	case unspec, tcp4, udp4, tcp6, udp6, unixStream, unixDatagram:
		return true
	}
	return false
}

// parse lets the library read a header that is complete and, for version 2, checked.
func parse(header []byte) (Peer, *Error) {
	// The buffer holds all of it: the library gives up on a version 1 header that takes two reads.
	h, err := pires.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
	if err != nil {
		return Peer{}, &Error{Reason: ReasonMalformed, Err: err}
	}
	if h.Command.IsLocal() {
		return Peer{}, &Error{Reason: ReasonLocal, Err: errors.New("UNKNOWN names no client")}
	}
	source, destination, ok := h.TCPAddrs()
	if !ok {
		return Peer{}, &Error{Reason: ReasonUnsupported, Err: errors.New("no TCP addresses")}
	}
	return Peer{Client: addrPort(source), Destination: addrPort(destination)}, nil
}

// addrPort converts a parsed address. A net.IP may be 4 bytes or 16 for the same IPv4 address, hence the unmapping.
func addrPort(a *net.TCPAddr) netip.AddrPort { return unmap(a.AddrPort()) }
