// Tests of the list of refusals: what is on it, that strangers cannot make it or the metrics grow, and that a check says what
// admission does.

package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

func (r Refusal) String() string {
	return strings.TrimRight(fmt.Sprintf("%s %s %s %v %d %s", r.Tenant, r.Address, r.Reason, r.Observed, r.Count, r.User), " ")
}

// TestRefusalsAreListed: for each reason that an owner should know, by who has been turned away, and for nobody else.
func TestRefusalsAreListed(t *testing.T) {
	d := newDoor(t)
	way := d.gate.Door(Listener{Name: "door", Mode: "transaction"})
	noted := uint64(0)
	try := func(user, addr, password string) {
		_, _ = way.Admit(t.Context(), Caller{Client: netip.MustParseAddrPort(addr), Startup: startupOf(t, "user", user), Proof: Password(password)})
		if strings.Contains(user, ".nobody") || !strings.Contains(user, ".") {
			return
		}
		noted++
		soon(t, "a refusal on the list", func() bool { // it comes there behind the answer
			n := uint64(0)
			for _, r := range d.gate.refused.of("") {
				n += r.Count
			}
			return n == noted
		})
	}
	try("app.picky", "203.0.113.7:1", "right")
	try("o'brien\x1b[2J.picky", "203.0.113.7:2", "right")
	try("app.picky", "198.51.100.7:1", "wrong")
	try("ghost.picky", "198.51.100.7:1", "wrong")
	try("app.secure", "203.0.113.7:1", "right")
	try("app.full", "203.0.113.7:1", "right")
	try("app.guessed", "127.0.0.1:1", "right")
	try("app.nobody", "203.0.113.7:1", "right") // no tenant's
	try("app", "203.0.113.7:1", "right")
	for id, want := range map[string][]string{
		"picky":   {"picky 198.51.100.7 password false 2 ghost", `picky 203.0.113.7 address false 2 o'brien\x1b[2J`},
		"secure":  {"secure 203.0.113.7 tls false 1 app"},
		"full":    {"full 203.0.113.7 limit false 1 app"},
		"guessed": {"guessed 127.0.0.1 throttle false 1 app"},
		"acme":    nil,
	} {
		all, err := d.gate.Refusals(id)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all {
			got = append(got, r.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %s: %q, want %q", id, got, want)
		}
	}
	if _, err := d.gate.Refusals("nobody"); err != ErrNoTenant {
		t.Errorf("nobody's: %v", err)
	}
	d.directory.Remove("picky")
	if n := len(d.gate.refused.of("picky")); n != 0 {
		t.Errorf("%d of a tenant that is gone", n)
	}
	if n := len(d.gate.refused.of("")); n != 3 {
		t.Errorf("%d of all that are left", n)
	}
}

// TestRefusedListModel compares with a plain list, cut where it is too long.
func TestRefusedListModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l refusedList
		var model []Refusal // the latest first
		now := time.Unix(0, 0)
		addrs := rapid.IntRange(1, 2*maxRefusals).Draw(t, "addresses")
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			now = now.Add(time.Second)
			id := rapid.SampledFrom([]string{"a", "a", "a", "b", "c"}).Draw(t, "tenant")
			if rapid.IntRange(0, 200).Draw(t, "gone") == 0 {
				l.forget(id)
				model = slices.DeleteFunc(model, func(r Refusal) bool { return r.Tenant == id })
				continue
			}
			r := Refusal{Tenant: id, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, addrs).Draw(t, "address"))}),
				Reason: rapid.SampledFrom([]string{"address", "password"}).Draw(t, "reason"), Observed: rapid.Bool().Draw(t, "observed"), User: rapid.SampledFrom([]string{"u", "v"}).Draw(t, "user")}
			l.note(now, r)
			r.Count, r.First, r.Last = 1, now, now
			same := func(o Refusal) bool { return o.Tenant == r.Tenant && o.key() == r.key() }
			if i := slices.IndexFunc(model, same); i >= 0 {
				r.Count, r.First = model[i].Count+1, model[i].First
				model = slices.Delete(model, i, i+1)
			}
			model = slices.Insert(model, 0, r)
			var own []int
			for i, o := range model {
				if o.Tenant == id {
					own = append(own, i)
				}
			}
			if len(own) > maxRefusals {
				model = slices.Delete(model, own[maxRefusals], own[maxRefusals]+1)
			}
		}
		for _, id := range []string{"", "a", "b", "c"} {
			want := []Refusal{}
			for _, r := range model {
				if id == "" || r.Tenant == id {
					want = append(want, r)
				}
			}
			if got := l.of(id); !slices.Equal(got, want) {
				t.Fatalf("of %q: %v, want %v", id, got, want)
			}
		}
	})
}

