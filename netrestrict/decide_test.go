// Tests of rules and of decisions: what each kind allows, what expires, and which rule is named.

package netrestrict

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func network(s string) Rule { return Rule{Network: netip.MustParsePrefix(s)} }

func (r Rule) until(d time.Duration) Rule {
	r.Expires = start.Add(d)
	return r
}

func (r Rule) with(comment string) Rule {
	r.Comment = comment
	return r
}

var (
	vpce   = Endpoint{AWS, "vpce-08d2bf15fac5001c9"}
	link   = Endpoint{Azure, "201327"}
	psc    = Endpoint{GCP, "9223372036854775808"}
	inside = netip.MustParseAddr("fdaa:0:1::3")
)

func compiled(t testing.TB, rules ...Rule) *AllowList {
	t.Helper()
	a, err := CompileRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDecide(t *testing.T) {
	from := func(s string) Who { return Who{Address: netip.MustParseAddr(s)} }
	through := func(s string, e ...Endpoint) Who { return Who{Address: netip.MustParseAddr(s), Endpoints: e} }
	to := func(s string, f netip.Addr) Who { return Who{Address: netip.MustParseAddr(s), Flycast: f} }
	for _, c := range []struct {
		name  string
		rules []Rule
		who   Who
		want  Verdict
	}{
		{"the narrowest decides", []Rule{network("10.0.0.0/8"), network("10.1.0.0/16")}, from("10.1.2.3"), Verdict{true, 1, ByRule}},
		{"the wider one beside it", []Rule{network("10.0.0.0/8"), network("10.1.0.0/16")}, from("10.2.2.3"), Verdict{true, 0, ByRule}},
		{"a narrow one has expired", []Rule{network("10.0.0.0/8"), network("10.1.0.0/16").until(0)}, from("10.1.2.3"), Verdict{true, 0, ByRule}},
		{"the wide one has", []Rule{network("10.0.0.0/8").until(-time.Hour), network("10.1.0.0/16")}, from("10.1.2.3"), Verdict{true, 1, ByRule}},
		{"and only that is there", []Rule{network("10.0.0.0/8").until(-time.Hour), network("10.1.0.0/16")}, from("10.2.2.3"), Verdict{false, 0, Expired}},
		{"a moment before", []Rule{network("10.0.0.0/8").until(1)}, from("10.1.2.3"), Verdict{true, 0, ByRule}},
		{"at the moment", []Rule{network("10.0.0.0/8").until(0)}, from("10.1.2.3"), Verdict{false, 0, Expired}},
		{"of two that expire the later one counts", []Rule{network("10.0.0.0/8").until(-1), network("10.0.0.0/8").until(1)}, from("10.1.2.3"), Verdict{true, 1, ByRule}},
		{"one network with two comments", []Rule{network("10.0.0.0/8").with("b"), network("10.0.0.0/8").with("a").until(-1)}, from("10.1.2.3"), Verdict{true, 1, ByRule}},
		{"the narrowest that expired is named", []Rule{network("10.0.0.0/8").until(-1), network("10.1.0.0/16").until(-1)}, from("10.1.2.3"), Verdict{false, 1, Expired}},
		{"nobody's", []Rule{network("10.0.0.0/8")}, from("11.0.0.1"), Verdict{false, -1, NoRule}},
		{"the other family", []Rule{network("10.0.0.0/8")}, from("2001:db8::1"), Verdict{false, -1, NoFamily}},
		{"nobody at all", []Rule{network("10.0.0.0/8")}, Who{}, Verdict{false, -1, NoRule}},
		{"an empty list", []Rule{}, from("10.1.2.3"), Verdict{false, -1, NoRules}},

		{"endpoints alone deny addresses", []Rule{{Endpoint: vpce}}, from("10.1.2.3"), Verdict{false, -1, NoFamily}},
		{"and allow who comes through them", []Rule{{Endpoint: vpce}}, through("10.1.2.3", vpce), Verdict{true, 0, ByRule}},
		{"not through another cloud's of that name", []Rule{{Endpoint: Endpoint{Azure, "7"}}}, through("10.1.2.3", Endpoint{GCP, "7"}), Verdict{false, -1, NoFamily}},
		{"one of several", []Rule{{Endpoint: link}, network("192.0.2.0/24")}, through("10.1.2.3", vpce, link, psc), Verdict{true, 1, ByRule}},
		{"no endpoint is no rule's", []Rule{network("192.0.2.0/24").until(-1)}, through("10.1.2.3", Endpoint{}), Verdict{false, -1, NoRule}},
		{"the address goes first", []Rule{{Endpoint: vpce}, network("10.0.0.0/8")}, through("10.1.2.3", vpce), Verdict{true, 0, ByRule}},
		{"an endpoint that has expired", []Rule{Rule{Endpoint: vpce}.until(0), network("192.0.2.0/24")}, through("10.1.2.3", vpce), Verdict{false, 1, Expired}},
		{"an expired address rule beside a live endpoint", []Rule{{Endpoint: vpce}, network("10.0.0.0/8").until(0)}, through("10.1.2.3", vpce), Verdict{true, 1, ByRule}},

		{"Flycast", []Rule{{Flycast: inside}}, to("fdaa:9::1", inside), Verdict{true, 0, ByRule}},
		{"another address of Flycast's", []Rule{{Flycast: inside}}, to("fdaa:9::1", inside.Next()), Verdict{false, -1, NoFamily}},
		{"from it is not to it", []Rule{{Flycast: inside}}, Who{Address: inside}, Verdict{false, -1, NoFamily}},
		{"the network that has it", []Rule{network("fdaa::/16")}, to("192.0.2.1", inside), Verdict{false, -1, NoFamily}},
	} {
		if got := compiled(t, c.rules...).Decide(start, c.who); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := (*AllowList)(nil).Decide(start, Who{}); got != (Verdict{true, -1, NoList}) {
		t.Errorf("no list: %+v", got)
	}
}

func TestCompileRulesRefuses(t *testing.T) {
	for _, c := range []struct {
		rule Rule
		want string
	}{
		{Rule{}, "exactly one of"},
		{Rule{Network: netip.MustParsePrefix("10.0.0.0/8"), Flycast: inside}, "exactly one of"},
		{Rule{Endpoint: vpce, Flycast: inside}, "exactly one of"},
		{network("10.1.2.3/8"), "write 10.0.0.0/8"},
		{Rule{Endpoint: Endpoint{AWS, "vpce-XYZ"}}, "endpoint.id: must be the id of a VPC endpoint"},
		{Rule{Endpoint: Endpoint{AWS, ""}}, "endpoint.id: must be the id of a VPC endpoint"},
		{Rule{Endpoint: Endpoint{Azure, "4294967296"}}, "endpoint.id: must be a number of 32 bits"},
		{Rule{Endpoint: Endpoint{Azure, "007"}}, "plain decimal digits"},
		{Rule{Endpoint: Endpoint{GCP, "18446744073709551616"}}, "endpoint.id: must be a number of 64 bits"},
		{Rule{Endpoint: Endpoint{"oracle", "1"}}, "endpoint.provider: must be one of aws, azure, gcp"},
		{Rule{Endpoint: Endpoint{"", "1"}}, "endpoint.provider: is missing"},
		{Rule{Flycast: netip.MustParseAddr("2001:db8::1")}, "flycast: must be in fdaa::/16"},
		{Rule{Flycast: netip.MustParseAddr("fdaa::1%eth0")}, "flycast: must be in fdaa::/16"},
		{network("10.0.0.0/8").with("a\nb"), "comment: must be printable"},
		{network("10.0.0.0/8").with("\x1b[2J"), "comment: must be printable"},
		{network("10.0.0.0/8").with("\u202e"), "comment: must be printable"},
		{network("10.0.0.0/8").with("\xff"), "comment: must be printable"},
		{network("10.0.0.0/8").with(strings.Repeat("ü", MaxComment+1)), "at most 200"},
	} {
		a, err := CompileRules([]Rule{network("192.0.2.0/24"), c.rule})
		var at *RuleError
		if a != nil || !errors.As(err, &at) || at.Index != 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want an error with %q", c.rule, err, c.want)
		}
	}
	if _, err := CompileRules([]Rule{network("10.0.0.0/8").with(strings.Repeat("ü", MaxComment)), {Endpoint: vpce}, {Endpoint: link}, {Endpoint: psc}}); err != nil {
		t.Error(err)
	}
}

// TestEqualRules: a comment and an expiry are part of what a list says; the zone in which an expiry was written is not.
func TestEqualRules(t *testing.T) {
	plain := network("10.0.0.0/8")
	east := plain
	east.Expires = start.In(time.FixedZone("", 3600))
	for _, c := range []struct {
		a, b []Rule
		want bool
	}{
		{[]Rule{plain, {Endpoint: vpce}}, []Rule{{Endpoint: vpce}, plain, plain}, true},
		{[]Rule{plain}, []Rule{plain.with("a")}, false},
		{[]Rule{plain}, []Rule{plain.until(0)}, false},
		{[]Rule{east}, []Rule{plain.until(0)}, true},
		{[]Rule{{Endpoint: vpce}}, []Rule{{Endpoint: psc}}, false},
		{[]Rule{{Flycast: inside}}, []Rule{{Flycast: inside.Next()}}, false},
	} {
		if got := compiled(t, c.a...).Equal(compiled(t, c.b...)); got != c.want {
			t.Errorf("%+v equals %+v: %v", c.a, c.b, got)
		}
	}
	if r := compiled(t, east).Rules()[0]; r != plain.until(0) {
		t.Errorf("%+v", r)
	}
}

func TestParseExpiryAndFlycast(t *testing.T) {
	for _, s := range []string{"2026-01-02T03:04:05Z", "2026-01-02T04:04:05+01:00"} {
		if at, err := ParseExpiry(s); err != nil || at != start {
			t.Errorf("%s: %v, %v", s, at, err)
		}
	}
	for _, s := range []string{"", "2026-01-02", "2026-01-02 03:04:05", "2026-01-02T03:04:05", "1969-01-01T00:00:00Z", "tomorrow"} {
		if at, err := ParseExpiry(s); err == nil {
			t.Errorf("%q: %v", s, at)
		}
	}
	if a, err := ParseFlycast("fdaa:0:1:0::3"); err != nil || a != inside {
		t.Errorf("%v, %v", a, err)
	}
	for _, s := range []string{"", "10.0.0.1", "2001:db8::1", "fdaa::1%eth0", "::ffff:10.0.0.1", "fdaa::/16"} {
		if a, err := ParseFlycast(s); err == nil {
			t.Errorf("%q: %v", s, a)
		}
	}
}

// genRule makes rules that meet genWho's often.
func genRule(t *rapid.T) Rule {
	var r Rule
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		r.Endpoint = rapid.SampledFrom([]Endpoint{vpce, link, psc}).Draw(t, "endpoint")
	case 1:
		r.Flycast = rapid.SampledFrom([]netip.Addr{inside, inside.Next()}).Draw(t, "flycast")
	default:
		r.Network = genPrefix(t)
	}
	r.Comment = rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "comment")
	if rapid.Bool().Draw(t, "expires") {
		r.Expires = start.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "at")) * time.Second)
	}
	return r
}

