// The catalogue of headers, each in one piece, byte by byte, and split at every offset.

package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	addrPortsByValue = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	peer4            = Peer{Socket: balancer, Client: netip.MustParseAddrPort("203.0.113.7:55555"), Destination: netip.MustParseAddrPort("198.51.100.9:6543")}
	peer6            = Peer{Socket: balancer, Client: netip.MustParseAddrPort("[2001:db8::7]:55555"), Destination: netip.MustParseAddrPort("[2001:db8::9]:6543")}
)

func from(client, destination string) Peer {
	return Peer{Socket: balancer, Client: netip.MustParseAddrPort(client), Destination: netip.MustParseAddrPort(destination)}
}

// extended is peer4 with something from an extension.
func extended(set func(*Peer)) Peer {
	p := peer4
	set(&p)
	return p
}

type headerCase struct {
	name   string
	header string
	reason Reason // ReasonOK: peer counts
	peer   Peer
}

func ok(name, header string, peer Peer) headerCase { return headerCase{name, header, ReasonOK, peer} }

func bad(name, header string, reason Reason) headerCase {
	return headerCase{name, header, reason, Peer{}}
}

// The names in front are those of the catalogue of hostile inputs.
func cases() []headerCase {
	v1 := func(rest string) string { return "PROXY " + rest + "\r\n" }
	p4 := func(parts ...[]byte) string { return string(v2(0x21, tcp4, append([][]byte{v4block}, parts...)...)) }
	edit := func(header string, change func(b []byte)) string { b := []byte(header); change(b); return string(b) }
	long := strings.Repeat("x", 300)

	list := []headerCase{
		ok("P01 v1 TCP4", v1("TCP4 203.0.113.7 198.51.100.9 55555 6543"), peer4),
		ok("P01 v1 TCP6", v1("TCP6 2001:db8::7 2001:db8::9 55555 6543"), peer6),
		ok("P01 v1 longest TCP6", v1("TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535"),
			from("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
		ok("P01 v1 port 0", v1("TCP4 203.0.113.7 198.51.100.9 0 0"), from("203.0.113.7:0", "198.51.100.9:0")),
		ok("P02 v2 TCP4", p4(), peer4),
		ok("P02 v2 TCP6", string(v2(0x21, tcp6, v6block)), peer6),
		ok("P02 ALPN, NOOP, SSL, NETNS, unknown", p4(tlv(0x01, "postgresql"), tlv(0x04, ""), tlv(0x04, "\x00\x00"),
			tlv(0x20, "\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.3"), tlv(0x30, "blue"), tlv(0xe1, "?"), tlv(0xef, ""), tlv(0xf1, long)), peer4),
		ok("P02 authority", p4(tlv(typeAuthority, "acme.db.example.com")), extended(func(p *Peer) { p.Authority = "acme.db.example.com" })),
		ok("P02 unique id", p4(tlv(typeUniqueID, "\x00\xff\x01")), extended(func(p *Peer) { p.UniqueID = []byte{0, 255, 1} })),
		ok("P02 AWS endpoint", p4(tlv(typeAWS, "\x01vpce-08d2bf15fac5001c9")), extended(func(p *Peer) { p.AWSEndpoint = "vpce-08d2bf15fac5001c9" })),
		ok("P02 AWS, another subtype", p4(tlv(typeAWS, "\x02vpce")), peer4),
		ok("P02 AWS, control characters", p4(tlv(typeAWS, "\x01vpce\n")), peer4),
		ok("P02 AWS, empty", p4(tlv(typeAWS, "\x01")), peer4),
		ok("P02 Azure link", p4(tlv(typeAzure, "\x01\x04\x03\x02\x01")), extended(func(p *Peer) { p.AzureLink, p.AzureLinkSet = 0x01020304, true })),
		ok("P02 Azure link 0", p4(tlv(typeAzure, "\x01\x00\x00\x00\x00")), extended(func(p *Peer) { p.AzureLinkSet = true })),
		ok("P02 Azure, another subtype", p4(tlv(typeAzure, "\x02\x04\x03\x02\x01")), peer4),
		ok("P02 Azure, wrong length", p4(tlv(typeAzure, "\x01\x04\x03\x02")), peer4),
		ok("P02 GCP endpoint", p4(tlv(typeGCP, "\x01\x02\x03\x04\x05\x06\x07\x08")),
			extended(func(p *Peer) { p.GCPEndpoint, p.GCPEndpointSet = 0x0102030405060708, true })),
		ok("P02 GCP, wrong length", p4(tlv(typeGCP, "\x01")), peer4),

		bad("P05 length takes in a byte of the payload", edit(p4(), func(b []byte) { b[15]++ })+"\x00", ReasonMalformed),
		bad("P05 the same with an extension", edit(p4(tlv(0x04, "")), func(b []byte) { b[15]++ })+"\x00", ReasonMalformed),
		bad("P05 length ends a byte early", edit(p4(), func(b []byte) { b[15]-- }), ReasonMalformed),
		bad("P05 the same with an extension", edit(p4(tlv(0x04, "abc")), func(b []byte) { b[15]-- }), ReasonMalformed),
		bad("P06 SSLRequest", "\x00\x00\x00\x08\x04\xd2\x16\x2f", ReasonMissing),
		bad("P06 TLS", "\x16\x03\x01\x02\x00\x01", ReasonMissing),
		bad("P06 GET", "GET / HTTP/1.1\r\n\r\n", ReasonMissing),
		bad("P06 PUT", "PUT / HTTP/1.1\r\n\r\n", ReasonMissing),
		bad("P06 POST", "POST / HTTP/1.1\r\n\r\n", ReasonMissing),
		bad("P06 PRI", "PRI * HTTP/2.0\r\n\r\n", ReasonMissing),
		bad("P06 binary", "\xff\xff", ReasonMissing),
		bad("P10 LOCAL", string(v2(0x20, unspec)), ReasonLocal),
		bad("P11 LOCAL with addresses", string(v2(0x20, tcp4, v4block)), ReasonLocal),
		bad("P11 LOCAL with too little", string(v2(0x20, tcp4)), ReasonLocal),
		bad("P11 LOCAL with junk", string(v2(0x20, tcp6, []byte("junk"), tlv(typeCRC32C, "xx"))), ReasonLocal),
		bad("P12 UNKNOWN", v1("UNKNOWN"), ReasonLocal),
		bad("P13 UNKNOWN with junk", v1("UNKNOWN "+strings.Repeat("j", 90)), ReasonLocal),
		bad("P13 UNKNOWN with one byte more than fits", v1("UNKNOWN "+strings.Repeat("j", 92)), ReasonOversize),
		bad("P13 UNKNOWNjunk", v1("UNKNOWNjunk"), ReasonMalformed),
		bad("P14 no CRLF", "PROXY TCP4 "+strings.Repeat("1", 200), ReasonOversize),
		bad("P14 one byte too long", "PROXY TCP4 "+strings.Repeat("1", 95)+"\r\n", ReasonOversize),
		bad("P15 LF only", "PROXY TCP4 203.0.113.7 198.51.100.9 55555 6543\n", ReasonMalformed),
		bad("P15 CR only", "PROXY TCP4 203.0.113.7 198.51.100.9 55555 6543\rX", ReasonMalformed),
		bad("P15 CR CR LF", "PROXY TCP4 203.0.113.7 198.51.100.9 55555 6543\r\r\n", ReasonMalformed),
		bad("P16 lower case", v1("tcp4 203.0.113.7 198.51.100.9 55555 6543"), ReasonMalformed),
		bad("P16 lower case signature", "proxy TCP4 203.0.113.7 198.51.100.9 55555 6543\r\n", ReasonMissing),
		bad("P16 empty", "PROXY\r\n", ReasonMalformed),
		bad("P16 nothing", "PROXY \r\n", ReasonMalformed),
		bad("P22 NUL", v1("TCP4 203.0.113.7 198.51.100.9 55555 6543\x00"), ReasonMalformed),
		bad("P22 NUL in UNKNOWN", v1("UNKNOWN \x00"), ReasonMalformed),
		bad("P22 8-bit", v1("TCP4 203.0.113.7 198.51.100.9 55555 6543\xa0"), ReasonMalformed),
		bad("P22 8-bit in UNKNOWN", v1("UNKNOWN \xff"), ReasonMalformed),
		bad("P26 PROXY UNSPEC", string(v2(0x21, unspec)), ReasonLocal),
		bad("P26 PROXY UNSPEC with addresses", string(v2(0x21, unspec, v4block)), ReasonLocal),
		bad("P27 UNIX stream", string(v2(0x21, unixStream, make([]byte, 216))), ReasonUnsupported),
		bad("P27 UNIX datagram", string(v2(0x21, unixDatagram, make([]byte, 216))), ReasonUnsupported),
		bad("P28 UDP4", string(v2(0x21, udp4, v4block)), ReasonUnsupported),
		bad("P28 UDP6", string(v2(0x21, udp6, v6block)), ReasonUnsupported),
		bad("P29 short TCP4", string(v2(0x21, tcp4, v4block[:8])), ReasonMalformed),
		bad("P29 short TCP6", string(v2(0x21, tcp6, v4block)), ReasonMalformed),
		bad("P29 short UNIX", string(v2(0x21, unixStream, v6block)), ReasonMalformed),
		bad("P30 65535", edit(p4(), func(b []byte) { b[14], b[15] = 0xff, 0xff }), ReasonOversize),
		bad("P30 one too many", p4(tlv(0x04, strings.Repeat("n", MaxV2Length-12-3+1))), ReasonOversize),
		bad("P30 one too many, LOCAL", string(v2(0x20, unspec, make([]byte, MaxV2Length+1))), ReasonOversize),
		bad("P31 extension too long", p4([]byte{0x04, 0, 2, 'x'}), ReasonMalformed),
		bad("P31 1 stray byte", p4([]byte{0}), ReasonMalformed),
		bad("P31 2 stray bytes", p4([]byte{0, 0}), ReasonMalformed),
		bad("P31 stray byte after an extension", p4(tlv(0x04, "x"), []byte{0}), ReasonMalformed),
		bad("P31 empty AWS", p4(tlv(typeAWS, "")), ReasonMalformed),
		bad("P31 empty Azure", p4(tlv(typeAzure, "")), ReasonMalformed),
		bad("P31 authority twice", p4(tlv(typeAuthority, "a"), tlv(typeAuthority, "b")), ReasonMalformed),
		ok("P32 right checksum", string(withCRC([]byte(p4(tlv(typeAuthority, "a"))), 0)), extended(func(p *Peer) { p.Authority = "a" })),
		ok("P32 right checksum, not last", string(crcFirst()), extended(func(p *Peer) { p.Authority = "b" })),
		bad("P32 wrong checksum", string(withCRC([]byte(p4()), 1)), ReasonChecksum),
		bad("P32 wrong checksum, high bit", string(withCRC([]byte(p4()), 1<<31)), ReasonChecksum),
		bad("P32 checksum of 3 bytes", p4(tlv(typeCRC32C, "abc")), ReasonMalformed),
		bad("P32 two checksums", string(withCRC([]byte(p4(tlv(typeCRC32C, "abcd"))), 0)), ReasonMalformed),
		ok("P33 authority not UTF-8", p4(tlv(typeAuthority, "a\xff")), peer4),
		ok("P33 authority with NUL", p4(tlv(typeAuthority, "a\x00b")), peer4),
		ok("P33 authority with C1 control", p4(tlv(typeAuthority, "a\u0085b")), peer4),
		ok("P33 authority of 255", p4(tlv(typeAuthority, long[:255])), extended(func(p *Peer) { p.Authority = long[:255] })),
		ok("P33 authority of 256", p4(tlv(typeAuthority, long[:256])), peer4),
		ok("P33 unique id of 128", p4(tlv(typeUniqueID, long[:128])), extended(func(p *Peer) { p.UniqueID = []byte(long[:128]) })),
		ok("P33 unique id of 129", p4(tlv(typeUniqueID, long[:129])), peer4),
		bad("P38 header ends inside", p4()[:20], ReasonTruncated),
		bad("P38 v1 ends inside", "PROXY TCP4 203.0", ReasonTruncated),
		bad("P39 signature cut", "\r\n\r\n\x00\r\nQUI\x00", ReasonMalformed),
		bad("P39 signature cut early", "\r\nGET / HTTP/1.1", ReasonMalformed),
		bad("P39 PROXYjunk", "PROXYjunk TCP4 203.0.113.7 198.51.100.9 55555 6543\r\n", ReasonMalformed),
		ok("P20 v1 mapped", v1("TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 1 2"), from("10.0.0.1:1", "10.0.0.2:2")),
		ok("P20 v2 mapped", string(v2(0x21, tcp6, slices36("::ffff:10.0.0.1", "::ffff:10.0.0.2", 1, 2))), from("10.0.0.1:1", "10.0.0.2:2")),
	}
	list = append(list, ok("P30 longest", p4(tlv(0x04, strings.Repeat("n", MaxV2Length-12-3))), peer4))
	for _, fields := range []string{
		"TCP4  203.0.113.7 198.51.100.9 55555 6543", "TCP4\t203.0.113.7 198.51.100.9 55555 6543", " TCP4 203.0.113.7 198.51.100.9 55555 6543",
		"TCP4 203.0.113.7 198.51.100.9 55555 6543 ", "TCP4 203.0.113.7 198.51.100.9 55555 6543 7", "TCP4 203.0.113.7 198.51.100.9 55555",
		"TCP4", "TCP5 203.0.113.7 198.51.100.9 55555 6543", "UDP4 203.0.113.7 198.51.100.9 55555 6543",
	} {
		list = append(list, bad("P16 "+fields, v1(fields), ReasonMalformed))
	}
	for _, a := range []string{"010.2.3.4", "1.2.3", "0x7f.1", "1.2.3.4.5", "256.1.1.1", "1", "", "1.2.3.4:5", "::1", "::ffff:1.2.3.4"} {
		list = append(list, bad("P17 "+a, v1("TCP4 "+a+" 198.51.100.9 55555 6543"), ReasonMalformed),
			bad("P17 destination "+a, v1("TCP4 198.51.100.9 "+a+" 55555 6543"), ReasonMalformed))
	}
	for _, port := range []string{"65536", "+1", "-1", "01", "00", "", "0x1", "1e3", "99999999999999999999", "1_0"} {
		list = append(list, bad("P18 "+port, v1("TCP4 203.0.113.7 198.51.100.9 "+port+" 6543"), ReasonMalformed),
			bad("P18 destination "+port, v1("TCP4 203.0.113.7 198.51.100.9 55555 "+port), ReasonMalformed))
	}
	for _, a := range []string{"1.2.3.4", "fe80::1%eth0", "1:2:3:4:5:6:7", "[::1]", ":::1", "12345::", "g::"} {
		list = append(list, bad("P19 P21 "+a, v1("TCP6 "+a+" 2001:db8::9 55555 6543"), ReasonMalformed))
	}
	for command := range 256 {
		if command != 0x20 && command != 0x21 {
			list = append(list, bad(fmt.Sprintf("P23 P24 command %#02x", command), string(v2(byte(command), tcp4, v4block)), ReasonMalformed))
		}
	}
	for family := range 256 {
		if !slices.Contains([]int{unspec, tcp4, udp4, tcp6, udp6, unixStream, unixDatagram}, family) {
			for _, command := range []byte{0x20, 0x21} {
				list = append(list, bad(fmt.Sprintf("P25 family %#02x", family), string(v2(command, byte(family), v6block)), ReasonMalformed))
			}
		}
	}
	for _, a := range []string{"127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.1.2.3"} {
		list = append(list, ok("P34 "+a, v1("TCP4 "+a+" 198.51.100.9 1 2"), from(a+":1", "198.51.100.9:2")))
	}
	for _, a := range []string{"::1", "::", "fdaa::1", "ff02::1"} {
		list = append(list, ok("P34 P35 "+a, v1("TCP6 "+a+" 2001:db8::9 1 2"), from("["+a+"]:1", "[2001:db8::9]:2")))
	}
	return list
}

// crcFirst has its checksum in front of another extension.
func crcFirst() []byte {
	return crcOver(v2(0x21, tcp4, v4block, tlv(typeCRC32C, "\x00\x00\x00\x00"), tlv(typeAuthority, "b")), v2Fixed+len(v4block)+tlvHead)
}

func TestRead(t *testing.T) {
	const next = "\x00\x00\x00\x08\x04\xd2\x16\x2f and more"
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			stream := c.header
			if c.reason == ReasonOK { // P04: what follows is the next reader's
				stream += next
			}
			check := func(how string, r io.Reader, size int) {
				t.Helper()
				peer, reason, rest := readAll(t, r, size)
				if reason != c.reason {
					t.Fatalf("%s: reason %q, want %q", how, reason, c.reason)
				}
				if diff := cmp.Diff(c.peer, peer, addrPortsByValue); diff != "" {
					t.Errorf("%s: peer (-want +got)\n%s", how, diff)
				}
				if reason == ReasonOK && rest != next {
					t.Errorf("%s: %q is left, want %q", how, rest, next)
				}
			}
			check("in one piece", strings.NewReader(stream), 8192)
			check("in one piece, small buffer", strings.NewReader(stream), 16)
			check("byte by byte", iotest.OneByteReader(strings.NewReader(stream)), 8192) // P36
			if len(c.header) < 600 {
				for at := range len(c.header) { // P03
					check(fmt.Sprintf("split at %d", at), io.MultiReader(strings.NewReader(stream[:at]), strings.NewReader(stream[at:])), 4112)
				}
			}
		})
	}
}

