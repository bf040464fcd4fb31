// Properties: what the library writes is read back, and what is accepted here the library accepts too.

package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	pires "github.com/pires/go-proxyproto"
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
