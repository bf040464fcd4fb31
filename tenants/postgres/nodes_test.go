package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// version is the head of the feed.
func (w *world) version() (version int64) {
	w.t.Helper()
	if err := w.connect().QueryRow(w.t.Context(), `SELECT version FROM postern.feed`).Scan(&version); err != nil {
		w.t.Fatal(err)
	}
	return version
}

// asked is one registry for all questions.
func (w *world) asked() *Registry {
	if w.asker == nil {
		w.asker = w.registry()
	}
	return w.asker
}

func (w *world) applied(version int64) tenants.Applied {
	w.t.Helper()
	a, err := w.asked().Applied(w.t.Context(), version)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// missing waits until a version is in force everywhere but on these nodes.
func (w *world) missing(version int64, nodes ...string) {
	w.t.Helper()
	var a tenants.Applied
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%+v\n%s", a, w.log)
		}
	}()
	harness.Eventually(w.t, harness.Patience, fmt.Sprintf("version %d misses %v", version, nodes), func() bool {
		a = w.applied(version)
		return slices.Equal(a.Missing, nodes) && a.Everywhere == (len(nodes) == 0) && a.At.IsZero() == (len(nodes) > 0)
	})
}

func (w *world) nodes() (all []tenants.Node, names []string) {
	w.t.Helper()
	all, err := w.asked().Nodes(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range all {
		names = append(names, n.Name)
	}
	return all, names
}

func (w *world) followAs(name string) *follower {
	w.t.Helper()
	w.opts.Node = name
	return w.follow()
}

// TestApplied: a version is in force when every node has said so. One that says goodbye is not waited for; one that is silent is,
// until it was forgotten.
func TestApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	if a := w.applied(0); a.Everywhere {
		t.Error("without a node something is in force everywhere")
	}
	w.put("acme", plainDocument)
	a, b := w.followAs("a"), w.followAs("b")
	a.has(t, "acme")
	b.has(t, "acme")
	w.missing(1)
	w.put("acme", `{"upstream": {"host": "h"}, "database": "x"}`)
	w.missing(2)
	all, names := w.nodes()
	if !slices.Equal(names, []string{"a", "b"}) || all[0].Silent || all[0].Applied != 2 || !slices.Equal(all[0].Keys, []string{"k1"}) || all[0].Started.IsZero() {
		t.Errorf("%+v", all)
	}
	first, second := w.applied(1), w.applied(2)
	if len(first.When) != 2 || !first.At.Equal(later(first)) || !second.At.Equal(later(second)) || first.At.After(second.At) {
		t.Errorf("%+v, then %+v", first, second)
	}
	w.missing(3, "a", "b") // which nobody has made yet

	b.stop()
	w.put("acme", plainDocument)
	w.missing(3)
	if _, names := w.nodes(); !slices.Equal(names, []string{"a"}) {
		t.Errorf("after a goodbye: %v", names)
	}
	// One that has said that it has everything, and then nothing.
	w.exec(`INSERT INTO postern.nodes SELECT 'gone', 'boot', seen, seen - interval '1 hour', epoch, 1000, refused, keys, cache FROM postern.nodes`)
	w.missing(3, "gone")
	if all, _ := w.nodes(); !all[1].Silent || all[0].Silent {
		t.Errorf("%+v", all)
	}
	forget := func(name string) error { return w.asked().ForgetNode(t.Context(), operator, name) }
	if err := forget("gone"); err != nil {
		t.Error(err)
	}
	w.missing(3)
	if err := forget("gone"); !errors.Is(err, tenants.ErrNoSuchNode) {
		t.Errorf("forgotten twice: %v", err)
	}
	if log, err := w.asked().Audit(t.Context(), "", 0, 2); err != nil || len(log) != 2 || log[0].Outcome != tenants.ErrNoSuchNode.Error() || log[1].Outcome != tenants.OutcomeDone ||
		log[1].Action != "node.forget" || log[1].By != operator || log[1].Changes[0].Old != `"gone"` {
		t.Errorf("the audit log has %+v, %v", log, err)
	}
	for _, name := range []string{"a\x00", "a\xff"} { // which no column takes
		if err := forget(name); !errors.Is(err, tenants.ErrNoSuchNode) {
			t.Errorf("%q: %v", name, err)
		}
	}
	// One of another epoch knows nothing of this one's versions.
	w.exec(`INSERT INTO postern.nodes SELECT 'old', 'boot', seen, seen + interval '1 hour', 'other', 1000, refused, keys, cache FROM postern.nodes`)
	w.missing(3, "old")
	w.exec(`UPDATE postern.nodes SET seen = seen - interval '2 hours' WHERE name = 'old'`)
	if err := forget("old"); err != nil {
		t.Error(err)
	}
	// A living one is not forgotten, unless somebody removes its row: then it comes back.
	if err := forget("a"); !errors.Is(err, tenants.ErrServes) {
		t.Errorf("a living one: %v", err)
	}
	w.exec(`DELETE FROM postern.nodes WHERE name = 'a'`)
	harness.Eventually(t, harness.Patience, "the node is there again", func() bool { _, names := w.nodes(); return slices.Equal(names, []string{"a"}) })
	w.missing(3)
	if !strings.Contains(w.log.String(), "was forgotten by the store") {
		t.Error("it does not say that it was forgotten")
	}
}

