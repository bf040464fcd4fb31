// What a version 2 header holds behind its fixed part: addresses of a known length, then extensions (TLVs).

package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"unicode"
	"unicode/utf8"
)

// Extension types (specification section 2.2 and the vendors' own).
const (
	typeAuthority = 0x02
	typeCRC32C    = 0x03
	typeUniqueID  = 0x05
	typeGCP       = 0xe0
	typeListener  = 0xe7 // Postern's own: see Header
	typeAWS       = 0xea
	typeAzure     = 0xee

	subtypeAWSEndpoint = 0x01
	subtypeAzureLink   = 0x01

	tlvHead      = 3 // type, length
	maxAuthority = 255
	maxUniqueID  = 128
)

// extensions are the raw values of the types we know, by type. A value may be empty.
type extensions map[byte][]byte

// checkV2 checks what lies behind the fixed part of a complete header, and gives back its extensions. Headers that name
// no TCP client come back as errors with their own reason. header is unchanged on return.
func checkV2(header []byte) (extensions, *Error) {
	// A health check comes first: the specification says to skip its contents whatever they are.
	if header[12]&0xf == commandLocal || header[13] == unspec {
		return nil, &Error{Reason: ReasonLocal, Err: errors.New("LOCAL or UNSPEC names no client")}
	}
	var addresses int
	switch header[13] {
	case tcp4, udp4:
		addresses = 2*4 + 2*2
	case tcp6, udp6:
		addresses = 2*16 + 2*2
	default:
		addresses = 2 * 108
	}
	body := header[v2Fixed:]
	if len(body) < addresses {
		return nil, malformed("too short for its addresses")
	}
	known := make(extensions)
	for rest := body[addresses:]; len(rest) > 0; {
		// The extensions must end where the header ends. If not, the sender's idea of its length is not ours, and bytes
		// of the client could pass for the balancer's or the other way round.
		if len(rest) < tlvHead {
			return nil, malformed("stray bytes after the last extension")
		}
		length := int(binary.BigEndian.Uint16(rest[1:tlvHead]))
		if length > len(rest)-tlvHead {
			return nil, malformed("an extension longer than the header")
		}
		kind, value := rest[0], rest[tlvHead:tlvHead+length]
		rest = rest[tlvHead+length:]
		switch kind {
		case typeAWS, typeAzure:
			if length == 0 {
				return nil, malformed("a vendor's extension without its subtype")
			}
		case typeCRC32C:
			if length != crc32.Size {
				return nil, malformed("a checksum of the wrong length")
			}
		case typeAuthority, typeUniqueID, typeGCP:
		case typeListener: // which only another Postern says: what else has this number may come twice
			if _, twice := known[kind]; twice {
				value = nil
			}
			known[kind] = value
			continue
		default:
			continue // unknown, unused or padding
		}
		if _, twice := known[kind]; twice {
			return nil, malformed("an extension that comes twice")
		}
		known[kind] = value
	}
	if sum, ok := known[typeCRC32C]; ok && !checksumFits(header, sum) {
		return nil, &Error{Reason: ReasonChecksum, Err: errors.New("the CRC32C does not fit")}
	}
	if family := header[13]; family != tcp4 && family != tcp6 {
		return nil, &Error{Reason: ReasonUnsupported, Err: errors.New("UDP or a UNIX socket")}
	}
	return known, nil
}

// checksumFits computes the CRC32C over header with the checksum itself, sum, which lies within header, taken as zero.
func checksumFits(header, sum []byte) bool {
	sent := binary.BigEndian.Uint32(sum)
	clear(sum)
	computed := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(sum, sent)
	return sent == computed
}

// apply copies what is usable into p. A value that breaks its type's rules is left out: an extension informs, only the
// addresses decide.
func (x extensions) apply(p *Peer) {
	if v := x[typeAuthority]; len(v) <= maxAuthority && utf8.Valid(v) && bytes.IndexFunc(v, unicode.IsControl) < 0 {
		p.Authority = string(v)
	}
	if v := x[typeUniqueID]; len(v) <= maxUniqueID {
		p.UniqueID = bytes.Clone(v)
	}
	if v := x[typeAWS]; len(v) > 1 && len(v) <= 1+255 && v[0] == subtypeAWSEndpoint && bytes.IndexFunc(v[1:], notPrintable) < 0 {
		p.AWSEndpoint = string(v[1:])
	}
	if v := x[typeAzure]; len(v) == 5 && v[0] == subtypeAzureLink {
		p.AzureLink, p.AzureLinkSet = binary.LittleEndian.Uint32(v[1:]), true // the one little-endian field around here
	}
	if v := x[typeGCP]; len(v) == 8 {
		p.GCPEndpoint, p.GCPEndpointSet = binary.BigEndian.Uint64(v), true
	}
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }
