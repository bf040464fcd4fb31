// Tests of allowlists and of the spelling of networks.

package netrestrict

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParsePrefix(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{in: "203.0.113.0/24", want: "203.0.113.0/24"},
		{in: "2001:db8::/32", want: "2001:db8::/32"},
		{in: "2001:DB8:0::/32", want: "2001:db8::/32"},
		{in: "203.0.113.7", want: "203.0.113.7/32"},
		{in: "2001:db8::7", want: "2001:db8::7/128"},
		{in: "0.0.0.0/0", want: "0.0.0.0/0"},
		{in: "::/0", want: "::/0"},
		{in: "203.0.113.7/32", want: "203.0.113.7/32"},
		{in: "203.0.113.7/24", err: "write 203.0.113.0/24"},
		{in: "2001:db8::7/32", err: "write 2001:db8::/32"},
		{in: "::ffff:203.0.113.7", err: "write 203.0.113.7/32"},
		{in: "::ffff:203.0.113.0/120", err: "write 203.0.113.0/24"},
		{in: "::ffff:203.0.113.7/120", err: "write 203.0.113.0/24"},
		{in: "::ffff:0:0/96", err: "write 0.0.0.0/0"},
		{in: "::ffff:0:0/90", err: "write ::ffc0:0:0/90"},
		{in: "fe80::1%eth0", err: "zone"},
		{in: "fe80::%eth0/64", err: "zone"},
		{in: "", err: "neither"},
		{in: " 203.0.113.7", err: "neither"},
		{in: "203.0.113.0/33", err: "neither"},
		{in: "203.0.113.0/024", err: "neither"},
		{in: "203.0.113/24", err: "neither"},
		{in: "203.0.113.07", err: "neither"},
		{in: "example.com", err: "neither"},
		{in: "203.0.113.0/24/24", err: "neither"},
	} {
		got, err := ParsePrefix(c.in)
		if c.err == "" {
			if err != nil || got.String() != c.want {
				t.Errorf("ParsePrefix(%q) = %v, %v; want %s", c.in, got, err, c.want)
			}
			continue
		}
		var pe *PrefixError
		if !errors.As(err, &pe) || pe.Entry != c.in || !strings.Contains(err.Error(), c.err) {
			t.Errorf("ParsePrefix(%q) error = %v; want one that contains %q", c.in, err, c.err)
		}
	}
}

func mustCompile(t *testing.T, entries ...string) *AllowList {
	t.Helper()
	var ps []netip.Prefix
	for _, e := range entries {
		p, err := ParsePrefix(e)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	a, err := Compile(ps)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// allows asks for an address alone.
func allows(a *AllowList, addr netip.Addr) bool { return a.Decide(start, Who{Address: addr}).Allowed }

func TestAllows(t *testing.T) {
	v4 := []string{"203.0.113.0/24"}
	for _, c := range []struct {
		entries []string
		addr    string
		want    bool
	}{
		{v4, "203.0.113.7", true},
		{v4, "203.0.114.7", false},
		{v4, "::ffff:203.0.113.7", true},
		{v4, "::203.0.113.7", false},    // not the mapped form
		{v4, "2001:db8::7", false},      // a family without an entry
		{v4, "127.0.0.1", false},        // no range is special
		{[]string{"::/0"}, "::7", true}, //
		{[]string{"::/0"}, "1.2.3.4", false},
		{[]string{"::/0"}, "::ffff:1.2.3.4", false}, // a mapped address is IPv4
		{[]string{"0.0.0.0/0"}, "::ffff:1.2.3.4", true},
		{[]string{"fe80::/10"}, "fe80::1%eth0", true},
		{[]string{"10.0.0.0/8", "10.1.2.3"}, "10.1.2.3", true},
		{nil, "10.0.0.1", false},
		{nil, "::1", false},
	} {
		if got := allows(mustCompile(t, c.entries...), netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%v allows %s: %v", c.entries, c.addr, got)
		}
	}
	var absent *AllowList
	if !allows(absent, netip.MustParseAddr("10.0.0.1")) || !allows(absent, netip.Addr{}) {
		t.Error("the absent list denies somebody")
	}
	if allows(mustCompile(t, "0.0.0.0/0", "::/0"), netip.Addr{}) {
		t.Error("the invalid address is allowed")
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, c := range []struct {
		prefix netip.Prefix
		want   string
	}{
		{netip.Prefix{}, "not a valid network"},
		{netip.MustParsePrefix("10.1.2.3/8"), `"10.1.2.3/8" has bits set behind its prefix length: write 10.0.0.0/8`},
		{netip.MustParsePrefix("::ffff:10.0.0.0/104"), `"::ffff:10.0.0.0/104" is an IPv4 network written as IPv6: write 10.0.0.0/8`},
	} {
		a, err := Compile([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), c.prefix})
		if a != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Compile(%v) = %v, %v; want an error with %q", c.prefix, a, err, c.want)
		}
	}
}

func TestEqualAndPrefixes(t *testing.T) {
	a := mustCompile(t, "10.0.0.0/8", "2001:db8::/32", "10.0.0.0/8", "10.0.0.0/16")
	b := mustCompile(t, "2001:db8::/32", "10.0.0.0/16", "10.0.0.0/8")
	c := mustCompile(t, "10.0.0.0/8")
	empty, absent := mustCompile(t), (*AllowList)(nil)
	if !a.Equal(b) || a.Equal(c) || !empty.Equal(mustCompile(t)) || !absent.Equal(nil) {
		t.Error("Equal is wrong about entries")
	}
	if empty.Equal(absent) || absent.Equal(empty) {
		t.Error("the absent list equals the empty one")
	}
	var got []string
	for _, p := range a.Prefixes() {
		got = append(got, p.String())
	}
	if d := cmp.Diff([]string{"10.0.0.0/8", "10.0.0.0/16", "2001:db8::/32"}, got); d != "" {
		t.Error(d)
	}
	a.Prefixes()[0] = netip.Prefix{}
	if !a.Equal(b) {
		t.Error("a caller's change of Prefixes reached the list")
	}
	if absent.Prefixes() != nil || empty.Prefixes() == nil {
		t.Error("Prefixes does not tell the absent list from the empty one")
	}
}

// genAddr makes addresses that meet genPrefix's often: few bytes vary.
func genAddr(t *rapid.T) netip.Addr {
	b := func(name string) byte { return rapid.SampledFrom([]byte{0, 1, 127, 128, 255}).Draw(t, name) }
	v4 := netip.AddrFrom4([4]byte{b("a"), b("b"), b("c"), b("d")})
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return v4
	case 1:
		return netip.AddrFrom16(v4.As16()) // mapped
	case 2:
		return netip.AddrFrom16([16]byte{0x20, 1, b("e"), b("f"), 15: b("g")})
	default:
		return netip.AddrFrom16([16]byte{10: b("h"), 11: b("i"), 12: b("j"), 15: b("k")}) // near the mapped range
	}
}