// Every good header that the peer cuts short is truncated, never a Peer.
func TestReadTruncated(t *testing.T) {
	for _, c := range cases() {
		if c.reason != ReasonOK || len(c.header) > 600 {
			continue
		}
		for n := range len(c.header) {
			want := ReasonTruncated
			if n == 0 {
				want = ReasonEmpty
			}
			if _, reason, _ := readAll(t, strings.NewReader(c.header[:n]), 4112); reason != want {
				t.Fatalf("%s cut after %d bytes: %q, want %q", c.name, n, reason, want)
			}
		}
	}
}

// P09: a second header is left for the next reader, who will not like it.
func TestReadTakesOneHeader(t *testing.T) {
	second := "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"
	peer, reason, rest := readAll(t, bytes.NewReader(append(v2(0x21, tcp4, v4block), second...)), 4112)
	if reason != ReasonOK || peer.Client != peer4.Client || rest != second {
		t.Fatalf("reason %q, client %v, rest %q", reason, peer.Client, rest)
	}
}

// Decisions fall as early as they can: a peer that then waits for us is not waited for.
func TestReadDecidesEarly(t *testing.T) {
	for _, c := range []struct {
		name, sent string
		reason     Reason
	}{
		{"first byte", "\x00", ReasonMissing},
		{"PU", "PU", ReasonMissing},
		{"GET", "G", ReasonMissing},
		{"v1 without space", "PROXYX", ReasonMalformed},
		{"v1 NUL", "PROXY \x00", ReasonMalformed},
		{"v1 LF", "PROXY TCP4\n", ReasonMalformed},
		{"v1 CR", "PROXY TCP4\rx", ReasonMalformed},
		{"v1 too long", "PROXY " + strings.Repeat("x", MaxV1-6), ReasonOversize},
		{"v2 signature", "\r\n\r\r", ReasonMalformed},
		{"v2 version", v2Signature + "\x11", ReasonMalformed},
		{"v2 command", v2Signature + "\x22", ReasonMalformed},
		{"v2 family", v2Signature + "\x21\x13", ReasonMalformed},
		{"v2 length", v2Signature + "\x21\x11\x10\x01", ReasonOversize},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go theirs.Write([]byte(c.sent)) // and then nothing: a reader that wants more runs into its deadline
				_ = ours.SetReadDeadline(time.Now().Add(time.Second))
				if _, reason, _ := readReason(ours); reason != c.reason {
					t.Errorf("reason %q, want %q", reason, c.reason)
				}
				ours.Close()
				theirs.Close()
			})
		})
	}
}