func genWho(t *rapid.T) Who {
	return Who{Address: rapid.Custom(genAddr).Draw(t, "addr"), Endpoints: rapid.SliceOfNDistinct(rapid.SampledFrom([]Endpoint{vpce, link, psc}), 0, 3, rapid.ID).Draw(t, "endpoints"),
		Flycast: rapid.SampledFrom([]netip.Addr{{}, inside, netip.MustParseAddr("2001:db8::1")}).Draw(t, "flycast")}
}

// TestDecideModel compares with a loop over the rules, bit by bit: random rules, random callers, as time goes by.
func TestDecideModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		given := rapid.SliceOfN(rapid.Custom(genRule), 0, 8).Draw(t, "rules")
		a, err := CompileRules(given)
		if err != nil {
			t.Fatal(err)
		}
		rules := a.Rules()
		for _, r := range given {
			if !slices.Contains(rules, r) {
				t.Fatalf("%+v was lost: %+v", r, rules)
			}
		}
		who := genWho(t)
		about := func(r Rule) bool {
			return r.Network.IsValid() && bitwise(r.Network, who.Address.Unmap()) || slices.Contains(who.Endpoints, r.Endpoint) || r.Flycast.IsValid() && r.Flycast == who.Flycast
		}
		next, any := a.NextExpiry(start.Add(-time.Second))
		for second := -1; second <= 6; second++ {
			now := start.Add(time.Duration(second) * time.Second)
			want, once := false, false
			for _, r := range given {
				live := r.Expires.IsZero() || r.Expires.After(now)
				want, once = want || live && about(r), once || !live && about(r)
			}
			v := a.Decide(now, who)
			if v.Allowed != want || (v.Reason == Expired) != (once && !want) || (v.Reason == ByRule) != want || (v.Rule >= 0) != (want || once) {
				t.Fatalf("at %d: %+v; allowed %v, once %v", second, v, want, once)
			}
			if v.Rule >= 0 {
				r := rules[v.Rule]
				if !about(r) || want == (!r.Expires.IsZero() && !r.Expires.After(now)) {
					t.Fatalf("at %d: the rule that is named does not decide: %+v", second, r)
				}
				for _, o := range rules { // the narrowest
					if o.Network.IsValid() && about(o) && (o.Expires.IsZero() || o.Expires.After(now)) && want && (!r.Network.IsValid() || r.Network.Bits() < o.Network.Bits()) {
						t.Fatalf("%+v is named, not %+v", r, o)
					}
				}
			}
			// Verdicts change when NextExpiry says so, and not between.
			if any && !now.Before(next) {
				was := next
				if next, any = a.NextExpiry(now); any && !next.After(was) {
					t.Fatalf("the next expiry after %v is %v", was, next)
				}
			}
			if again, ok := a.NextExpiry(now); ok != any || any && again != next {
				t.Fatalf("at %d: next %v %v, want %v %v", second, again, ok, next, any)
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	var rules []Rule
	for i := range 1000 {
		rules = append(rules, Rule{Network: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	a := compiled(b, rules...)
	who := Who{Address: netip.MustParseAddr("10.2.100.7")}
	for b.Loop() {
		if !a.Decide(start, who).Allowed {
			b.Fatal("denied")
		}
	}
}
