// Tests of expiry: on time, for the tenants that it is about, however rules change meanwhile.

package proxy

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// expiring is a list with a rule for each time.
func expiring(t testing.TB, at ...time.Time) *netrestrict.AllowList {
	t.Helper()
	rules := []netrestrict.Rule{{Network: netip.MustParsePrefix("2001:db8::/32")}}
	for _, x := range at {
		rules = append(rules, netrestrict.Rule{Network: netip.MustParsePrefix("192.0.2.0/24"), Expires: x})
	}
	list, err := netrestrict.CompileRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func restricted(id string, list *netrestrict.AllowList) []tenants.Change {
	return []tenants.Change{{New: &tenants.Tenant{ID: id, Allow: list}}}
}

// TestExpiriesAreOnTime, to the moment, and nobody else is told.
func TestExpiriesAreOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		after := func(d time.Duration) time.Time { return start.Add(d) }
		e := newExpiries()
		e.follow(start, restricted("early", expiring(t, after(time.Minute), after(time.Hour))))
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			e.run(ctx, func(id string, now time.Time) { told = append(told, fmt.Sprint(id, " ", now.Sub(start))) })
		}()
		synctest.Wait()
		e.follow(time.Now(), restricted("never", nil))
		e.follow(time.Now(), restricted("never", expiring(t)))
		e.follow(time.Now(), restricted("past", expiring(t, after(-time.Second))))
		e.follow(time.Now(), restricted("sooner", expiring(t, after(3*time.Second))))
		e.follow(time.Now(), restricted("gone", expiring(t, after(4*time.Second))))
		e.follow(time.Now(), restricted("later", expiring(t, after(5*time.Second))))
		time.Sleep(time.Second)
		e.follow(time.Now(), []tenants.Change{{Old: &tenants.Tenant{ID: "gone"}}})
		e.follow(time.Now(), restricted("later", expiring(t, after(2*time.Minute))))
		time.Sleep(2 * time.Hour)
		cancel()
		<-over
		if want := []string{"sooner 3s", "early 1m0s", "later 2m0s", "early 1h0m0s"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		if len(e.next) != 0 {
			t.Errorf("%v is still there", e.next)
		}
	})
}

// TestExpiriesModel: random lists, changed at random times: each tenant is told of at each moment at which its list of then loses
// a rule, and at no other.
func TestExpiriesModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		seconds := func(name string) int { return rapid.IntRange(0, 40).Draw(r, name) }
		type edit struct {
			at    int
			id    string
			times []int
		}
		var edits []edit
		for range rapid.IntRange(1, 6).Draw(r, "edits") {
			edits = append(edits, edit{seconds("at"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "id"), rapid.SliceOfN(rapid.IntRange(0, 40), 0, 3).Draw(r, "times")})
		}
		slices.SortStableFunc(edits, func(a, b edit) int { return a.at - b.at })
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			moment := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
			e := newExpiries()
			got, want := map[string]int{}, map[string]int{}
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			go func() {
				defer close(over)
				e.run(ctx, func(id string, now time.Time) { got[fmt.Sprint(id, " ", now.Sub(start))]++ })
			}()
			lists := map[string][]int{}
			for second := range 45 {
				time.Sleep(time.Until(moment(second)))
				synctest.Wait()
				for id, times := range lists { // what was there when it came to this second
					if slices.Contains(times, second) {
						want[fmt.Sprint(id, " ", moment(second).Sub(start))]++
					}
				}
				for _, x := range edits {
					if x.at != second {
						continue
					}
					var times []time.Time
					for _, n := range x.times {
						times = append(times, moment(n))
					}
					e.follow(time.Now(), restricted(x.id, expiring(t, times...)))
					lists[x.id] = x.times
				}
				synctest.Wait()
			}
			cancel()
			<-over
			if !maps.Equal(got, want) {
				t.Errorf("%+v: told %v, want %v", edits, got, want)
			}
		})
	})
}
