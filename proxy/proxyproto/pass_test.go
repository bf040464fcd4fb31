// Headers between Posterns: what is said is read, and nothing else is.

package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPassedIsWhatWasSaid(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		addr, _ := netip.AddrFromSlice(append(rapid.SliceOfN(rapid.Byte(), size-1, size-1).Draw(t, "address"), 7))
		return unmap(netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, "port")))
	})
	name := rapid.StringOfN(rapid.RuneFrom([]rune("aü -.")), 1, 100, 255)
	rapid.Check(t, func(t *rapid.T) {
		want := Peer{Socket: balancer, Client: address.Draw(t, "client"), Destination: address.Draw(t, "destination")}
		if rapid.Bool().Draw(t, "direct") {
			want.Destination = netip.AddrPort{}
		}
		if rapid.Bool().Draw(t, "more") {
			want.Authority, want.UniqueID, want.AWSEndpoint = name.Draw(t, "authority"), rapid.SliceOfN(rapid.Byte(), 1, maxUniqueID).Draw(t, "unique"), "vpce-1"
			want.AzureLink, want.AzureLinkSet = rapid.Uint32().Draw(t, "azure"), true
			want.GCPEndpoint, want.GCPEndpointSet = rapid.Uint64().Draw(t, "gcp"), true
		}
		listener := name.Draw(t, "listener")
		header, err := Header(want, listener)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(header), strings.NewReader("rest")), 16)
		got, at, err := ReadPassed(br, balancer)
		if err != nil || at != listener {
			t.Fatalf("at %q, %v", at, err)
		}
		if d := cmp.Diff(want, got, addrPortsByValue); d != "" {
			t.Fatal(d)
		}
		if rest, _ := io.ReadAll(br); string(rest) != "rest" {
			t.Fatalf("%q is left", rest)
		}
	})
}

func TestPassedZones(t *testing.T) {
	header, err := Header(Peer{Client: netip.MustParseAddrPort("[fe80::1%eth0]:5")}, "l")
	if err != nil {
		t.Fatal(err)
	}
	if p, _, err := ReadPassed(bufio.NewReader(bytes.NewReader(header)), balancer); err != nil || p.Client != netip.MustParseAddrPort("[fe80::1]:5") || p.Destination.IsValid() {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := Header(peer4, strings.Repeat("x", maxListener+1)); err == nil {
		t.Error("the name is too long")
	}
}

// TestPassedIsStrict: a node that says something else than Header is not believed, be it a header for anybody else.
func TestPassedIsStrict(t *testing.T) {
	listener := string(tlv(typeListener, "l"))
	for name, c := range map[string]struct {
		header string
		reason Reason
	}{
		"no name":               {string(v2(0x21, tcp4, v4block)), ReasonMalformed},
		"an empty name":         {string(v2(0x21, tcp4, v4block, tlv(typeListener, ""))), ReasonMalformed},
		"two names":             {string(v2(0x21, tcp4, v4block, tlv(typeListener, "l"), tlv(typeListener, "m"))), ReasonMalformed},
		"a long name":           {string(v2(0x21, tcp4, v4block, tlv(typeListener, strings.Repeat("x", maxListener+1)))), ReasonMalformed},
		"a long header":         {string(v2(0x21, tcp4, v4block, tlv(typeListener, "l"), tlv(0xf1, strings.Repeat("x", MaxV2Length)))), ReasonOversize},
		"version 1":             {"PROXY TCP4 203.0.113.7 198.51.100.9 55555 6543\r\n", ReasonMissing},
		"a startup message":     {"\x00\x00\x00\x08\x04\xd2\x16\x2f", ReasonMissing},
		"garbage behind v2's":   {"\r\n\r\nQUIT", ReasonMalformed},
		"nobody":                {string(v2(0x20, tcp4, v4block, []byte(listener))), ReasonLocal},
		"no family":             {string(v2(0x21, 0, v4block, []byte(listener))), ReasonLocal},
		"UDP":                   {string(v2(0x21, 0x12, v4block, []byte(listener))), ReasonUnsupported},
		"addresses too short":   {string(v2(0x21, tcp6, v4block)), ReasonMalformed},
		"an end in the middle":  {string(v2(0x21, tcp4, v4block, tlv(typeListener, "l")))[:30], ReasonTruncated},
		"a name beyond the end": {string(v2(0x21, tcp4, v4block, []byte{typeListener, 0xff, 0xff, 'l'})), ReasonMalformed},
		"nothing":               {"", ReasonEmpty},
	} {
		p, _, err := ReadPassed(bufio.NewReader(strings.NewReader(c.header)), balancer)
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.reason || p.Client.IsValid() {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
