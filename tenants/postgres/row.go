// Rows: what the database has of a tenant, read into one and written from one.

package postgres

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// row is a tenant in the database.
type row struct {
	ID       string          `json:"id"`
	Mark     int64           `json:"mark"`     // of its last change
	Document json.RawMessage `json:"document"` // nil: the tenant is not there any more
	Secrets  tenantSecrets   `json:"secrets"`
	Users    []userRow       `json:"users"`

	version int64 // of its last change
	at      time.Time
}

// tenantSecrets are those of a tenant itself, sealed; nil: none.
type tenantSecrets struct {
	ClientKey         []byte `json:"client_key"`
	AuthQueryPassword []byte `json:"auth_query_password,omitempty"`
	MachineToken      []byte `json:"machine_token,omitempty"`
	ServicePassword   []byte `json:"service_password,omitempty"`
}

type userRow struct {
	Name           string          `json:"name"`
	Document       json.RawMessage `json:"document"`
	Verifier       []byte          `json:"verifier"` // sealed, as the next two; nil: none
	Password       []byte          `json:"password"`
	ServerPassword []byte          `json:"server_password"`
}

// columns are those of a row, given postern.tenants as t and postern.changes as c. The users come as one value, and so do the
// tenant's own secrets: a tenant is one row of the result.
const columns = `coalesce(t.id, c.tenant), coalesce(c.version, 0), coalesce(c.mark, 0), coalesce(c.at, 'epoch'), t.document,
	jsonb_build_object('client_key', encode(t.client_key, 'base64'), 'auth_query_password', encode(t.auth_query_password, 'base64'),
		'machine_token', encode(t.machine_token, 'base64'), 'service_password', encode(t.service_password, 'base64')), coalesce((
	SELECT jsonb_agg(jsonb_build_object('name', u.name, 'document', u.document, 'verifier', encode(u.verifier, 'base64'),
		'password', encode(u.password, 'base64'), 'server_password', encode(u.server_password, 'base64')))
	FROM postern.users u WHERE u.tenant = t.id), '[]')`

// The ways to read rows.
const (
	selectAll   = `SELECT ` + columns + ` FROM postern.tenants t LEFT JOIN postern.changes c ON c.tenant = t.id`
	selectNewer = `SELECT ` + columns + ` FROM postern.changes c LEFT JOIN postern.tenants t ON t.id = c.tenant WHERE c.version > $1 ORDER BY c.version`
	selectThese = selectAll + ` WHERE t.id = ANY ($1)`
	selectPage  = selectAll + ` WHERE t.id > $1 ORDER BY t.id LIMIT $2` // ids are compared byte by byte, see the table
)

// sealed is where a tenant's own secret stands in its row.
func (s *tenantSecrets) sealed(field string) *[]byte {
	switch field {
	case "client_key":
		return &s.ClientKey
	case "auth_query_password":
		return &s.AuthQueryPassword
	case "machine_token":
		return &s.MachineToken
	case "service_password":
		return &s.ServicePassword
	}
	panic("BUG: no column for " + field)
}

// tenantColumns are those that have a tenant's own secrets.
func tenantColumns() []string {
	return []string{"client_key", "auth_query_password", "machine_token", "service_password"}
}

// tenantSecret is what a tenant's column seals; zero: nothing.
func tenantSecret(t *tenants.Tenant, column string) (secret tenants.Secret) {
	for _, s := range document.TenantSecrets() {
		if at := s.Of(t); s.Field == column && at != nil {
			secret = *at
		}
	}
	return secret
}

// sealed is where a user's secret stands in its row.
func (r *userRow) sealed(field string) *[]byte {
	switch field {
	case "verifier":
		return &r.Verifier
	case "password":
		return &r.Password
	case "server_password":
		return &r.ServerPassword
	}
	panic("BUG: no column for " + field)
}

func tenantPlace(tenant, field string) place {
	return place{table: "tenants", row: []string{tenant}, field: field}
}

func userPlace(tenant, user, field string) place {
	return place{table: "users", row: []string{tenant, user}, field: field}
}

// rowOf is what is written down of a tenant, its secrets sealed.
func rowOf(t *tenants.Tenant, mark int64, k *Keys) row {
	r := row{ID: t.ID, Mark: mark, Document: document.Encode(document.Of(t))}
	for _, column := range tenantColumns() {
		if text := tenantSecret(t, column); !text.IsZero() {
			*r.Secrets.sealed(column) = k.seal(tenantPlace(t.ID, column), []byte(text.Reveal()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Users)) {
		u := t.Users[name]
		ur := userRow{Name: name, Document: document.Encode(document.OfUser(u))}
		for _, s := range document.Secrets() {
			if text := *s.Of(u); !text.IsZero() {
				*ur.sealed(s.Field) = k.seal(userPlace(t.ID, name, s.Field), []byte(text.Reveal()))
			}
		}
		r.Users = append(r.Users, ur)
	}
	return r
}

// rowTenant is the reverse of rowOf. What it returns is complete, and not judged.
func rowTenant(r *document.Reader, in row, k *Keys) (*tenants.Tenant, error) {
	t, lost := readable(r, in, k)
	if lost != nil {
		return nil, lost
	}
	return t, nil
}

// readable is what can be read of a row, and why not all of it: of a document nothing or everything, of users those that can be read
// with their secrets.
func readable(r *document.Reader, in row, k *Keys) (t *tenants.Tenant, lost error) {
	t, lost = r.Tenant(in.ID, in.Document)
	if lost != nil {
		t = tenants.New(in.ID)
	}
	for _, s := range document.TenantSecrets() {
		sealed, secret := *in.Secrets.sealed(s.Field), s.Of(t)
		if len(sealed) == 0 || secret == nil {
			continue
		}
		text, err := k.open(tenantPlace(in.ID, s.Field), sealed)
		if err != nil {
			lost = cmp.Or(lost, fmt.Errorf("%s: %w", s.Path, err))
			continue
		}
		*secret = tenants.NewSecret(string(text))
	}
	for _, ur := range in.Users {
		u, err := rowUser(in.ID, ur, k)
		if err != nil {
			lost = cmp.Or(lost, fmt.Errorf("%s: %w", tenants.UserPath(ur.Name), err))
			continue
		}
		t.Users[ur.Name] = u
	}
	t.Complete()
	return t, lost
}

func rowUser(tenant string, ur userRow, k *Keys) (*tenants.User, error) {
	var d document.User
	if err := document.Decode(ur.Document, &d); err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	u := d.Make(ur.Name)
	for _, s := range document.Secrets() {
		sealed := *ur.sealed(s.Field)
		if len(sealed) == 0 {
			continue
		}
		text, err := k.open(userPlace(tenant, ur.Name, s.Field), sealed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Field, err)
		}
		*s.Of(u) = tenants.NewSecret(string(text))
	}
	return u, nil
}

// Judge says what is wrong with a tenant, beside what it is.
type Judge struct {
	Verifier func(string) error          // of a verifier's text; its errors must not repeat it
	Here     func(*tenants.Tenant) error // whether this process can have such a tenant
}

func (j Judge) judge(t *tenants.Tenant) tenants.Problems {
	all := tenants.Validate(t, j.Verifier)
	if j.Here != nil {
		if err := j.Here(t); err != nil {
			all = append(all, tenants.Problem{Message: err.Error()})
		}
	}
	return all
}

func byID(a, b *tenants.Tenant) int { return cmp.Compare(a.ID, b.ID) }
