package postgres

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

func digestOf(token string) [32]byte { return sha256.Sum256([]byte(token)) }

// TestTokens: a token is made, listed, found, and not any more when it is revoked, has expired, or its tenant is gone; the audit log says so,
// and nothing has the token or its digest.
func TestTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r, other := w.registry(), w.registry()
	for _, id := range []string{"acme", "globex"} {
		if _, err := r.Change(t.Context(), put(sample(id), 0)); err != nil {
			t.Fatal(err)
		}
	}
	add := func(name string, scope tenants.Scope, tenant string, expires time.Time) tenants.Token {
		t.Helper()
		made, err := r.AddToken(t.Context(), operator, tenants.Token{ID: "mine", Name: name, Scope: scope, Tenant: tenant, Expires: expires}, digestOf("marked-"+name))
		if err != nil {
			t.Fatal(err)
		}
		if made.ID == "mine" || made.ID == "" || made.Name != name || made.Scope != scope || made.Tenant != tenant || made.Created.IsZero() || !made.Used.IsZero() || !made.Expires.Equal(expires) {
			t.Errorf("made %+v", made)
		}
		return made
	}
	find := func(r *Registry, name string, want error) {
		t.Helper()
		if got, err := r.FindToken(t.Context(), digestOf("marked-"+name)); !errors.Is(err, want) || err == nil && got.Name != name {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, want)
		}
	}
	ops := add("ops", tenants.ScopeOperator, "", time.Time{})
	acme := add("acme", tenants.ScopeWrite, "acme", time.Now().Add(time.Hour).Round(time.Second))
	globex := add("globex", tenants.ScopeRead, "globex", time.Time{})
	add("late", tenants.ScopeMetrics, "", time.Now().Add(-time.Second).Round(time.Second))
	for what, bad := range map[error]tenants.Token{tenants.ErrNoSuchTenant: {Name: "x", Scope: tenants.ScopeRead, Tenant: "nobody"}, tenants.ErrTaken: {Name: "x", Scope: tenants.ScopeOperator}} {
		digest := digestOf("marked-x")
		if errors.Is(what, tenants.ErrTaken) {
			digest = digestOf("marked-ops")
		}
		if _, err := r.AddToken(t.Context(), operator, bad, digest); !errors.Is(err, what) {
			t.Errorf("%+v: %v", bad, err)
		} else if e := w.entries(r, 1)[0]; e.Action != "token.add" || e.Outcome != what.Error() {
			t.Errorf("%+v: %+v", bad, e)
		}
	}
	if _, err := r.AddToken(t.Context(), operator, tenants.Token{Scope: "root"}, digestOf("y")); !problemAt(err, "scope") {
		t.Error(err)
	}
	if list, err := r.Tokens(t.Context(), "\x00", "", 10); err != nil || len(list) > 0 {
		t.Errorf("nobody's: %+v, %v", list, err)
	}
	names := func(tenant string) (all []string) {
		t.Helper()
		for after := ""; ; {
			list, err := other.Tokens(t.Context(), tenant, after, 2)
			if err != nil || len(list) > 2 {
				t.Errorf("%d tokens, %v", len(list), err)
			}
			for _, x := range list {
				if x.ID <= after {
					t.Errorf("%s comes after %s", x.ID, after)
				}
				after, all = x.ID, append(all, x.Name)
			}
			if len(list) < 2 {
				slices.Sort(all)
				return all
			}
		}
	}
	if got := names(""); !slices.Equal(got, []string{"acme", "globex", "late", "ops"}) {
		t.Errorf("listed: %v", got)
	}
	if got := names("acme"); !slices.Equal(got, []string{"acme"}) {
		t.Errorf("acme's: %v", got)
	}
	for _, r := range []*Registry{r, other} {
		find(r, "ops", nil)
		find(r, "acme", nil)
		find(r, "globex", nil)
		find(r, "late", tenants.ErrNoSuchToken)
		find(r, "unknown", tenants.ErrNoSuchToken)
	}
	list, err := r.Tokens(t.Context(), "acme", "", 10)
	if err != nil || len(list) != 1 || list[0].Used.Second() != 0 || time.Since(list[0].Used) > 10*time.Minute {
		t.Errorf("its use: %+v, %v", list, err)
	}
	if one, err := other.Token(t.Context(), acme.ID); err != nil || one.Name != "acme" || !one.Expires.Equal(acme.Expires) {
		t.Errorf("acme's alone: %+v, %v", one, err)
	}
	if err := r.RevokeToken(t.Context(), operator, "", ops.ID); err != nil {
		t.Error(err)
	}
	for _, id := range []string{ops.ID, "nobody's", "\x00", ""} {
		if one, err := r.Token(t.Context(), id); !errors.Is(err, tenants.ErrNoSuchToken) {
			t.Errorf("token %q: %+v, %v", id, one, err)
		}
	}
	for _, x := range [][2]string{{"", ops.ID}, {"globex", acme.ID}, {"", "nobody's"}, {"", "\x00"}, {"\x00", acme.ID}, {"acme\xff", acme.ID}} {
		if err := r.RevokeToken(t.Context(), operator, x[0], x[1]); !errors.Is(err, tenants.ErrNoSuchToken) {
			t.Errorf("%q: %v", x, err)
		}
	}
	find(r, "ops", tenants.ErrNoSuchToken) // at once where it was done
	if _, err := r.Change(t.Context(), remove("globex", 0)); err != nil {
		t.Fatal(err)
	}
	if e := w.entries(r, 1)[0]; e.Action != "tenant.delete" || !slices.Contains(e.Changes, tenants.Difference{Path: fmt.Sprintf("tokens[%q]", globex.ID), Old: `{"name":"globex","scope":"tenant:read"}`}) ||
		strings.Contains(fmt.Sprint(e.Changes), acme.ID) {
		t.Errorf("who was removed with its tokens: %+v", e)
	}
	for _, name := range []string{"ops", "globex"} { // and within a second elsewhere
		harness.Eventually(t, harness.Patience, name+" ends", func() bool {
			_, err := other.FindToken(t.Context(), digestOf("marked-"+name))
			return errors.Is(err, tenants.ErrNoSuchToken)
		})
		if _, known, _ := other.known.find(digestOf("marked-"+name), time.Now()); known {
			t.Errorf("%s would be good again if the store went away", name)
		}
	}
	var told []string
	for _, e := range w.entries(r, 100) {
		if strings.HasPrefix(e.Action, "token.") && e.Outcome == tenants.OutcomeDone {
			told = append(told, fmt.Sprint(e.Action, " ", e.Tenant, " ", e.Changes))
		}
	}
	if len(told) < 5 || !strings.Contains(strings.Join(told, "\n"), fmt.Sprintf(`token.revoke  [{tokens["%s"] {"name":"ops","scope":"operator"}`, ops.ID)) {
		t.Errorf("audit: %q", told)
	}
	w.canary(fmt.Sprint(w.entries(r, 100)))
	w.verified(r)
}