// TestRefusalsOfManyTenants: of all together there is a bound, and the newest win.
func TestRefusalsOfManyTenants(t *testing.T) {
	var l refusedList
	for i := range 2 * maxAllRefusals {
		l.note(time.Unix(int64(i), 0), Refusal{Tenant: fmt.Sprint(i % 5000), Address: netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1})})
	}
	all := l.of("")
	if len(all) != maxAllRefusals || all[0].Last.Unix() != 2*maxAllRefusals-1 || all[len(all)-1].Last.Unix() != maxAllRefusals {
		t.Errorf("%d are kept, from %v to %v", len(all), all[len(all)-1].Last.Unix(), all[0].Last.Unix())
	}
	l.keep(func(id string) bool { return id == "7" })
	if all := l.of(""); len(all) != 2 || len(l.byTenant) != 1 {
		t.Errorf("%d are left of one tenant's, %d tenants", len(all), len(l.byTenant))
	}
}

// babbler answers with what is no message.
type babbler struct{}

func (babbler) Read(b []byte) (int, error)  { return copy(b, "xxxxxxxxxxxxxxxx"), nil }
func (babbler) Write(b []byte) (int, error) { return len(b), nil }
func (babbler) SetDeadline(time.Time) error { return nil }

// series are the names and labels of what a gatherer has.
func series(t *testing.T, from prometheus.Gatherer) (out []string) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out = append(out, f.GetName()+fmt.Sprint(m.GetLabel()))
		}
	}
	return out
}

