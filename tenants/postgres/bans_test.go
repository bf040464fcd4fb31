// Bans between nodes: what one tells the others hear, without the feed, and no more of it than the store can bear.

package postgres

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/test/harness"
)

// held is what a node has heard of bans.
type held struct {
	mu sync.Mutex
	by map[string]netrestrict.Ban // by tenant and network
}

func (h *held) apply(b netrestrict.Ban) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := b.Tenant + " " + b.Address.String()
	if b.Left > 0 {
		h.by[key] = b
	} else {
		delete(h.by, key)
	}
}

func (h *held) keys() (keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.by {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (h *held) has(t *testing.T, want ...string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, fmt.Sprintf("a node has heard of %q", want), func() bool { return slices.Equal(h.keys(), want) })
}

// sharing follows the store as a node that hears of bans.
func (w *world) sharing(node string) (*follower, *held) {
	w.t.Helper()
	h := &held{by: make(map[string]netrestrict.Ban)}
	w.opts.ApplyBan = h.apply
	return w.followAs(node), h
}

func ban(tenant, network string, left time.Duration) netrestrict.Ban {
	return netrestrict.Ban{Tenant: tenant, Address: netip.MustParsePrefix(network), Left: left, Failures: 10}
}

func count(w *world, sql string) (n int64) {
	w.t.Helper()
	if err := w.connect().QueryRow(w.t.Context(), sql).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestBansAreShared: a ban of one node is heard by the others, and so is its end, whoever ends it. The feed knows nothing of it.
func TestBansAreShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(sample("acme"), sample("globex"))
	a, atA := w.sharing("a")
	b, atB := w.sharing("b")
	b.has(t, "acme", "globex")
	head, read := count(w, `SELECT version FROM postern.feed`), count(w, `SELECT sum(mark) FROM postern.changes`)

	manual := ban("globex", "2001:db8::/32", time.Hour)
	manual.Manual = true
	for _, one := range []netrestrict.Ban{ban("acme", "198.51.100.7/32", time.Minute), ban("acme", "2001:db8:0:1::/64", time.Minute),
		ban("", "198.51.100.8/32", time.Minute), ban("stranger", "198.51.100.9/32", time.Minute), manual} {
		a.TellBan(one)
	}
	all := []string{" 198.51.100.8/32", "acme 198.51.100.7/32", "acme 2001:db8:0:1::/64", "globex 2001:db8::/32"}
	atB.has(t, all...)
	atA.has(t, all...)
	for key, got := range atB.by {
		if most := time.Hour; got.Left > most || got.Left < 30*time.Second || got.Failures != 10 || got.Manual != (key == "globex 2001:db8::/32") {
			t.Errorf("%s: %+v", key, got)
		}
	}
	if n := count(w, `SELECT count(*) FROM postern.bans WHERE made_by <> 'a' OR tenant = 'stranger'`); n != 0 {
		t.Errorf("%d rows are not as they should be", n)
	}
	b.TellBan(ban("acme", "198.51.100.7/32", 0)) // lifted elsewhere than it was made
	all = slices.Delete(all, 1, 2)
	atA.has(t, all...)
	w.exec(`DELETE FROM postern.bans WHERE tenant = ''`) // and by hand
	all = all[1:]
	atA.has(t, all...)
	atB.has(t, all...)
	w.exec(`INSERT INTO postern.bans VALUES ('acme', '203.0.113.0/24', 'infinity', 0, true, 'somebody')`)
	atB.has(t, "acme 2001:db8:0:1::/64", "acme 203.0.113.0/24", "globex 2001:db8::/32")
	if _, err := w.connect().Exec(t.Context(), `TRUNCATE postern.bans`); err == nil {
		t.Error("TRUNCATE, which tells nobody, is not refused")
	}

	if h, r := count(w, `SELECT version FROM postern.feed`), count(w, `SELECT sum(mark) FROM postern.changes`); h != head || r != read {
		t.Error("bans have changed the feed")
	}
	// Who comes later hears of all that hold, and nobody of those at tenants that are gone.
	_, atC := w.sharing("c")
	atC.has(t, "acme 2001:db8:0:1::/64", "acme 203.0.113.0/24", "globex 2001:db8::/32")
	w.load(sample("globex"))
	w.exec(`DELETE FROM postern.tenants WHERE id = 'acme'`)
	for _, at := range []*held{atA, atB, atC} {
		at.has(t, "globex 2001:db8::/32")
	}
	w.exec(`UPDATE postern.bans SET until = clock_timestamp()`) // over now, and nobody has to be told: it is over everywhere
	a.TellBan(ban("globex", "198.51.100.1/32", time.Minute))
	harness.Eventually(t, harness.Patience, "whoever writes has deleted what is over", func() bool {
		return count(w, `SELECT count(*) FROM postern.bans`) == 1
	})
}

// TestBansWhileTheStoreIsAway: what begins meanwhile is told later, for as long as it holds then, and what has ended meanwhile is over.
func TestBansWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	c := harness.Postgres(t)
	w := newWorld(t, c)
	w.load(sample("acme"))
	_, atB := w.sharing("b")
	direct, there := w.dsn, fmt.Sprintf("127.0.0.1:%d", c.Port())
	relay := harness.NewRelay(t, there, harness.Faults{})
	_, port, err := net.SplitHostPort(relay.Addr())
	if err != nil {
		t.Fatal(err)
	}
	w.dsn = strings.Replace(w.dsn, fmt.Sprintf("port=%d", c.Port()), "port="+port, 1)
	a, atA := w.sharing("a")
	w.dsn = direct
	a.TellBan(ban("acme", "198.51.100.1/32", time.Hour))
	a.TellBan(ban("acme", "198.51.100.2/32", time.Hour))
	atB.has(t, "acme 198.51.100.1/32", "acme 198.51.100.2/32")
	atA.has(t, "acme 198.51.100.1/32", "acme 198.51.100.2/32")

	relay.SetTarget("127.0.0.1:1") // where nobody listens
	relay.Cut()
	harness.Eventually(t, harness.Patience, "the store is away", func() bool { return a.Degraded() != nil })
	a.TellBan(ban("acme", "198.51.100.3/32", time.Hour))
	a.TellBan(ban("acme", "198.51.100.4/32", time.Millisecond)) // over before anybody can be told
	a.TellBan(ban("acme", "198.51.100.1/32", 0))
	w.exec(`DELETE FROM postern.bans WHERE address = '198.51.100.2/32'`)
	atB.has(t, "acme 198.51.100.1/32")
	if got := atA.keys(); len(got) != 2 {
		t.Errorf("what was known has changed: %q", got)
	}
	relay.SetTarget(there)
	atB.has(t, "acme 198.51.100.3/32")
	// The first was ended at the gate of a already, which needs not be told.
	atA.has(t, "acme 198.51.100.3/32")
}