// P03, P36 and P37 over a connection: pieces with pauses are put together, a deadline ends the wait.
func TestReadDeadline(t *testing.T) {
	header := string(v2(0x21, tcp4, v4block))
	for _, c := range []struct {
		name   string
		sent   string
		pause  time.Duration
		reason Reason
	}{
		{"v1 in pieces", "PROXY TCP4 203.0.113.7 198.51.100.9 55555 6543\r\n", time.Millisecond, ReasonOK},
		{"v2 in pieces", header, time.Millisecond, ReasonOK},
		{"v1 trickled", "PROXY TCP4 203.0.113.7 198.51.100.9 55555 6543\r\n", 500 * time.Millisecond, ReasonTimeout},
		{"v2 trickled", header, 500 * time.Millisecond, ReasonTimeout},
		{"silent", "", 0, ReasonTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for _, b := range []byte(c.sent) {
						time.Sleep(c.pause)
						if _, err := theirs.Write([]byte{b}); err != nil {
							return
						}
					}
				}()
				start := time.Now()
				_ = ours.SetReadDeadline(start.Add(5 * time.Second))
				_, reason, _ := readReason(ours)
				if reason != c.reason {
					t.Errorf("reason %q, want %q", reason, c.reason)
				}
				if reason == ReasonTimeout && time.Since(start) != 5*time.Second {
					t.Errorf("took %v", time.Since(start))
				}
				ours.Close()
				theirs.Close()
				<-done
			})
		})
	}
}

