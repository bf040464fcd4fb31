// Package document is the form in which tenants and their users are written down: JSON with the keys of the tenants file, and
// without secrets. Stores keep it, and the admin API speaks it. It is pure.
package document

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"time"
	"unique"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// Tenant is a tenant's document. What is absent is what it is in a tenants file without the key.
type Tenant struct {
	Upstream       *upstream                            `json:"upstream,omitempty"`
	Machine        *machine                             `json:"machine,omitempty"`
	Database       string                               `json:"database"`
	Databases      []string                             `json:"databases,omitempty"`
	AllowList      *[]rule                              `json:"allow_list,omitempty"`
	Restrictions   tenants.Restrictions                 `json:"restrictions_mode"`
	Flycast        string                               `json:"flycast,omitempty"`
	NeverBan       []string                             `json:"never_ban,omitempty"`
	ConnectionRate int                                  `json:"connection_rate,omitempty"`
	RequireTLS     bool                                 `json:"require_tls"`
	ClientCA       string                               `json:"client_ca,omitempty"` // the certificates themselves, in PEM
	ClientCert     tenants.ClientCert                   `json:"client_cert,omitempty"`
	Pool           pool                                 `json:"pool"`
	Caps           caps                                 `json:"caps,omitzero"`
	Timeouts       timeouts                             `json:"timeouts,omitzero"`
	ClientAddress  tenants.ClientAddress                `json:"client_address"`
	State          map[tenants.StateKind]tenants.Policy `json:"state"`
	ResetAlways    bool                                 `json:"server_reset_always"`
	AuthQuery      *authQuery                           `json:"auth_query,omitempty"`
	Paused         bool                                 `json:"paused,omitempty"`
	Disabled       bool                                 `json:"disabled,omitempty"`
	Service        *service                             `json:"service,omitempty"`
	Residency      residency                            `json:"residency,omitzero"`
}

type authQuery struct {
	User     string `json:"user"`
	Database string `json:"database,omitempty"`
}

type residency struct {
	Ingress []string `json:"ingress,omitempty"`
}

type service struct {
	User string `json:"user"`
}

type upstream struct {
	Host       string          `json:"host"`
	Port       uint16          `json:"port,omitempty"`
	TLS        tenants.TLSMode `json:"tls,omitempty"`
	CA         string          `json:"ca,omitempty"` // the certificates themselves, in PEM
	ServerName string          `json:"server_name,omitempty"`
	ClientCert string          `json:"client_cert,omitempty"` // likewise
}

type machine struct {
	Provider     tenants.Provider `json:"provider"`
	App          string           `json:"app,omitempty"`
	ID           string           `json:"id,omitempty"`
	Name         string           `json:"name,omitempty"`
	Port         uint16           `json:"port,omitempty"`
	TLS          tenants.TLSMode  `json:"tls,omitempty"`
	CA           string           `json:"ca,omitempty"`
	ServerName   string           `json:"server_name,omitempty"`
	ClientCert   string           `json:"client_cert,omitempty"`
	SuspendAfter *duration        `json:"suspend_after,omitempty"`
	Wake         tenants.WakeOn   `json:"wake,omitempty"`
	Sleep        tenants.Sleep    `json:"sleep,omitempty"`
}

type pool struct {
	Size               int      `json:"size"`
	Min                int      `json:"min,omitempty"`
	Reserve            int      `json:"reserve,omitempty"`
	ReserveAfter       duration `json:"reserve_after"`
	MaxClients         int      `json:"max_clients"`
	MaxServers         int      `json:"max_servers"`
	MaxDatabaseClients int      `json:"max_database_clients,omitempty"`
	MaxDatabaseServers int      `json:"max_database_servers,omitempty"`
	PerNode            bool     `json:"per_node,omitempty"`
	Mode               string   `json:"mode,omitempty"`
}

