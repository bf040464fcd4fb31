// What else Supabase's clients know of a project: whether TLS is enforced, and its pooler.

package admin

import (
	"cmp"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/postern/postern/tenants"
)

// database says something of the one database that a project has.
type database struct {
	Database bool `json:"database"`
}

// enforcement says whether TLS is enforced.
type enforcement struct {
	Config  database `json:"currentConfig"`
	Applied bool     `json:"appliedSuccessfully"` // in force on every node
}

// project reads the tenant that the path names, for a request without parameters.
func (s *Server) project(r *http.Request) (tenants.Record, error) {
	if _, err := query(r); err != nil {
		return tenants.Record{}, err
	}
	return s.record(r)
}

func (s *Server) getEnforcement(w http.ResponseWriter, r *http.Request) {
	rec, err := s.project(r)
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	reply(w, http.StatusOK, enforcement{database{rec.Tenant.RequireTLS}, s.standing(r, rec, 0).everywhere})
}

func (s *Server) putEnforcement(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Config *struct {
			Database *bool `json:"database"`
		} `json:"requestedConfig"`
	}
	rec, err := tenants.Record{}, onlyBody(r, &body)
	if err == nil && (body.Config == nil || body.Config.Database == nil) {
		err = bad("requestedConfig.database is missing: true or false")
	}
	if err == nil {
		rec, err = s.commit(r, existing(enforceTLS(*body.Config.Database)))
	}
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	reply(w, http.StatusOK, enforcement{database{rec.Tenant.RequireTLS}, s.standing(r, rec, appliedWait).everywhere})
}

// enforceTLS is an edit.
func enforceTLS(is bool) edit {
	return func(old *tenants.Tenant) (*tenants.Tenant, error) {
		t := *old
		t.RequireTLS = is
		return &t, nil
	}
}

// poolerView is how a project's pooler is reached and set.
type poolerView struct {
	Identifier string `json:"identifier"`
	Type       string `json:"database_type"`
	SCRAM      bool   `json:"is_using_scram_auth"`
	User       string `json:"db_user"`
	Host       string `json:"db_host"`
	Port       int    `json:"db_port"`
	Name       string `json:"db_name"`
	Connect    string `json:"connection_string"`
	ConnectToo string `json:"connectionString"` // its older name
	Size       int    `json:"default_pool_size"`
	MaxClients int    `json:"max_client_conn"`
	Mode       string `json:"pool_mode"`
}

// What stands in a connection string for what it does not tell.
const (
	noPassword = "[YOUR-PASSWORD]"
	noUser     = "[YOUR-USER]"
)

func (s *Server) getPooler(w http.ResponseWriter, r *http.Request) {
	rec, err := s.project(r)
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	reply(w, http.StatusOK, []poolerView{s.pooler(r, rec.Tenant)})
}

// pooler describes a tenant's way in: by the listener whose mode is the tenant's or, if it has none of its own, by the one for
// transactions or, if there is none, by the first.
func (s *Server) pooler(r *http.Request, t *tenants.Tenant) poolerView {
	way := s.wayIn(t.Pool.Mode)
	v := poolerView{Identifier: t.ID, Type: "PRIMARY", SCRAM: true, User: noUser, Host: s.hostFor(r, t.ID), Port: way.Port, Name: t.Database,
		Size: t.Pool.Size, MaxClients: t.Pool.MaxClients, Mode: cmp.Or(t.Pool.Mode, way.Mode)}
	if names := slices.Sorted(maps.Keys(t.Users)); slices.Contains(names, "postgres") {
		v.User = "postgres"
	} else if len(names) > 0 {
		v.User = names[0]
	}
	at := net.JoinHostPort(v.Host, strconv.Itoa(v.Port))
	user := v.User
	if user != noUser {
		user = url.User(user).String()
	}
	v.Connect = "postgresql://" + user + "." + t.ID + ":" + noPassword + "@" + at + "/" + url.PathEscape(t.Database)
	v.ConnectToo = v.Connect
	return v
}

// wayIn is the listener through which clients of a pool mode ("": any) should come.
func (s *Server) wayIn(mode string) WayIn {
	ways := s.opts.Ways()
	for _, want := range []string{mode, "transaction"} {
		if i := slices.IndexFunc(ways, func(w WayIn) bool { return w.Mode == want }); i >= 0 {
			return ways[i]
		}
	}
	if len(ways) > 0 {
		return ways[0]
	}
	return usualWay()
}

// usualWay is that of a Postgres server.
func usualWay() WayIn { return WayIn{"transaction", 5432} }

// hostFor is the name by which a tenant's clients should call us: its own below the domain of tenants, or that by which the asker
// has called us.
func (s *Server) hostFor(r *http.Request, tenant string) string {
	if s.opts.TenantDomain != "" {
		return tenant + "." + s.opts.TenantDomain
	}
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return strings.Trim(r.Host, "[]") // an IPv6 address without a port has them
}

// poolNumbers are what Supabase's clients can change of a pooler; nil is not given.
type poolNumbers struct {
	Size *int    `json:"default_pool_size"`
	Mode *string `json:"pool_mode"`
}

func (s *Server) patchPooler(w http.ResponseWriter, r *http.Request) {
	var body poolNumbers
	rec, err := tenants.Record{}, onlyBody(r, &body)
	if err == nil {
		rec, err = s.commit(r, existing(setPool(body)))
	}
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	mode := cmp.Or(rec.Tenant.Pool.Mode, s.wayIn("").Mode)
	reply(w, http.StatusOK, poolNumbers{&rec.Tenant.Pool.Size, &mode})
}

// setPool is an edit of what is given.
func setPool(p poolNumbers) edit {
	return func(old *tenants.Tenant) (*tenants.Tenant, error) {
		t := *old
		if p.Size != nil {
			t.Pool.Size = *p.Size
		}
		if p.Mode != nil {
			t.Pool.Mode = *p.Mode
		}
		return &t, nil
	}
}