// TestStrangersGrowNothing: 100,000 random users, host names, tenants and addresses make no series and no list longer.
func TestStrangersGrowNothing(t *testing.T) {
	d := newDoor(t)
	d.log = new(bytes.Buffer)
	d.gate.opts.TenantDomain = "db.test"
	observing, _ := d.directory.Tenant("picky")
	watched := *observing
	watched.ID, watched.Restrictions = "watched", tenants.RestrictionsObserve
	put(t, d.gate, &watched)
	way := d.gate.Door(Listener{Name: "door", Mode: "transaction"})
	rng := rand.New(rand.NewPCG(1, 2))
	word := func() string { return fmt.Sprintf("%x", rng.Uint64()) }
	visit := func() {
		addr := netip.AddrFrom4([4]byte{203, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
		if rng.IntN(2) == 0 {
			var raw [16]byte
			for i := range raw {
				raw[i] = byte(rng.Uint32())
			}
			addr = netip.AddrFrom16(raw)
		}
		c := Caller{Client: netip.AddrPortFrom(addr, 1), Proof: SASL(babbler{})}
		user := word()
		switch rng.IntN(4) {
		case 0: // a tenant that lets in others only
			user += ".picky"
		case 1:
			user += ".watched"
		case 2: // none
			c.Host = word() + ".db.test"
		default:
			user += "." + word()
		}
		c.Startup = startupOf(t, "user", user, "database", word(), "application_name", word())
		if seat, err := way.Admit(t.Context(), c); err == nil {
			seat.Leave()
			t.Fatal("somebody was let in")
		}
	}
	for range 1000 {
		visit()
	}
	metricsOf := func(id string) prometheus.Gatherer {
		from, err := d.gate.TenantMetrics(id)
		if err != nil {
			t.Fatal(err)
		}
		return from
	}
	before := [][]string{series(t, d.registry), series(t, metricsOf("picky")), series(t, metricsOf("watched"))}
	for range 99_000 {
		visit()
	}
	after := [][]string{series(t, d.registry), series(t, metricsOf("picky")), series(t, metricsOf("watched"))}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("series: %s", diff)
	}
	registered := d.directory.Len()
	if n := len(d.gate.runtimeTenants()); n > registered {
		t.Errorf("%d tenants at run time, %d are registered", n, registered)
	}
	if n := len(d.gate.denials.byID); n > registered {
		t.Errorf("refusals of %d tenants are counted", n)
	}
	for _, id := range []string{"picky", "watched"} {
		if n := len(d.gate.refused.of(id)); n != maxRefusals {
			t.Errorf("%d refusals of %s are listed", n, id)
		}
	}
	if n := len(d.gate.refused.of("")); n != 2*maxRefusals {
		t.Errorf("%d refusals are listed", n)
	}
	if n := d.refusals()["address"]; n < 20_000 {
		t.Errorf("only %d were refused", n)
	}
	if n := d.gate.denials.of("watched").observed.Load(); n < 20_000 {
		t.Errorf("only %d were observed", n)
	}
}

// TestCheckIsAdmission: what a check says is what becomes of somebody who comes.
func TestCheckIsAdmission(t *testing.T) {
	b := newBench(t)
	past := netrestrict.Rule{Network: netip.MustParsePrefix("203.0.113.0/24"), Comment: "Mary", Expires: time.Unix(1, 0)}
	conf := b.restrict(past, office, private)
	for _, mode := range []tenants.Restrictions{tenants.RestrictionsEnforce, tenants.RestrictionsObserve} {
		x := *conf
		x.Restrictions = mode
		put(t, b.gate, &x)
		for name, want := range map[string]string{
			"office": "true rule 198.51.100.0/24", "mary": "false expired 203.0.113.0/24 Mary", "vpce": "true rule invalid Prefix", "flycast": "false no_family",
		} {
			peer := crowd[name]
			c, err := b.gate.CheckAddress("acme", whoIs(&peer))
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(c.Allowed, " ", c.Reason)
			if c.Decides != nil {
				got = strings.TrimRight(fmt.Sprint(got, " ", c.Decides.Network, " ", c.Decides.Comment), " ")
			}
			if got != want || c.Mode != mode {
				t.Errorf("%s: %s in mode %s, want %s", name, got, c.Mode, want)
			}
			if _, err := b.visit(peer, "app.acme"); (err == nil) != (c.Allowed || mode == tenants.RestrictionsObserve) {
				t.Errorf("%s: the check says %v, who comes is told %v", name, c.Allowed, err)
			}
		}
	}
	if _, err := b.gate.CheckAddress("nobody", netrestrict.Who{}); err != ErrNoTenant {
		t.Errorf("nobody's: %v", err)
	}
}

// TestRefusedCancelsAreListed, without a user.
func TestRefusedCancelsAreListed(t *testing.T) {
	b := newBench(t)
	b.gather()
	var key []byte
	b.tenant.call(func() {
		c := b.tenant.clients[0]
		key = append(binary.BigEndian.AppendUint32(nil, c.key.pid), c.key.secret...)
	})
	conf := b.restrict(office, private, internal, netrestrict.Rule{Network: netip.MustParsePrefix("203.0.113.7/32")})
	put(t, b.gate, conf)
	stranger := netip.MustParseAddrPort("192.0.2.9:1")
	h := &handshake{visitor: visitor{gate: b.gate}}
	h.peer.Client = stranger
	h.cancel(key)
	got, _ := b.gate.Refusals("acme")
	if len(got) != 1 || got[0].String() != "acme 192.0.2.9 address false 1" {
		t.Errorf("listed are %v", got)
	}
}