type caps struct {
	Size               int `json:"size,omitempty"`
	MaxClients         int `json:"max_clients,omitempty"`
	MaxServers         int `json:"max_servers,omitempty"`
	MaxDatabaseClients int `json:"max_database_clients,omitempty"`
	MaxDatabaseServers int `json:"max_database_servers,omitempty"`
}

type timeouts struct {
	Query           *duration `json:"query,omitempty"`
	Transaction     *duration `json:"transaction,omitempty"`
	IdleTransaction *duration `json:"idle_transaction,omitempty"`
	ClientIdle      *duration `json:"client_idle,omitempty"`
	QueryWait       *duration `json:"query_wait,omitempty"`
	ServerIdle      *duration `json:"server_idle,omitempty"`
	ServerLifetime  *duration `json:"server_lifetime,omitempty"`
}

// User is a user's document.
type User struct {
	PoolSize   int      `json:"pool_size,omitempty"`
	MaxClients int      `json:"max_clients,omitempty"`
	MaxServers int      `json:"max_servers,omitempty"`
	Timeouts   timeouts `json:"timeouts,omitzero"`
	Upstream   login    `json:"upstream,omitzero"`
}

type login struct {
	User string             `json:"user,omitempty"`
	Auth tenants.ServerAuth `json:"auth,omitempty"`
}

// duration is a time with its unit: "30s".
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	n, err := time.ParseDuration(string(b))
	if err != nil {
		return errors.New("must be a duration with its unit, such as 30s or 5m")
	}
	*d = duration(n)
	return nil
}

// Decode reads strictly: an unknown key is an error, one in another case among them, and so is null, which is not the same as absent to
// everybody.
func Decode(text []byte, into any) error {
	if bytes.Contains(text, []byte("null")) { // which may be text: it is rare enough to look closely
		if err := refuseNull(text); err != nil {
			return err
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	return exactKeys(text[:d.InputOffset()])
}

func refuseNull(text []byte) error {
	for tokens := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := tokens.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if token == nil {
			return errors.New("null means nothing: leave the key out")
		}
	}
}

// Encode writes what Decode reads.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error()) // there is nothing in a document that could fail
	}
	return b
}

// Of is what is written down of a tenant, less its users.
func Of(t *tenants.Tenant) Tenant {
	d := Tenant{Database: t.Database, Databases: t.Databases, RequireTLS: t.RequireTLS, ClientAddress: t.ClientAddress, State: t.State,
		ClientCA: t.ClientCAPEM, ClientCert: t.ClientCert, ResetAlways: t.ResetAlways, Timeouts: timeoutsOf(t.Timeouts), Restrictions: t.Restrictions}
	if t.Flycast.IsValid() {
		d.Flycast = t.Flycast.String()
	}
	if q := t.AuthQuery; q != nil {
		d.AuthQuery = &authQuery{User: q.User, Database: q.Database}
	}
	if s := t.Service; s != nil {
		d.Service = &service{User: s.User}
	}
	d.Residency.Ingress = t.Residency.Ingress
	p := t.Pool
	d.Pool = pool{p.Size, p.Min, p.Reserve, duration(p.ReserveAfter), p.MaxClients, p.MaxServers, p.MaxDatabaseClients, p.MaxDatabaseServers, p.PerNode, p.Mode}
	d.Caps = caps(t.Caps)
	u := t.Upstream
	if m := t.Machine; m != nil {
		d.Machine = &machine{m.Provider, m.App, m.ID, m.Name, u.Port, u.TLS, u.RootPEM, u.ServerName, u.ClientCert, new(duration(m.SuspendAfter)), m.Wake, m.Sleep}
	} else {
		d.Upstream = &upstream{u.Host, u.Port, u.TLS, u.RootPEM, u.ServerName, u.ClientCert}
	}
	if t.Allow != nil {
		list := []rule{}
		for _, r := range t.Allow.Rules() {
			list = append(list, ruleOf(r))
		}
		d.AllowList = &list
	}
	d.ConnectionRate, d.Paused, d.Disabled = t.ConnectionRate, t.Paused, t.Disabled
	if len(t.NeverBan) > 0 {
		d.NeverBan = textsOf(t.NeverBan)
	}
	return d
}