func genPrefix(t *rapid.T) netip.Prefix {
	addr := genAddr(t).Unmap()
	bits := rapid.OneOf(rapid.IntRange(0, addr.BitLen()), rapid.SampledFrom([]int{0, addr.BitLen()})).Draw(t, "bits")
	return netip.PrefixFrom(addr, bits).Masked()
}

func TestAllowsLikeALoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefixes := rapid.SliceOfN(rapid.Custom(genPrefix), 0, 12).Draw(t, "prefixes")
		a, err := Compile(prefixes)
		if err != nil {
			t.Fatal(err) // no masked prefix of an unmapped address is refused
		}
		for _, addr := range rapid.SliceOfN(rapid.Custom(genAddr), 1, 20).Draw(t, "addrs") {
			want := false
			for _, p := range prefixes {
				want = want || bitwise(p, addr.Unmap())
			}
			if got := allows(a, addr); got != want {
				t.Fatalf("allows %v: %v, want %v", addr, got, want)
			}
		}
		if again, err := Compile(a.Prefixes()); err != nil || !again.Equal(a) {
			t.Fatalf("compiling Prefixes again gives another list (%v)", err)
		}
	})
}

// bitwise compares bit by bit, as a second opinion that shares no code with bart or netip.
func bitwise(p netip.Prefix, addr netip.Addr) bool {
	x, y := p.Addr().AsSlice(), addr.AsSlice()
	if len(x) != len(y) {
		return false
	}
	for i := range p.Bits() {
		if (x[i/8]^y[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"203.0.113.0/24", "2001:db8::/32", "::ffff:1.2.3.4", "::ffff:0:0/96", "fe80::1%eth0", "1.2.3.4/24", "", "/", "0/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrefix(s)
		var pe *PrefixError
		switch {
		case err == nil:
			if again, err := ParsePrefix(p.String()); err != nil || again != p {
				t.Fatalf("%q reads as %v, which reads as %v, %v", s, p, again, err)
			}
			a, err := Compile([]netip.Prefix{p})
			if err != nil || !allows(a, p.Addr()) {
				t.Fatalf("%v does not allow its own address (%v)", p, err)
			}
		case !errors.As(err, &pe):
			t.Fatalf("%q: error of type %T", s, err)
		case pe.Canonical != "":
			if _, err := ParsePrefix(pe.Canonical); err != nil {
				t.Fatalf("%q: the suggested spelling is refused: %v", s, err)
			}
		}
	})
}