// TestRevocationWins: the store's answer that a token is good is not kept if the token was revoked while the answer was on its way.
func TestRevocationWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	made, err := r.AddToken(t.Context(), operator, tenants.Token{Name: "ops", Scope: tenants.ScopeOperator}, digestOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	conn := w.connect()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE postern.tokens SET revoked = now() WHERE id = $1`, made.ID); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	go func() {
		_, err := r.FindToken(t.Context(), digestOf("a"))
		found <- err
	}()
	watch := w.connect()
	harness.Eventually(t, harness.Patience, "the use of the token waits for its row", func() bool {
		var waiting int
		err := watch.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
		return err == nil && waiting > 0
	})
	r.known.revoked(digestOf("a")) // as RevokeToken does
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-found; err != nil && !errors.Is(err, tenants.ErrAway) { // which is what a request is told after 2 s
		t.Errorf("it was good when the store was asked: %v", err)
	}
	if _, known, _ := r.known.find(digestOf("a"), time.Now()); known {
		t.Error("the token is known to be good after it was revoked")
	}
}

// TestTokenUsesAreRare: not every use is written, nor asked of the store.
func TestTokenUsesAreRare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	if _, err := r.AddToken(t.Context(), operator, tenants.Token{Name: "ops", Scope: tenants.ScopeOperator}, digestOf("a")); err != nil {
		t.Fatal(err)
	}
	conn := w.connect()
	row := func() (where string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `SELECT concat(ctid, xmin, ' ', date_trunc('minute', now())) FROM postern.tokens`).Scan(&where); err != nil {
			t.Fatal(err)
		}
		return where
	}
	find := func() {
		t.Helper()
		if _, err := r.FindToken(t.Context(), digestOf("a")); err != nil {
			t.Fatal(err)
		}
	}
	find()
	before := row()
	for range 50 {
		find()
		r.known.invalid(digestOf("a")) // as if a second had passed
	}
	if after := row(); after != before && after[strings.Index(after, " "):] == before[strings.Index(before, " "):] {
		t.Errorf("the row was written: %s, %s", before, after)
	}
}

// TestKnownTokens: what the store has said holds for a second, for a minute while it is away, and never beyond the token's expiry.
func TestKnownTokens(t *testing.T) {
	var k knownTokens
	start := time.Unix(1_000_000, 0)
	a, b := digestOf("a"), digestOf("b")
	k.valid(a, tenants.Token{ID: "a"}, start, k.ended.Load())
	k.valid(b, tenants.Token{ID: "b", Expires: start.Add(500 * time.Millisecond)}, start, k.ended.Load())
	check := func(digest [32]byte, after time.Duration, known, ask bool) {
		t.Helper()
		if got, is, again := k.find(digest, start.Add(after)); is != known || again != ask || known == (got.ID == "") {
			t.Errorf("after %v: %+v, known %v, ask %v", after, got, is, again)
		}
	}
	check(digestOf("c"), 0, false, true)
	check(b, 499*time.Millisecond, true, false)
	check(b, 500*time.Millisecond, false, true)
	check(a, knownFresh-1, true, false)
	check(a, knownFresh, true, true)
	k.away(a, start.Add(knownFresh))
	check(a, 2*knownFresh-1, true, false)
	check(a, 2*knownFresh, true, true)
	k.away(a, start.Add(knownStale-1))
	check(a, knownStale-1, true, false)
	check(a, knownStale, false, true)
	k.valid(a, tenants.Token{ID: "a"}, start, k.ended.Load())
	asked := k.ended.Load()
	k.invalid(a)
	check(a, 0, false, true)
	k.valid(a, tenants.Token{ID: "a"}, start, asked) // which somebody else has asked at the same time
	check(a, 0, false, true)
	asked = k.ended.Load()
	k.invalid(digestOf("guessed"))
	k.valid(a, tenants.Token{ID: "a"}, start, asked)
	check(a, 0, true, false)
	k.revoked(a)
	k.away(a, start)
	check(a, 0, false, true)
	for i := range maxKnown + 10 {
		k.valid(digestOf(fmt.Sprint(i)), tenants.Token{ID: "x"}, start, k.ended.Load())
	}
	if n := len(k.byDigest); n > maxKnown {
		t.Errorf("%d are known", n)
	}
}
