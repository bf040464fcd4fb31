// Properties: what the library writes is read back, and what is accepted here the library accepts too.

package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"regexp"
	"testing"

	pires "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"pgregory.net/rapid"
)

func TestReadWhatTheLibraryWrites(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
		return netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, "port"))
	})
	rapid.Check(t, func(t *rapid.T) {
		source, destination := address.Draw(t, "source"), address.Draw(t, "destination")
		h := pires.HeaderProxyFromAddrs(rapid.SampledFrom([]byte{1, 2}).Draw(t, "version"), net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(destination))
		kinds := rapid.SliceOfDistinct(rapid.Byte().Filter(func(b byte) bool { return b != typeCRC32C }), rapid.ID[byte]).Draw(t, "extensions")
		var tlvs []pires.TLV
		for _, kind := range kinds[:min(len(kinds), 10)] {
			tlvs = append(tlvs, pires.TLV{Type: pires.PP2Type(kind), Value: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "value")})
		}
		if err := h.SetTLVs(tlvs); err != nil {
			t.Fatal(err)
		}
		var wire bytes.Buffer
		if _, err := h.WriteTo(&wire); err != nil {
			t.Fatal(err)
		}
		rest := rapid.SliceOf(rapid.Byte()).Draw(t, "rest")
		wire.Write(rest)
		br := bufio.NewReaderSize(&wire, rapid.IntRange(16, 5000).Draw(t, "buffer"))
		peer, err := Read(br, balancer)
		if err != nil {
			t.Fatal(err)
		}
		if peer.Client != unmap(source) || peer.Destination != unmap(destination) {
			t.Fatalf("read %v -> %v, wrote %v -> %v", peer.Client, peer.Destination, source, destination)
		}
		if left, _ := io.ReadAll(br); !bytes.Equal(left, rest) {
			t.Fatalf("%d bytes left, want %d", len(left), len(rest))
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, c := range cases() {
		f.Add([]byte(c.header+"next"), uint16(len(c.header)/2))
	}
	f.Fuzz(func(t *testing.T, stream []byte, split uint16) {
		at := min(int(split), len(stream))
		br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:])), 16)
		peer, err := Read(br, balancer)
		left, _ := io.ReadAll(br)
		taken := len(stream) - len(left)
		if taken > v2Fixed+MaxV2Length {
			t.Fatalf("%d bytes taken", taken)
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Err == nil || e.Reason == "" || e.Reason == ReasonOK {
				t.Fatalf("%#v", err)
			}
			if peer.Client.IsValid() {
				t.Fatalf("a peer %v along with %v", peer.Client, err)
			}
			return
		}
		// The library has its own idea of where the header ends and what it says.
		whole := bufio.NewReaderSize(bytes.NewReader(stream), len(stream)+16)
		h, err := pires.Read(whole)
		if err != nil {
			t.Fatalf("accepted, but the library says %v", err)
		}
		if theirs := len(stream) - whole.Buffered(); theirs != taken {
			t.Fatalf("took %d bytes, the library %d", taken, theirs)
		}
		source, destination, ok := h.TCPAddrs()
		if !ok || h.Command.IsLocal() {
			t.Fatal("accepted what names no TCP client")
		}
		if peer.Client != unmap(source.AddrPort()) || peer.Destination != unmap(destination.AddrPort()) {
			t.Fatalf("%v -> %v, the library says %v -> %v", peer.Client, peer.Destination, source, destination)
		}
		if _, err := h.TLVs(); err != nil {
			t.Fatalf("accepted extensions that the library refuses: %v", err)
		}
		if peer.Client.Addr().Is4In6() || peer.Client.Addr().Zone() != "" {
			t.Fatalf("client %v is mapped or zoned", peer.Client)
		}
	})
}

// FuzzExtensions: of private endpoints a header says to us what it says to the library, whatever the bytes.
func FuzzExtensions(f *testing.F) {
	f.Add([]byte("\xea\x00\x17\x01vpce-08d2bf15fac5001c9"))
	f.Add([]byte("\xee\x00\x05\x01\x6f\x12\x03\x00\xe0\x00\x08\x80\x00\x00\x00\x00\x00\x00\x07"))
	f.Add([]byte("\xea\x00\x01\x01\xea\x00\x02\x01x"))
	f.Fuzz(func(t *testing.T, extensions []byte) {
		if len(extensions) > 2*MaxV2Length {
			return
		}
		header := v2(0x21, tcp6, v6block, extensions)
		peer, err := Read(bufio.NewReader(bytes.NewReader(header)), balancer)
		if err != nil {
			return
		}
		h, err := pires.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
		if err != nil {
			t.Fatal(err)
		}
		all, err := h.TLVs()
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := tlvparse.FindAzurePrivateEndpointLinkID(all); id != peer.AzureLink || ok != peer.AzureLinkSet {
			t.Fatalf("azure: %d %v, the library says %d %v", peer.AzureLink, peer.AzureLinkSet, id, ok)
		}
		if id, ok := tlvparse.ExtractPSCConnectionID(all); id != peer.GCPEndpoint || ok != peer.GCPEndpointSet {
			t.Fatalf("gcp: %d %v, the library says %d %v", peer.GCPEndpoint, peer.GCPEndpointSet, id, ok)
		}
		// The library wants letters, digits and hyphens; we keep what is printable, which no rule can name.
		id := tlvparse.FindAWSVPCEndpointID(all)
		plain := regexp.MustCompile("^[A-Za-z0-9-]+$").MatchString(peer.AWSEndpoint)
		if (id != "" && len(id) <= 255 || plain) && id != peer.AWSEndpoint || len(peer.AWSEndpoint) > 255 {
			t.Fatalf("aws: %q, the library says %q", peer.AWSEndpoint, id)
		}
	})
}
