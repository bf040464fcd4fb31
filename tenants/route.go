// Which tenant a client means.

package tenants

import (
	"errors"
	"strings"
)

// What Resolve refuses. Both concern only what the client itself said, and tell nothing about which tenants exist.
var (
	ErrNoTenant = errors.New("no tenant named")
	ErrConflict = errors.New("different tenants named")
)

// Claim is what a connecting client said about whom it wants to reach. None of it is proven.
type Claim struct {
	User, Database    string // as in the startup message; Database is "" if absent
	Reference         string // the tenant that the startup options name; "": none
	ReferenceConflict bool   // the startup options name two different ones
	SNI               string // the TLS client's server name; "": none
	Domain            string // our tls.tenant_domain; "": SNI names nobody
	Flycast           string // the tenant that the PROXY header's destination names, see [Directory.Flycast]; "": none
}

// Route is who the client says it is. Whether there is such a tenant or user remains to be looked up.
type Route struct {
	Tenant   string
	User     string
	Database string // "": not named
	// Filled says that Database is the user as the client wrote it: libpq, which always sends a database, fills that in where
	// none was named. See Tenant.DatabaseOf.
	Filled bool
}

// Resolve finds the tenant, in this order:
//
//  1. Claim.Reference. The user is then taken as it is, less a trailing ".<tenant>": a dot in it names nobody.
//  2. The user's part after its last dot: "app.acme" is user "app" of tenant "acme". A trailing dot names nobody.
//  3. SNI, if it is exactly one label below Domain, in whatever case and with or without a final dot.
//  4. Claim.Flycast.
//
// Sources that name different tenants are ErrConflict, none is ErrNoTenant.
//
// Nothing else is judged here. A tenant's name that cannot be an id is returned as it is: the look-up fails and the
// client gets the same answer as for one that is well-formed and unknown. So is an empty user, which ".acme" leaves:
// no tenant has one, so that it fails like any unknown user.
func Resolve(c Claim) (Route, error) {
	if c.ReferenceConflict {
		return Route{}, ErrConflict
	}
	r := Route{User: c.User, Database: c.Database, Filled: c.Database == c.User}
	if c.Reference != "" {
		r.Tenant = c.Reference
		r.User = strings.TrimSuffix(c.User, "."+c.Reference)
	} else if dot := strings.LastIndexByte(c.User, '.'); dot >= 0 && dot+1 < len(c.User) {
		r.User, r.Tenant = c.User[:dot], c.User[dot+1:]
	}
	for _, named := range []string{sniTenant(c.SNI, c.Domain), c.Flycast} {
		if named == "" {
			continue
		}
		if r.Tenant != "" && r.Tenant != named {
			return Route{}, ErrConflict
		}
		r.Tenant = named
	}
	if r.Tenant == "" {
		return Route{}, ErrNoTenant
	}
	return r, nil
}

// sniTenant returns the label of a name directly below domain, in lower case as ids are; "" for every other name.
func sniTenant(sni, domain string) string {
	sni, domain = hostName(sni), hostName(domain)
	if domain == "" {
		return ""
	}
	label, ok := strings.CutSuffix(sni, "."+domain)
	if !ok || strings.Contains(label, ".") {
		return ""
	}
	return label
}

// hostName spells a DNS name in one way. Only ASCII letters change: Unicode's lower case has other letters (the Kelvin
// sign's is k) that would let a name match one that it is not.
func hostName(s string) string {
	b := []byte(strings.TrimSuffix(s, "."))
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