// TestFloodOfBans: strangers from everywhere make the store no larger, nor the memory of a node, and what somebody wants is told all
// the same.
func TestFloodOfBans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.load(sample("acme"))
	a, _ := w.sharing("a")
	_, atB := w.sharing("b")
	var raw [16]byte
	raw[0] = 0x20
	flood := func(n int) {
		for i := range n {
			binary.BigEndian.PutUint32(raw[2:], uint32(i))
			p, _ := netip.AddrFrom16(raw).Prefix(64)
			a.TellBan(netrestrict.Ban{Tenant: "acme", Address: p, Left: time.Hour, Failures: 10})
			if news := a.bans.waiting(); news > maxBanNews {
				t.Fatalf("%d bans are waiting to be told", news)
			}
		}
	}
	flood(20 * maxBanNews)
	a.TellBan(netrestrict.Ban{Tenant: "acme", Address: netip.MustParsePrefix("198.51.100.7/32"), Left: time.Hour, Manual: true})
	began := time.Now()
	harness.Eventually(t, harness.Patience, "the other node has heard of the one that counts", func() bool {
		return slices.Contains(atB.keys(), "acme 198.51.100.7/32")
	})
	t.Logf("heard after %v", time.Since(began))
	for a.bans.waiting() > 2*maxTenantBans { // or it would take until they are over
		a.bans.take(time.Now())
	}
	harness.Eventually(t, harness.Patience, "everything was told", func() bool { return a.bans.waiting() == 0 })
	if n := count(w, `SELECT count(*) FROM postern.bans WHERE NOT manual`); n != maxTenantBans {
		t.Errorf("the store has %d bans, want %d", n, maxTenantBans)
	}
	if n := len(atB.keys()); n != maxTenantBans+1 {
		t.Errorf("the other node has heard of %d", n)
	}

	// One that is there is prolonged although there is no room, and all the room that there is goes to those that are not.
	full := w.connect()
	var some []netip.Prefix
	if err := full.QueryRow(t.Context(), `SELECT array_agg(address) FROM (SELECT address FROM postern.bans WHERE NOT manual ORDER BY 1 LIMIT 6) x`).Scan(&some); err != nil {
		t.Fatal(err)
	}
	freed, prolonged := some[0], some[1:]
	w.exec(fmt.Sprintf(`DELETE FROM postern.bans WHERE address = '%s'`, freed))
	const begun = "198.51.100.9/32"
	for _, p := range prolonged {
		a.TellBan(netrestrict.Ban{Tenant: "acme", Address: p, Left: 3 * time.Hour, Failures: 20})
	}
	a.TellBan(ban("acme", begun, 3*time.Hour))
	harness.Eventually(t, harness.Patience, "they last longer", func() bool { return a.bans.waiting() == 0 && slices.Contains(atB.keys(), "acme "+begun) })
	if n := count(w, `SELECT count(*) FROM postern.bans WHERE NOT manual AND until > now() + interval '2 hours'`); n != int64(len(prolonged))+1 {
		t.Errorf("%d bans last three hours, want %d", n, len(prolonged)+1)
	}
	if n := count(w, `SELECT count(*) FROM postern.bans WHERE NOT manual`); n != maxTenantBans {
		t.Errorf("the store has %d bans, want %d", n, maxTenantBans)
	}
}