func textsOf(networks []netip.Prefix) []string {
	list := []string{}
	for _, p := range networks {
		list = append(list, p.String())
	}
	return list
}

func timeoutsOf(t tenants.Timeouts) timeouts {
	of := func(d *time.Duration) *duration { return (*duration)(d) }
	return timeouts{of(t.Query), of(t.Transaction), of(t.IdleTransaction), of(t.ClientIdle), of(t.QueryWait), of(t.ServerIdle), of(t.ServerLifetime)}
}

func (t timeouts) timeouts() tenants.Timeouts {
	of := func(d *duration) *time.Duration { return (*time.Duration)(d) }
	return tenants.Timeouts{Query: of(t.Query), Transaction: of(t.Transaction), IdleTransaction: of(t.IdleTransaction), ClientIdle: of(t.ClientIdle),
		QueryWait: of(t.QueryWait), ServerIdle: of(t.ServerIdle), ServerLifetime: of(t.ServerLifetime)}
}

// OfUser is what is written down of a user.
func OfUser(u *tenants.User) User {
	d := User{PoolSize: u.PoolSize, MaxClients: u.MaxClients, MaxServers: u.MaxServers, Timeouts: timeoutsOf(u.Timeouts), Upstream: login{Auth: u.ServerAuth}}
	if u.ServerUser != u.Name {
		d.Upstream.User = u.ServerUser
	}
	return d
}

// Reader makes tenants of documents; the zero value is ready, and for one goroutine. What many have alike they share: certificates, and what is done about session state.
type Reader struct {
	roots map[string]*x509.CertPool
	state map[tenants.StateKind]tenants.Policy // of who says nothing about it
}