func later(a tenants.Applied) (last time.Time) {
	for _, at := range a.When {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// TestAppliedWaitsForSessions: what is in the directory is not in force before open sessions were judged; the node lives meanwhile.
func TestAppliedWaitsForSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	var judged atomic.Bool
	judged.Store(true)
	w.opts.Settled = func(ctx context.Context) error {
		if judged.Load() {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	f := w.followAs("a")
	w.missing(0)
	judged.Store(false)
	w.put("acme", plainDocument)
	f.has(t, "acme")
	all, _ := w.nodes()
	seen := all[0].Seen
	harness.Eventually(t, harness.Patience, "it is heard of", func() bool { all, _ := w.nodes(); return all[0].Seen.After(seen) })
	w.missing(1, "a")
	judged.Store(true)
	w.missing(1)
}

// TestAppliedWhereRefused: a change that a node refuses is not in force, those of others are.
func TestAppliedWhereRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.put("acme", plainDocument)
	w.put("globex", plainDocument)
	w.followAs("able")
	w.opts.Judge.Here = func(t *tenants.Tenant) error {
		if t.Database == "x" {
			return errors.New("not here")
		}
		return nil
	}
	w.followAs("unable")
	w.missing(2)
	w.put("acme", `{"upstream": {"host": "h"}, "database": "x"}`)
	w.missing(3, "unable")
	w.put("globex", `{"upstream": {"host": "h"}, "database": "y"}`)
	w.missing(4)
	w.missing(3, "unable")
	if all, _ := w.nodes(); !slices.Equal(all[1].Refused, []string{"acme"}) {
		t.Errorf("%+v", all)
	}
	w.put("acme", plainDocument)
	w.missing(5)
}

// TestNodeNames: of two processes with one name the earlier one takes another, and says so; until it has, nothing is in force
// everywhere.
func TestNodeNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a := w.followAs("twin")
	w.missing(0)
	b := w.followAs("twin")
	harness.Eventually(t, harness.Patience, "both are there", func() bool {
		all, _ := w.nodes()
		return len(all) == 2
	})
	_, names := w.nodes()
	if names[0] != "twin" || names[1] != "twin-"+a.node.boot[:6] {
		t.Errorf("%v", names)
	}
	if n := strings.Count(w.log.String(), "another process follows the store under the name of this node, which takes another one: set cluster.name"); n != 1 {
		t.Errorf("told %d times\n%s", n, w.log)
	}
	w.put("acme", plainDocument)
	w.missing(1)
	at := time.Now()
	a.stop()
	b.stop()
	if !at.After(b.node.quiet) {
		t.Error("the later one has said what is in force before the earlier one was known to have seen it")
	}
	if _, names := w.nodes(); len(names) > 0 {
		t.Errorf("after goodbyes: %v", names)
	}
}

// TestReportsAreFew: a hundred changes are not a hundred reports.
func TestReportsAreFew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.followAs("a")
	w.missing(0)
	start, conn := time.Now(), w.connect()
	for i := range 100 {
		if _, err := conn.Exec(t.Context(), `INSERT INTO postern.tenants VALUES ($1, $2)`, fmt.Sprint("t", i), plainDocument); err != nil {
			t.Fatal(err)
		}
	}
	w.missing(100)
	took := time.Since(start)
	var reports int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM postern.applied`).Scan(&reports); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d reports in %v", reports, took)
	if most := 3 + int(took/reportPause); reports > most {
		t.Errorf("%d reports in %v, %d at most", reports, took, most)
	}
}

// TestAuditSaysWhereInForce: an entry has the nodes that have said so, since their first report of it or of a later change, also after
// one has ended or comes back; where the tenant is refused it is not in force; and of old ones nothing is known.
func TestAuditSaysWhereInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.asked()
	change := func(tenant, database string) {
		t.Helper()
		if _, err := r.Change(t.Context(), with(tenant, 0, func(x *tenants.Tenant) { x.Database = database })); err != nil {
			t.Fatal(err)
		}
	}
	var all []tenants.Entry // the latest first
	inForce := func(want ...string) {
		t.Helper()
		var got []string
		defer func() {
			if t.Failed() {
				t.Logf("got %q", got)
			}
		}()
		harness.Eventually(t, harness.Patience, fmt.Sprintf("in force: %q", want), func() bool {
			all, got = w.entries(r, 100), nil
			for _, e := range all {
				var names []string
				for _, a := range e.Applied {
					names = append(names, a.Node)
				}
				slices.Sort(names)
				got = append(got, fmt.Sprint(e.Version, e.Applied != nil, names))
			}
			got = slices.Compact(got)
			return slices.Equal(got, want)
		})
	}
	w.load(sample("acme"), sample("globex")) // one version, two entries
	inForce("1 true []")
	a := w.followAs("a")
	inForce("1 true [a]")
	w.opts.Judge.Here = func(x *tenants.Tenant) error {
		if x.Database == "x" {
			return errors.New("not here")
		}
		return nil
	}
	w.followAs("b")
	inForce("1 true [a b]")
	change("acme", "x")
	w.missing(2, "b")
	change("globex", "y")
	w.missing(3)
	if err := r.Note(t.Context(), tenants.Entry{Action: "test", Outcome: "no"}); err != nil {
		t.Fatal(err)
	}
	inForce("0 false []", "3 true [a b]", "2 true [a]", "1 true [a b]") // whatever came later, acme's change is refused by b
	change("acme", "z")
	w.missing(4)
	inForce("4 true [a b]", "0 false []", "3 true [a b]", "2 true [a b]", "1 true [a b]")
	before := fmt.Sprintf("%+v", all)
	for _, e := range all {
		for i, at := range e.Applied {
			if at.At.Before(e.At) || i > 0 && at.At.Before(e.Applied[i-1].At) {
				t.Errorf("in force before it was made, or out of order: %+v", e)
			}
		}
	}

	// A node that ends was there, and one that has come back has been there all the time.
	a.stop()
	w.opts.Judge.Here = nil
	w.followAs("a")
	harness.Eventually(t, harness.Patience, "it is there again", func() bool { _, names := w.nodes(); return slices.Equal(names, []string{"a", "b"}) })
	w.missing(4)
	if all = w.entries(r, 100); fmt.Sprintf("%+v", all) != before {
		t.Errorf("it was\n%s\nand is\n%+v", before, all)
	}
	// A failover: what was known of the epoch before is still so.
	w.exec(`UPDATE postern.applied SET epoch = 'before'`)
	w.exec(`INSERT INTO postern.applied SELECT DISTINCT node, 'after', 4, now(), '{}'::text[] FROM postern.applied`)
	if all = w.entries(r, 100); fmt.Sprintf("%+v", all) != before {
		t.Errorf("it was\n%s\nand after a failover\n%+v", before, all)
	}
	w.exec(`UPDATE postern.applied SET refused = '{*}'`)
	inForce("4 true []", "0 false []", "3 true []", "2 true []", "1 true []")

	// Old ones. Reports that came before an entry was written are no news of it.
	w.exec(`UPDATE postern.applied SET at = at - interval '2 days', refused = '{}'`)
	inForce("4 true []", "0 false []", "3 true []", "2 true []", "1 true []")
	w.exec(`GRANT UPDATE ON postern.audit TO CURRENT_USER`)
	w.exec(`ALTER TABLE postern.audit DISABLE TRIGGER USER`)
	w.exec(`UPDATE postern.audit SET at = at - interval '8 days' WHERE version IN (1, 3)`)
	inForce("4 true []", "0 false []", "3 false []", "2 true []", "1 false []")
}
