// Framing: which headers are legal in which direction, and that a cut one waits.

package pgwire

import (
	"encoding/binary"
	"strings"
	"testing"
)

func header(typ byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{typ}, n)
}

func TestClientFrame(t *testing.T) {
	for _, tc := range []struct {
		id   string
		in   []byte
		size int
		want FrameStatus
	}{
		{"nothing", nil, 0, FrameShort},
		{"Q01 unknown type", header('~', 4), 0, FrameBadType},
		{"Q01 unknown type, one byte", []byte{'~'}, 0, FrameBadType},
		{"Q02 type 0", []byte{0}, 0, FrameBadType},
		{"Q03 length 3", header(Query, 3), 0, FrameBadLength},
		{"Q04 length 0", header(Query, 0), 0, FrameBadLength},
		{"Q05 length -1", header(Query, 0xffffffff), 0, FrameBadLength},
		{"Q06 length 0x7fffffff", header(Query, 0x7fffffff), 0, FrameBadLength},
		{"the longest Query", header(Query, MaxMessage), MaxMessage + 1, FrameOK},
		{"one more", header(Query, MaxMessage+1), 0, FrameBadLength},
		{"Q08 Sync of 100 kB", header(Sync, 100_000), 0, FrameBadLength},
		{"the longest Sync", header(Sync, MaxSmallMessage), MaxSmallMessage + 1, FrameOK},
		{"one more", header(Sync, MaxSmallMessage+1), 0, FrameBadLength},
		{"Q12 shortest Query", header(Query, 5), 6, FrameOK},
		{"Sync", header(Sync, 4), 5, FrameOK},
		{"Q27 password", header(Password, 10), 0, FrameBadType},
		{"Q28 a startup packet", packet(0, Version30, kv("user", "app")), 0, FrameBadType},
		{"Q29 SSLRequest", packet(0, CodeSSL, ""), 0, FrameBadType},
		{"Q38 a server's RowDescription", header(RowDescription, 6), 0, FrameBadType},
		{"Q39 a server's ReadyForQuery", header(ReadyForQuery, 5), 0, FrameBadType},
		{"a body behind it is not looked at", append(header(Query, 9), "abcd\x00S"...), 10, FrameOK},
		{"four bytes of a header", header(Query, 9)[:4], 0, FrameShort},
	} {
		if size, got := ClientFrame(tc.in); size != tc.size || got != tc.want {
			t.Errorf("%s: %d %d, want %d %d", tc.id, size, got, tc.size, tc.want)
		}
	}
}

func TestServerFrame(t *testing.T) {
	for _, tc := range []struct {
		id   string
		in   []byte
		size int
		want FrameStatus
	}{
		{"nothing", nil, 0, FrameShort},
		{"F06 length 0", header(DataRow, 0), 0, FrameBadLength},
		{"F07 length -1", header(DataRow, 0xffffffff), 0, FrameBadLength},
		{"length 3", header(DataRow, 3), 0, FrameBadLength},
		{"F09 one gigabyte", header(DataRow, MaxMessage), MaxMessage + 1, FrameOK},
		{"more", header(DataRow, 1<<30), 0, FrameBadLength},
		{"F15 unknown type", []byte{'~'}, 0, FrameBadType},
		{"type 0", []byte{0}, 0, FrameBadType},
		{"F17 Authentication after login", header(Authentication, 8), 0, FrameBadType},
		{"BackendKeyData after login", header(BackendKeyData, 12), 0, FrameBadType},
		{"NegotiateProtocolVersion after login", header(NegotiateVersion, 12), 0, FrameBadType},
		{"F23 ReadyForQuery with an empty body", header(ReadyForQuery, 4), 5, FrameOK}, // its body is the caller's affair
		{"ParseComplete", header(ParseComplete, 4), 5, FrameOK},
		{"four bytes", header(DataRow, 9)[:4], 0, FrameShort},
	} {
		if size, got := ServerFrame(tc.in); size != tc.size || got != tc.want {
			t.Errorf("%s: %d %d, want %d %d", tc.id, size, got, tc.size, tc.want)
		}
	}
}

// The protocol's message lists, written down once more.
func TestKnownTypes(t *testing.T) {
	const client, server = "BCcdDEfFHPQSX", "123ACDEGHINSTVWZcdnst"
	for c := range 256 {
		b := header(byte(c), 4)
		if _, got := ClientFrame(b); (got == FrameOK) != strings.ContainsRune(client, rune(c)) {
			t.Errorf("client %q: %d", rune(c), got)
		}
		if _, got := ServerFrame(b); (got == FrameOK) != strings.ContainsRune(server, rune(c)) {
			t.Errorf("server %q: %d", rune(c), got)
		}
	}
}

func TestAppendHeader(t *testing.T) {
	b := AppendHeader([]byte("x"), Query, 3)
	if string(b) != "xQ\x00\x00\x00\x07" {
		t.Errorf("%q", b)
	}
}

func TestCString(t *testing.T) {
	for _, tc := range []struct {
		in, s, rest string
		ok          bool
	}{{"", "", "", false}, {"abc", "", "", false}, {"\x00", "", "", true}, {"abc\x00", "abc", "", true}, {"a\x00b\x00", "a", "b\x00", true}} {
		s, rest, ok := CString([]byte(tc.in))
		if string(s) != tc.s || string(rest) != tc.rest || ok != tc.ok {
			t.Errorf("%q: %q %q %v", tc.in, s, rest, ok)
		}
	}
}

func TestFramesAllocateNothing(t *testing.T) {
	b := header(Query, MaxMessage)
	if n := testing.AllocsPerRun(100, func() { _, _ = ClientFrame(b); _, _ = ServerFrame(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkServerFrame(b *testing.B) {
	buf := AppendHeader(nil, DataRow, 100)
	for b.Loop() {
		if _, s := ServerFrame(buf); s != FrameOK {
			b.Fatal(s)
		}
	}
}
