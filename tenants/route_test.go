// Tests of routing.

package tenants

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestResolve(t *testing.T) {
	const domain = "db.example.com"
	for _, c := range []struct {
		name  string
		claim Claim
		want  Route
		err   error
	}{
		{"nobody", Claim{User: "app"}, Route{}, ErrNoTenant},
		{"nothing at all", Claim{}, Route{}, ErrNoTenant},
		{"user and tenant", Claim{User: "app.acme"}, Route{"acme", "app", "", false}, nil},
		{"after the last dot", Claim{User: "first.last.acme"}, Route{"acme", "first.last", "", false}, nil},
		{"a trailing dot names nobody", Claim{User: "app."}, Route{}, ErrNoTenant},
		{"a trailing dot stays part of the user", Claim{User: "app.", SNI: "acme." + domain, Domain: domain}, Route{"acme", "app.", "", false}, nil},
		{"an empty user", Claim{User: ".acme"}, Route{"acme", "", "", false}, nil},
		{"only a dot", Claim{User: "."}, Route{}, ErrNoTenant},
		{"no id at all", Claim{User: "app.No Such!"}, Route{"No Such!", "app", "", false}, nil},
		{"ids are not folded", Claim{User: "app.ACME"}, Route{"ACME", "app", "", false}, nil},

		{"reference", Claim{User: "app", Reference: "acme"}, Route{"acme", "app", "", false}, nil},
		{"reference and the user's own tenant", Claim{User: "app.acme", Reference: "acme"}, Route{"acme", "app", "", false}, nil},
		{"only one is cut", Claim{User: "app.acme.acme", Reference: "acme"}, Route{"acme", "app.acme", "", false}, nil},
		{"reference and a dotted user", Claim{User: "first.last", Reference: "acme"}, Route{"acme", "first.last", "", false}, nil},
		{"reference beside a suffix without its dot", Claim{User: "appacme", Reference: "acme"}, Route{"acme", "appacme", "", false}, nil},
		{"two references", Claim{User: "app.acme", Reference: "acme", ReferenceConflict: true}, Route{}, ErrConflict},

		{"SNI", Claim{User: "app", SNI: "acme." + domain, Domain: domain}, Route{"acme", "app", "", false}, nil},
		{"SNI in capitals, with final dots", Claim{User: "app", SNI: "ACME.DB.example.COM.", Domain: "Db.Example.com."}, Route{"acme", "app", "", false}, nil},
		{"SNI two labels below", Claim{User: "app", SNI: "x.acme." + domain, Domain: domain}, Route{}, ErrNoTenant},
		{"SNI is the domain", Claim{User: "app", SNI: domain, Domain: domain}, Route{}, ErrNoTenant},
		{"SNI is a dot and the domain", Claim{User: "app", SNI: "." + domain, Domain: domain}, Route{}, ErrNoTenant},
		{"SNI elsewhere", Claim{User: "app", SNI: "acme.other.com", Domain: domain}, Route{}, ErrNoTenant},
		{"SNI that only ends alike", Claim{User: "app", SNI: "acme.evildb.example.com", Domain: domain}, Route{}, ErrNoTenant},
		{"SNI without a domain", Claim{User: "app", SNI: "acme"}, Route{}, ErrNoTenant},
		{"SNI with the root as domain", Claim{User: "app", SNI: "acme.", Domain: "."}, Route{}, ErrNoTenant},
		{"SNI elsewhere and a user's tenant", Claim{User: "app.acme", SNI: "pooler.other.com", Domain: domain}, Route{"acme", "app", "", false}, nil},
		{"the Kelvin sign is no k", Claim{User: "app", SNI: "\u212aelvin." + domain, Domain: domain}, Route{"\u212aelvin", "app", "", false}, nil},

		{"user and SNI agree", Claim{User: "app.acme", SNI: "acme." + domain, Domain: domain}, Route{"acme", "app", "", false}, nil},
		{"user and SNI differ", Claim{User: "app.acme", SNI: "globex." + domain, Domain: domain}, Route{}, ErrConflict},
		{"reference and SNI agree", Claim{User: "first.last", Reference: "acme", SNI: "acme." + domain, Domain: domain}, Route{"acme", "first.last", "", false}, nil},
		{"reference and SNI differ", Claim{User: "app", Reference: "acme", SNI: "globex." + domain, Domain: domain}, Route{}, ErrConflict},

		{"Flycast", Claim{User: "app", Flycast: "acme"}, Route{"acme", "app", "", false}, nil},
		{"Flycast and the user agree", Claim{User: "app.acme", Flycast: "acme"}, Route{"acme", "app", "", false}, nil},
		{"Flycast and the user differ", Claim{User: "app.acme", Flycast: "globex"}, Route{}, ErrConflict},
		{"Flycast and reference differ", Claim{User: "app", Reference: "acme", Flycast: "globex"}, Route{}, ErrConflict},
		{"Flycast and SNI agree", Claim{User: "app", SNI: "acme." + domain, Domain: domain, Flycast: "acme"}, Route{"acme", "app", "", false}, nil},
		{"Flycast and SNI differ", Claim{User: "app", SNI: "acme." + domain, Domain: domain, Flycast: "globex"}, Route{}, ErrConflict},

		{"database", Claim{User: "app.acme", Database: "sales"}, Route{"acme", "app", "sales", false}, nil},
		{"database as libpq fills it in", Claim{User: "app.acme", Database: "app.acme"}, Route{"acme", "app", "app.acme", true}, nil},
		{"database called as the user is there", Claim{User: "app.acme", Database: "app"}, Route{"acme", "app", "app", false}, nil},
		{"database as libpq fills it in, by reference", Claim{User: "app", Reference: "acme", Database: "app"}, Route{"acme", "app", "app", true}, nil},
	} {
		got, err := Resolve(c.claim)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: Resolve(%+v) = %+v, %v; want %+v, %v", c.name, c.claim, got, err, c.want, c.err)
		}
	}
}