func readReason(c net.Conn) (Peer, Reason, byte) {
	peer, err := Read(bufio.NewReader(c), balancer)
	if err == nil {
		return peer, ReasonOK, 0
	}
	e := err.(*Error)
	return peer, e.Reason, e.FirstByte
}

// P38: a reset is a peer that went away, whatever was sent.
func TestReadReset(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	for sent, want := range map[string]Reason{"": ReasonEmpty, "PROXY": ReasonTruncated, v2Signature: ReasonTruncated} {
		r := io.MultiReader(strings.NewReader(sent), iotest.ErrReader(reset))
		_, err := Read(bufio.NewReader(r), balancer)
		var e *Error
		if !errors.As(err, &e) || e.Reason != want || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q then reset: %v, want %q", sent, err, want)
		}
	}
}

func TestHint(t *testing.T) {
	for sent, want := range map[string]string{
		"\x00\x00\x00\x08\x04\xd2\x16\x2f": "PostgreSQL client",
		"\x16\x03\x01":                     "TLS client",
		"POST / HTTP/1.1":                  "HTTP",
		"get /":                            "HTTP",
		"\x80":                             "neither",
	} {
		_, err := Read(bufio.NewReader(strings.NewReader(sent)), balancer)
		var e *Error
		if !errors.As(err, &e) || e.Reason != ReasonMissing || e.FirstByte != sent[0] || !strings.Contains(e.Hint(), want) {
			t.Errorf("%q: %v, hint %q, want %q in it", sent, err, e.Hint(), want)
		}
	}
	if hint := malformed("x").Hint(); hint != "" {
		t.Errorf("a malformed header gives the hint %q", hint)
	}
}