// TestBanNews: what is urgent is told first, always has room, and newer news stays.
func TestBanNews(t *testing.T) {
	b := newBans(&Options{ApplyBan: func(netrestrict.Ban) {}})
	now := time.Now()
	var raw [4]byte
	for i := range 2 * maxBanNews {
		binary.BigEndian.PutUint32(raw[:], uint32(i))
		b.tell(netrestrict.Ban{Tenant: "acme", Address: netip.PrefixFrom(netip.AddrFrom4(raw), 32), Left: time.Hour}, now)
	}
	lifted, manual := ban("acme", "198.51.100.7/32", 0), ban("acme", "198.51.100.8/32", time.Hour)
	manual.Manual = true
	b.tell(lifted, now)
	b.tell(manual, now)
	if n := b.waiting(); n != maxBanNews {
		t.Errorf("%d are waiting", n)
	}
	some := b.take(now)
	_, first := some[banKey{"acme", lifted.Address}]
	_, second := some[banKey{"acme", manual.Address}]
	if len(some) != banBatch || !first || !second {
		t.Errorf("%d are told at first, what is urgent among them: %v, %v", len(some), first, second)
	}
	b.tell(ban("acme", "198.51.100.7/32", time.Hour), now) // banned again, before it could be told that it was lifted
	b.back(some)
	if n := b.news[banKey{"acme", lifted.Address}]; n.until.IsZero() || b.waiting() != maxBanNews {
		t.Errorf("%d are waiting, and of the one that is banned again: %+v", b.waiting(), n)
	}
	if later := b.take(now.Add(2 * time.Hour)); len(later) != 0 {
		t.Errorf("%d are told that are over", len(later))
	}
}
