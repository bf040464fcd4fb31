// The P rows: PROXY headers.

package hostile

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// The two ends of a row with a header that names nobody: refused, or a health check. Both say nothing.

func bad(id, name string, reason string, pieces ...[]byte) row {
	return row{id: id, name: name, on: behindProxy, play: silent(pieces...), moves: []string{header(reason), refusal("proxy_header")}}
}

func healthCheck(id, name string, pieces ...[]byte) row {
	return row{id: id, name: name, on: behindProxy, play: silent(pieces...), moves: []string{header("local")}}
}

// good is a header that counts, after which acme asks for the password; the client leaves then.
func good(id, name string, pieces ...[]byte) row {
	return row{id: id, name: name, on: behindProxy, play: asked(append(pieces, appStartup())...),
		moves: []string{header("ok"), login("acme", "aborted")}}
}

// denied is a header whose client a tenant does not let in: nothing else is known about it, and there are no favours.
func denied(id, tenant, client string) row {
	a := netip.MustParseAddr(client)
	return row{id: id, name: tenant + " " + client, on: behindProxy, moves: []string{header("ok"), refusal("address")},
		play: func(p *peer) {
			p.t.Helper()
			p.send(v2From(netip.AddrPortFrom(a, 40000)), startup(v30, "user", "app."+tenant))
			if e, want := p.fatal("28000"), fmt.Sprintf("address %s is not allowed to connect to %q", a.Unmap(), tenant); e['M'] != want {
				p.t.Errorf("message %q, want %q", e['M'], want)
			}
		}}
}

// line is a bad version 1 header.
func line(id, text string) row {
	return bad(id, fmt.Sprintf("%q", text[:min(len(text), 60)]), "malformed", []byte(text), appStartup())
}