// Tenant is the reverse of [Of]. What it returns has no users yet, and is not complete: see [tenants.Tenant.Complete]. What is wrong
// with a value is a [tenants.Problem].
func (r *Reader) Tenant(id string, text []byte) (*tenants.Tenant, error) {
	t := tenants.New(id)
	d := Of(t) // the defaults, which the text is laid over
	d.Upstream, d.Machine = nil, nil
	if err := Decode(text, &d); err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	t.Database, t.Databases, t.RequireTLS, t.ClientAddress, t.State, t.ResetAlways = d.Database, d.Databases, d.RequireTLS, d.ClientAddress, d.State, d.ResetAlways
	t.Restrictions = d.Restrictions
	if len(t.Databases) == 0 {
		t.Databases = nil // which is the same, in one form
	}
	if r.state == nil {
		r.state = tenants.New("").State
	}
	if maps.Equal(t.State, r.state) {
		t.State = r.state
	}
	t.Timeouts = d.Timeouts.timeouts()
	if q := d.AuthQuery; q != nil {
		t.AuthQuery = &tenants.AuthQuery{User: q.User, Database: q.Database}
	}
	if s := d.Service; s != nil {
		t.Service = &tenants.Service{User: s.User}
	}
	if t.Residency.Ingress = d.Residency.Ingress; t.Residency.Ingress != nil && len(t.Residency.Ingress) == 0 { // which is not everywhere
		return nil, tenants.Problem{Path: "residency.ingress", Message: "must name a region: leave residency out for all"}
	}
	p := d.Pool
	t.Pool = tenants.Pool{Size: p.Size, Min: p.Min, Reserve: p.Reserve, ReserveAfter: time.Duration(p.ReserveAfter), MaxClients: p.MaxClients,
		MaxServers: p.MaxServers, MaxDatabaseClients: p.MaxDatabaseClients, MaxDatabaseServers: p.MaxDatabaseServers, PerNode: p.PerNode, Mode: p.Mode}
	t.Caps = tenants.Caps(d.Caps)
	t.ClientCert = d.ClientCert
	var err error
	if t.ClientCAs, t.ClientCAPEM, err = r.certificates(d.ClientCA); err != nil {
		return nil, tenants.Problem{Path: "client_ca", Message: err.Error()}
	}
	var ca, chain string
	switch u, m := d.Upstream, d.Machine; {
	case u != nil && m != nil:
		return nil, tenants.Problem{Path: "machine", Message: "a tenant has either an upstream or a machine, not both"}
	case u != nil:
		t.Upstream, ca, chain = tenants.Upstream{Host: u.Host, Port: u.Port, TLS: u.TLS, ServerName: u.ServerName}, u.CA, u.ClientCert
		if *u == (upstream{}) {
			return nil, tenants.Problem{Path: "upstream.host", Message: "host is missing"}
		}
	case m != nil:
		t.Upstream, ca, chain = tenants.Upstream{Port: m.Port, TLS: m.TLS, ServerName: m.ServerName}, m.CA, m.ClientCert
		t.Machine = &tenants.Machine{Provider: m.Provider, App: m.App, ID: m.ID, Name: m.Name, SuspendAfter: tenants.DefaultSuspendAfter, Wake: m.Wake, Sleep: m.Sleep}
		if m.SuspendAfter != nil {
			t.Machine.SuspendAfter = time.Duration(*m.SuspendAfter)
		}
	}
	at := serverKey(d)
	if t.Upstream.RootCAs, t.Upstream.RootPEM, err = r.certificates(ca); err != nil {
		return nil, tenants.Problem{Path: at + ".ca", Message: err.Error()}
	}
	if chain != "" {
		if t.Upstream.ClientCert, err = tenants.ParseChain([]byte(chain)); err != nil {
			return nil, tenants.Problem{Path: at + ".client_cert", Message: err.Error()}
		}
	}
	if d.AllowList != nil {
		if t.Allow, err = allowList(*d.AllowList); err != nil {
			return nil, err
		}
	}
	if d.Flycast != "" {
		if t.Flycast, err = netrestrict.ParseFlycast(d.Flycast); err != nil {
			return nil, tenants.Problem{Path: "flycast", Message: err.Error()}
		}
	}
	t.ConnectionRate, t.Paused, t.Disabled = d.ConnectionRate, d.Paused, d.Disabled
	if len(d.NeverBan) > 0 {
		if t.NeverBan, err = networks(d.NeverBan); err != nil {
			return nil, tenants.Problem{Path: "never_ban", Message: err.Error()}
		}
	}
	return t, nil
}

// serverKey is the key that says where the server is.
func serverKey(d Tenant) string {
	if d.Machine != nil {
		return "machine"
	}
	return "upstream"
}

// certificates reads trusted ones, and returns one copy of the text for all; of no text there are none.
func (r *Reader) certificates(text string) (*x509.CertPool, string, error) {
	if text == "" {
		return nil, "", nil
	}
	kept := unique.Make(text).Value()
	if pool := r.roots[text]; pool != nil {
		return pool, kept, nil
	}
	pool, err := tenants.ParseRoots([]byte(text))
	if err != nil {
		return nil, "", err
	}
	if r.roots == nil || len(r.roots) >= maxRoots { // of those that nobody uses any more, too
		r.roots = make(map[string]*x509.CertPool)
	}
	r.roots[kept] = pool
	return pool, kept, nil
}

const maxRoots = 1000

func networks(texts []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		p, err := netrestrict.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// Make is the reverse of [OfUser], without secrets.
func (d User) Make(name string) *tenants.User {
	return &tenants.User{Name: name, PoolSize: d.PoolSize, MaxClients: d.MaxClients, MaxServers: d.MaxServers, Timeouts: d.Timeouts.timeouts(),
		ServerUser: d.Upstream.User, ServerAuth: d.Upstream.Auth}
}