// TestDatabaseOf: what libpq fills in is what the tenant has by default, unless it lists just that.
func TestDatabaseOf(t *testing.T) {
	const domain = "db.example.com"
	bySuffix := Claim{User: "app.acme"}
	byReference := Claim{User: "app", Reference: "acme"}
	both := Claim{User: "app.acme", Reference: "acme"}
	bySNI := Claim{User: "app", SNI: "acme." + domain, Domain: domain}
	for _, c := range []struct {
		claim     Claim
		says      string
		databases []string // that the tenant lists
		want      string
	}{
		{bySuffix, "", nil, "main"},
		{bySuffix, "app.acme", nil, "main"}, // filled in
		{bySuffix, "app", nil, "app"},
		{bySuffix, "sales", nil, "sales"},
		{bySuffix, "app", []string{"main", "app"}, "app"},
		{bySuffix, "app.acme", []string{"main", "app"}, "main"},
		{bySuffix, "app.acme", []string{"main", "app.acme"}, "app.acme"}, // listed: meant
		{bySuffix, "sales", []string{"main"}, "sales"},                   // which is refused elsewhere
		{byReference, "", nil, "main"},
		{byReference, "app", nil, "main"}, // filled in
		{byReference, "app", []string{"main"}, "main"},
		{byReference, "app", []string{"main", "app"}, "app"},
		{byReference, "App", nil, "App"},
		{byReference, "", []string{"main", "app"}, "main"},
		{bySNI, "app", nil, "main"},
		{bySNI, "app", []string{"main", "app"}, "app"},
		{bySNI, "sales", []string{"main", "sales"}, "sales"},
		{both, "app", nil, "app"},
		{both, "app", []string{"main", "app"}, "app"},
		{both, "app.acme", []string{"main", "app"}, "main"},
	} {
		c.claim.Database = c.says
		route, err := Resolve(c.claim)
		if err != nil {
			t.Fatal(err)
		}
		tenant := &Tenant{ID: "acme", Database: "main", Databases: c.databases}
		if got := tenant.DatabaseOf(route); got != c.want {
			t.Errorf("%+v, listed %v: %q, want %q", c.claim, c.databases, got, c.want)
		}
	}
}

// TestResolveInventsNothing: the tenant is what some source named, and no source that was given its say named another.
func TestResolveInventsNothing(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "b", "acme", "globex", "A", ".", "a.b", "ACME", "é"})
	rapid.Check(t, func(t *rapid.T) {
		c := Claim{
			User:      strings.Join(rapid.SliceOfN(word, 1, 3).Draw(t, "user"), "."),
			Database:  word.Draw(t, "database"),
			Reference: word.Draw(t, "reference"),
			Domain:    rapid.SampledFrom([]string{"", "d.test", "D.test."}).Draw(t, "domain"),
		}
		label := word.Draw(t, "label")
		c.Flycast = rapid.SampledFrom([]string{"", "", "acme", "globex"}).Draw(t, "flycast")
		c.SNI = label + rapid.SampledFrom([]string{"", ".d.test", ".D.TEST.", ".other.test"}).Draw(t, "sni")

		var named []string
		if c.Reference != "" {
			named = append(named, c.Reference)
		} else if i := strings.LastIndex(c.User, "."); i >= 0 && i+1 < len(c.User) {
			named = append(named, c.User[i+1:])
		}
		below := strings.HasSuffix(strings.ToLower(c.SNI), ".d.test") || strings.HasSuffix(strings.ToLower(c.SNI), ".d.test.")
		if c.Domain != "" && below && label != "" && !strings.Contains(label, ".") {
			named = append(named, strings.ToLower(label))
		}
		if c.Flycast != "" {
			named = append(named, c.Flycast)
		}
		differ := slices.ContainsFunc(named, func(n string) bool { return n != named[0] })

		r, err := Resolve(c)
		switch {
		case err == nil:
			if differ || !slices.Contains(named, r.Tenant) {
				t.Fatalf("%+v: tenant %q, but named were %q", c, r.Tenant, named)
			}
			if r.User != c.User && r.User+"."+r.Tenant != c.User {
				t.Fatalf("%+v: user %q", c, r.User)
			}
			if r.Database != c.Database || r.Filled != (c.Database == c.User) {
				t.Fatalf("%+v: database %q, filled in: %v", c, r.Database, r.Filled)
			}
		case errors.Is(err, ErrNoTenant):
			if len(named) > 0 {
				t.Fatalf("%+v: no tenant, but named were %q", c, named)
			}
		case errors.Is(err, ErrConflict):
			if !differ {
				t.Fatalf("%+v: conflict among %q", c, named)
			}
		default:
			t.Fatal(err)
		}
	})
}