func TestProxyHeader(t *testing.T) {
	t.Parallel()
	client4, client6 := netip.MustParseAddrPort("198.51.100.7:40000"), netip.MustParseAddrPort("[2001:db8::7]:40000")
	every := [][]byte{tlv(tlvALPN, []byte("postgresql")), tlv(tlvAuthority, []byte("db.example.com")), tlv(tlvUniqueID, []byte("0123456789abcdef")),
		tlv(tlvNoop, make([]byte, 3)), tlv(tlvSSL, []byte{1, 0, 0, 0, 0}), tlv(tlvAWS, []byte("\x01vpce-08d2bf15fac5001c9")),
		tlv(tlvAzure, []byte{1, 1, 2, 3, 4}), tlv(tlvGCP, make([]byte, 8)), tlv(0xEF, []byte("vendor"))}

	wrongCRC := harness.V2(client4, somewhere(client4))
	wrongCRC[len(wrongCRC)-1]++

	rows := []row{
		good("P01", "v1 TCP4", harness.V1(client4, somewhere(client4))),
		good("P01", "v1 TCP6", harness.V1(client6, somewhere(client6))),
		good("P02", "v2 TCP4", v2From(client4)),
		good("P02", "v2 TCP6", v2From(client6)),
		good("P02", "v2 with every extension", v2From(client4, every...)),
		good("P02", "v2 with CRC32C", harness.V2(client6, somewhere(client6), harness.TLV{Type: tlvNoop, Value: make([]byte, 3)})),

		bad("P05", "v2 that swallows a byte of the startup", "malformed",
			v2Claimed(v2Proxy, v2TCP4, 13, join(v2Addrs(client4), appStartup()))),
		bad("P05", "v2 that ends a byte early", "malformed", v2Claimed(v2Proxy, v2TCP4, 11, join(v2Addrs(client4), appStartup()))),
		bad("P06", "SSLRequest without a header", "missing", sslRequest),
		bad("P06", "startup without a header", "missing", appStartup()),
		bad("P06", "TLS without a header", "missing", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")),
		bad("P06", "HTTP GET", "missing", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
		bad("P06", "HTTP POST, which begins like PROXY", "missing", []byte("POST / HTTP/1.1\r\nHost: x\r\n\r\n")),
		{id: "P07", name: "v1 where none is taken", on: plain, play: silent(harness.V1(client4, somewhere(client4)), appStartup()), moves: []string{refusal("startup")}},
		{id: "P07", name: "v2 where none is taken", on: plain, play: silent(v2From(client4), appStartup()), moves: []string{refusal("startup")}},
		{id: "P08", name: "v2 from a stranger", on: wary, play: silent(v2From(client4), appStartup()), moves: []string{header("untrusted"), refusal("proxy_header")}},
		{id: "P08", name: "a stranger who says nothing", on: wary, play: silent(), moves: []string{header("untrusted"), refusal("proxy_header")}},
		{id: "P09", name: "v2 after v2", on: behindProxy, play: silent(v2From(client4), v2From(client6), appStartup()), moves: []string{header("ok"), refusal("startup")}},
		{id: "P09", name: "v1 after v2", on: behindProxy, play: silent(v2From(client4), harness.V1(client6, somewhere(client6)), appStartup()), moves: []string{header("ok"), refusal("startup")}},
		{id: "P09", name: "v1 after v1 in one segment", on: behindProxy, play: silent(join(harness.V1(client4, somewhere(client4)), harness.V1(client6, somewhere(client6)), appStartup())), moves: []string{header("ok"), refusal("startup")}},

		healthCheck("P10", "v2 LOCAL", v2(v2Local, v2Unspec)),
		healthCheck("P10", "v2 LOCAL and a startup", v2(v2Local, v2Unspec), appStartup()),
		healthCheck("P11", "v2 LOCAL with addresses", v2(v2Local, v2TCP4, v2Addrs(netip.MustParseAddrPort("10.0.0.1:1"))), startup(v30, "user", "app.walled")),
		healthCheck("P12", "v1 UNKNOWN", []byte("PROXY UNKNOWN\r\n"), appStartup()),
		healthCheck("P13", "v1 UNKNOWN and addresses", []byte("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), appStartup()),
		healthCheck("P13", "v1 UNKNOWN and junk up to 107 bytes", []byte("PROXY UNKNOWN "+strings.Repeat("x", 91)+"\r\n"), appStartup()),
		bad("P14", "v1 without an end", "oversize", []byte("PROXY TCP4 "+strings.Repeat("1", 200))),
		bad("P14", "v1 UNKNOWN of 108 bytes", "oversize", []byte("PROXY UNKNOWN "+strings.Repeat("x", 92)+"\r\n")),
		line("P15", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"),
		line("P15", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r"),
		{id: "P15", name: "v1 and a second CRLF, which is no startup", on: behindProxy, play: silent([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n"), appStartup()),
			moves: []string{header("ok"), refusal("startup")}},
		line("P16", "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
		line("P16", "PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n"),
		line("P16", "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n"),
		line("P16", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"),
		line("P16", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"),
		bad("P16", "lower case signature", "missing", []byte("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n")),
		line("P17", "PROXY TCP4 010.2.3.4 5.6.7.8 1 2\r\n"),
		line("P17", "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"),
		line("P17", "PROXY TCP4 0x7f.1 5.6.7.8 1 2\r\n"),
		line("P17", "PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n"),
		line("P17", "PROXY TCP4 256.1.1.1 5.6.7.8 1 2\r\n"),
		line("P18", "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"),
		line("P18", "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"),
		line("P18", "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n"),
		line("P18", "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"),
		line("P18", "PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n"),
		line("P19", "PROXY TCP4 ::1 ::1 1 2\r\n"),
		line("P19", "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"),
		line("P21", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
		line("P22", "PROXY TCP4 1.2.3.4\x00 5.6.7.8 1 2\r\n"),
		line("P22", "PROXY TCP4 1.2.3.4 5.6.7.8\xff 1 2\r\n"),
		bad("P29", "v2 TCP4 of 8 bytes", "malformed", v2(v2Proxy, v2TCP4, make([]byte, 8)), appStartup()),
		bad("P30", "v2 that declares 65535 bytes", "oversize", v2Claimed(v2Proxy, v2TCP4, 65535, make([]byte, 100))),
		bad("P31", "v2 with an extension beyond its end", "malformed", v2(v2Proxy, v2TCP4, v2Addrs(client4), []byte{tlvNoop, 0, 9, 1})),
		bad("P31", "v2 with one stray byte", "malformed", v2(v2Proxy, v2TCP4, v2Addrs(client4), []byte{tlvNoop})),
		bad("P31", "v2 with two stray bytes", "malformed", v2(v2Proxy, v2TCP4, v2Addrs(client4), []byte{tlvNoop, 0})),
		bad("P32", "v2 with a wrong CRC32C", "checksum", wrongCRC, appStartup()),
		bad("P39", "v2 signature, then something else", "malformed", []byte(v2Signature+"GET / HTTP/1.1\r\n")),
		bad("P39", "v2 signature cut off by something else", "malformed", []byte(v2Signature[:8]+"GET / HTTP/1.1\r\n")),
		line("P39", "PROXYjunk TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),

		{id: "P38", name: "header, then FIN", on: behindProxy, moves: []string{header("ok")}, play: func(p *peer) {
			p.send(v2From(client4))
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			p.fin()
		}},
		{id: "P38", name: "header, then RST", on: behindProxy, moves: []string{header("ok")}, play: func(p *peer) {
			p.send(v2From(client4))
			_ = p.Conn.(*net.TCPConn).SetLinger(0)
		}},
		{id: "P38", name: "half a header, then FIN", on: behindProxy, moves: []string{header("truncated"), refusal("proxy_header")}, play: func(p *peer) {
			p.send(v2From(client4)[:20])
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			p.fin()
		}},
		{id: "P38", name: "nothing, then FIN", on: behindProxy, moves: []string{header("empty")}, play: func(p *peer) {
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			p.fin()
		}},
	}
	for _, kind := range []byte{tlvAWS, tlvAzure} { // they begin with a subtype
		rows = append(rows, bad("P31", fmt.Sprintf("v2 with an empty extension %#x", kind), "malformed", v2From(client4, tlv(kind, nil))))
	}
	// An extension that makes no sense is no reason to turn its client away, if it is well-formed: it is left out.
	for _, kind := range []byte{tlvGCP, tlvAuthority, tlvUniqueID} {
		rows = append(rows, good("P31", fmt.Sprintf("v2 with an empty extension %#x", kind), v2From(client4, tlv(kind, nil))))
	}
	for name, value := range map[string][]byte{
		"not UTF-8": []byte("\xff\xfe"), "NUL": []byte("a\x00b"), "line break": []byte("a\n{\"level\":\"ERROR\"}\x1b[31m"),
		"300 bytes": bytes.Repeat([]byte("a"), 300), "2000 bytes": bytes.Repeat([]byte{0x7f}, 2000),
	} {
		rows = append(rows, good("P33", "authority, "+name, v2From(client4, tlv(tlvAuthority, value))),
			good("P33", "unique id, "+name, v2From(client4, tlv(tlvUniqueID, value))))
	}

	// P20: a mapped address is the IPv4 address, for whoever judges it.
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	for name, h := range map[string][]byte{
		"v2": v2(v2Proxy, v2TCP6, v2Addrs(netip.AddrPortFrom(mapped, 40000))),
		"v1": []byte("PROXY TCP6 ::ffff:10.0.0.1 ::1 40000 5432\r\n"),
	} {
		rows = append(rows,
			row{id: "P20", name: name + " mapped, allowed as IPv4", on: behindProxy, moves: []string{header("ok"), login("walled", "aborted")},
				play: asked(h, startup(v30, "user", "app.walled"))},
			row{id: "P20", name: name + " mapped, not IPv6", on: behindProxy, moves: []string{header("ok"), refusal("address")},
				play: refused("28000", h, startup(v30, "user", "app.sixonly"))})
	}
	// P34: no address is special.
	for _, a := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "192.168.1.1", "fdaa::3", "fe80::1", "198.51.100.7"} {
		rows = append(rows, denied("P34", "walled", a))
	}
	rows = append(rows, denied("P34", "sixonly", "127.0.0.1"))

	g := startGate(t, gateOptions{})
	g.guard(t, 0, func() { g.run(t, rows) })
}

// TestProxyHeaderSplit is P03: a header is complete when it is complete, however it comes, and what follows is whole.
func TestProxyHeaderSplit(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddrPort("198.51.100.7:40000")
	g := startGate(t, gateOptions{})
	g.guard(t, 0, func() {
		for name, h := range map[string][]byte{"v1": harness.V1(client, somewhere(client)), "v2": harness.V2(client, somewhere(client), harness.TLV{Type: tlvAuthority, Value: []byte("x")})} {
			t.Run("P03/"+name, func(t *testing.T) {
				for i := 1; i <= len(h); i++ {
					p := g.dial(t, behindProxy)
					p.send(h[:i])
					time.Sleep(time.Millisecond) // lets the segments be two
					p.send(join(h[i:], appStartup()))
					p.auth(10)
					p.Close()
				}
			})
			t.Run("P03/"+name+" byte by byte", func(t *testing.T) {
				p := g.dial(t, behindProxy)
				for _, b := range join(h, appStartup()) {
					p.send([]byte{b})
				}
				p.auth(10)
				p.Close()
			})
		}
	})
}

// TestProxyHeaderEveryByte is P23 to P28: the whole space of the version, command, family and protocol bytes.
func TestProxyHeaderEveryByte(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddrPort("198.51.100.7:40000")
	g := startGate(t, gateOptions{})
	play := func(t *testing.T, command, family byte, want string) {
		t.Helper()
		p := g.dial(t, behindProxy)
		// 216 bytes are what a UNIX socket's addresses take, the longest. Where they are too many, they make one extension.
		body := make([]byte, 216)
		switch family {
		case v2TCP4, v2UDP4:
			body = v2Addrs(client)
		case v2TCP6, v2UDP6:
			body = v2Addrs(netip.MustParseAddrPort("[2001:db8::7]:40000"))
		case v2Unspec:
			body = nil
		}
		p.send(v2(command, family, body), appStartup())
		if want == "ok" {
			p.auth(10)
		} else {
			p.silence()
		}
		p.Close()
	}
	count := func(t *testing.T, f func(moves map[string]int)) {
		t.Helper()
		before := counters(g.Metrics(t))
		moves := make(map[string]int)
		f(moves)
		var want []string
		for result, n := range moves {
			for range n {
				want = append(want, header(result))
				switch result {
				case "ok":
					want = append(want, login("acme", "aborted"))
				case "local":
				default:
					want = append(want, refusal("proxy_header"))
				}
			}
		}
		g.moved(t, before, want...)
	}
	g.guard(t, 0, func() {
		t.Run("P25-P28", func(t *testing.T) {
			count(t, func(moves map[string]int) {
				for family := range 256 {
					want := "malformed"
					switch byte(family) {
					case v2TCP4, v2TCP6:
						want = "ok"
					case v2UDP4, v2UDP6, v2UnixStream, v2UnixDatagram:
						want = "unsupported"
					case v2Unspec:
						want = "local" // P26: a health check, by the contract
					}
					moves[want]++
					play(t, v2Proxy, byte(family), want)
				}
			})
		})
		t.Run("P23-P24", func(t *testing.T) {
			count(t, func(moves map[string]int) {
				for command := range 256 {
					want := "malformed"
					switch byte(command) {
					case v2Proxy:
						want = "ok"
					case v2Local:
						want = "local"
					}
					moves[want]++
					play(t, byte(command), v2TCP4, want)
				}
			})
		})
	})
}
