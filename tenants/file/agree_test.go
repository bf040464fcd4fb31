// The rules of tenants and the file agree: what the one accepts, the other reads, and it is the same.

package file

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// draw is where values come from. A sound one takes the first of each few, which are good together.
type draw struct {
	*rapid.T
	sound     bool
	cert, key string
	roots     *x509.CertPool // of cert
}

// drawTenant draws a tenant, mostly of good values. What a file cannot say is left out: a key that is there has no empty text,
// and no 0 where that means "not said".
func drawTenant(r draw) *tenants.Tenant {
	t := tenants.New(pick(r, "id", "a", "b-1", "7", "Bad"))
	if rapid.Bool().Draw(r.T, "machine") {
		t.Machine = &tenants.Machine{Provider: pick(r, "provider", tenants.ProviderFly, tenants.ProviderLocal),
			SuspendAfter: pick(r, "suspend", 0, time.Second, time.Hour, time.Millisecond), Wake: pick(r, "wake", tenants.WakeOnConnect, tenants.WakeOnQuery, "never"),
			Sleep: pick(r, "sleep", tenants.SleepStop, tenants.SleepSuspend)}
		if t.Machine.Provider == tenants.ProviderFly {
			t.Machine.App, t.Machine.ID, t.Upstream.ServerName = pick(r, "app", "app", "a-1", "-a"), pick(r, "machine id", "1", "ab"), pick(r, "server name", "s", "x.y")
			t.Machine.Token = tenants.NewSecret(pick(r, "token", "", "fm2_a,fm2_b", "FlyV1 fm2_a", "a b"))
		} else {
			t.Machine.Name, t.Upstream.TLS = pick(r, "name", "m", "m_1", "M"), tenants.TLSDisable
		}
	} else {
		t.Upstream = tenants.Upstream{Host: pick(r, "host", "h", "10.0.0.1", "::1", "[::1]", "h:1"), Port: pick[uint16](r, "port", 5432, 1, 65535),
			TLS: pick(r, "tls", tenants.TLSVerifyFull, tenants.TLSDisable, tenants.TLSRequire, "prefer"), ServerName: pick(r, "server name", "", "", "s")}
	}
	if rapid.Bool().Draw(r.T, "client ca") {
		t.ClientCAs, t.ClientCAPEM = r.roots, r.cert
		t.ClientCert = pick(r, "client cert", "", tenants.CertVerifyCA, tenants.CertInstead, "always")
	} else {
		t.ClientCert = pick(r, "client cert", "", tenants.CertVerifyCA)
	}
	if t.Upstream.TLS != tenants.TLSDisable && rapid.Bool().Draw(r.T, "key pair") || pick(r, "key pair", false, true) {
		t.Upstream.ClientCert, t.Upstream.ClientKey = pick(r, "its certificate", r.cert, ""), tenants.NewSecret(pick(r, "its key", r.key, "", "bad"))
	}
	t.Database = pick(r, "database", "postgres", "app", "a\x00")
	t.Databases = rapid.SliceOfN(rapid.SampledFrom([]string{"postgres", "app", "x y", "ü"}), 0, 3).Draw(r.T, "databases")
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"u", "U", "o'brien", "a.b", "x\"]", "null", "7"}), rapid.ID).Draw(r.T, "users") {
		t.Users[name] = drawUser(r, name)
	}
	t.Restrictions = pick(r, "restrictions", tenants.RestrictionsEnforce, tenants.RestrictionsObserve, "off")
	t.Flycast = pick(r, "flycast", netip.Addr{}, netip.MustParseAddr("fdaa:0:1::3"))
	switch rapid.IntRange(0, 3).Draw(r.T, "allow list") {
	case 1:
		t.Allow, _ = netrestrict.Compile(nil)
	case 2:
		t.Allow, _ = netrestrict.Compile([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")})
	case 3:
		rules := []netrestrict.Rule{{Network: netip.MustParsePrefix("10.0.0.0/8"), Comment: "the office: \"a\""}, {Endpoint: netrestrict.Endpoint{Provider: netrestrict.GCP, ID: "7"}, Expires: when},
			{Flycast: netip.MustParseAddr("fdaa::3")}}
		t.Allow, _ = netrestrict.CompileRules(rules)
	}
	if rapid.Bool().Draw(r.T, "never ban") {
		t.NeverBan = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::1/128")}
	}
	t.ConnectionRate = count(r)
	if rapid.Bool().Draw(r.T, "auth_query") {
		t.AuthQuery = &tenants.AuthQuery{User: pick(r, "asker", "a", "a b", "a\x00"), Password: tenants.NewSecret(pick(r, "password", "p", "p w")), Database: pick(r, "where", "", "d", "\x00")}
	}
	if rapid.Bool().Draw(r.T, "service") {
		t.Service = &tenants.Service{User: pick(r, "watcher", "w", "w\x00"), Password: tenants.NewSecret(pick(r, "password", "p", "p w"))}
	}
	if rapid.Bool().Draw(r.T, "residency") {
		t.Residency.Ingress = []string{pick(r, "region", "ams", "a b"), "fra"}
	}
	t.RequireTLS, t.ResetAlways = rapid.Bool().Draw(r.T, "require"), rapid.Bool().Draw(r.T, "reset")
	t.Paused, t.Disabled = rapid.Bool().Draw(r.T, "paused"), rapid.Bool().Draw(r.T, "disabled")
	t.Pool = tenants.Pool{Size: count(r), Min: count(r), Reserve: count(r), ReserveAfter: pick(r, "after", time.Second, time.Minute, 0),
		MaxClients: count(r), MaxServers: count(r), MaxDatabaseClients: count(r), MaxDatabaseServers: count(r), PerNode: rapid.Bool().Draw(r.T, "per node"), Mode: pick(r, "mode", "", "session", "transaction", "fast")}
	if rapid.Bool().Draw(r.T, "capped") {
		t.Caps = tenants.Caps{Size: count(r), MaxClients: count(r), MaxServers: count(r), MaxDatabaseClients: count(r), MaxDatabaseServers: count(r)}
	}
	t.Timeouts = drawTimeouts(r)
	t.ClientAddress = pick(r, "address", tenants.AddressOff, tenants.AddressGUC, "on")
	for _, kind := range slices.Sorted(maps.Keys(t.State)) {
		if rapid.IntRange(0, 9).Draw(r.T, "state") == 0 {
			t.State[kind] = pick(r, "policy", tenants.PolicyReset, tenants.PolicyRefuse, tenants.PolicyAllow, tenants.PolicyTrack, "drop")
		}
	}
	t.Complete()
	return t
}

func drawUser(r draw, name string) *tenants.User {
	u := &tenants.User{Name: name, PoolSize: pick(r, "pool size", 0, 1, 7, tenants.MaxCount+1), MaxClients: count(r), MaxServers: count(r),
		Timeouts: drawTimeouts(r), ServerUser: pick(r, "server user", "", "", "role"), ServerAuth: pick(r, "auth", "", "", tenants.AuthMD5, tenants.AuthPassword, tenants.AuthCert, "trust")}
	if rapid.Bool().Draw(r.T, "verifier") {
		u.Verifier = tenants.NewSecret(pick(r, "its text", "v", "v", "bad"))
	} else {
		u.Password = tenants.NewSecret(pick(r, "password", "secret", "p w"))
	}
	u.ServerPassword = tenants.NewSecret(pick(r, "server password", "", "other"))
	return u
}

// pick draws one of a few values, mostly the first.
func pick[T any](r draw, name string, values ...T) T {
	if r.sound || rapid.IntRange(0, 4).Draw(r.T, name+": another one") > 0 {
		return values[0]
	}
	return rapid.SampledFrom(values).Draw(r.T, name)
}

func count(r draw) int {
	return pick(r, "count", 1, 2, 1000, 0, -1, tenants.MaxCount, tenants.MaxCount+1)
}

func drawTimeouts(r draw) (t tenants.Timeouts) {
	for _, at := range []**time.Duration{&t.Query, &t.Transaction, &t.IdleTransaction, &t.ClientIdle, &t.QueryWait, &t.ServerIdle, &t.ServerLifetime} {
		*at = pick(r, "time-out", nil, new(time.Second), new(time.Duration), new(-time.Second))
	}
	return t
}

type section = map[string]any

// written is what a file says of a tenant, with files of passwords and certificates beside it.
func written(t *tenants.Tenant, files map[string]string) section {
	put := func(in section, key string, value any) {
		if s := fmt.Sprint(value); s != "" && s != "<nil>" {
			in[key] = value
		}
	}
	clocks := func(x tenants.Timeouts) section {
		out := section{}
		for key, d := range map[string]*time.Duration{"query": x.Query, "transaction": x.Transaction, "idle_transaction": x.IdleTransaction,
			"client_idle": x.ClientIdle, "query_wait": x.QueryWait, "server_idle": x.ServerIdle, "server_lifetime": x.ServerLifetime} {
			if d != nil {
				out[key] = d.String()
			}
		}
		return out
	}
	password := func(s tenants.Secret) string {
		if s.IsZero() {
			return ""
		}
		path := fmt.Sprintf("/p%d", len(files))
		files[path] = s.Reveal() + "\n"
		return path
	}
	text := func(s string) string { // in a file
		if s == "" {
			return ""
		}
		path := fmt.Sprintf("/t%d", len(files))
		files[path] = s
		return path
	}
	up := section{"tls": string(t.Upstream.TLS)}
	put(up, "client_cert", text(t.Upstream.ClientCert))
	put(up, "client_key", text(t.Upstream.ClientKey.Reveal()))
	put(up, "server_name", t.Upstream.ServerName)
	if t.Upstream.Port != 0 {
		up["port"] = int(t.Upstream.Port)
	}
	all := section{"id": t.ID, "database": t.Database, "databases": t.Databases, "require_tls": t.RequireTLS, "server_reset_always": t.ResetAlways, "paused": t.Paused, "disabled": t.Disabled,
		"client_address": string(t.ClientAddress), "restrictions_mode": string(t.Restrictions), "timeouts": clocks(t.Timeouts), "state": t.State}
	put(all, "client_ca", text(t.ClientCAPEM))
	put(all, "client_cert", string(t.ClientCert))
	if m := t.Machine; m != nil {
		all["machine"] = up
		put(up, "provider", string(m.Provider))
		put(up, "app", m.App)
		put(up, "id", m.ID)
		put(up, "name", m.Name)
		put(up, "wake", string(m.Wake))
		put(up, "sleep", string(m.Sleep))
		put(up, "token_file", text(m.Token.Reveal()))
		up["suspend_after"] = m.SuspendAfter.String()
	} else {
		all["upstream"] = up
		put(up, "host", t.Upstream.Host)
	}
	p := t.Pool
	all["pool"] = section{"size": p.Size, "min": p.Min, "reserve": p.Reserve, "reserve_after": p.ReserveAfter.String(), "max_clients": p.MaxClients,
		"max_servers": p.MaxServers, "max_database_clients": p.MaxDatabaseClients, "max_database_servers": p.MaxDatabaseServers, "per_node": p.PerNode, "mode": p.Mode}
	if t.Flycast.IsValid() {
		all["flycast"] = t.Flycast.String()
	}
	if c := t.Caps; c != (tenants.Caps{}) {
		all["caps"] = section{"size": c.Size, "max_clients": c.MaxClients, "max_servers": c.MaxServers, "max_database_clients": c.MaxDatabaseClients,
			"max_database_servers": c.MaxDatabaseServers}
	}
	if t.Allow != nil {
		list := []any{}
		for _, rule := range t.Allow.Rules() {
			list = append(list, writtenRule(rule))
		}
		all["allow_list"] = list
	}
	if q := t.AuthQuery; q != nil {
		ask := section{"user": q.User}
		put(ask, "database", q.Database)
		put(ask, "password_file", password(q.Password))
		all["auth_query"] = ask
	}
	if in := t.Residency.Ingress; in != nil {
		all["residency"] = section{"ingress": in}
	}
	if s := t.Service; s != nil {
		service := section{"user": s.User}
		put(service, "password_file", password(s.Password))
		all["service"] = service
	}
	never := []string{}
	for _, prefix := range t.NeverBan {
		never = append(never, prefix.String())
	}
	all["never_ban"], all["connection_rate"] = never, t.ConnectionRate
	users := []section{}
	for _, name := range slices.Sorted(maps.Keys(t.Users)) {
		u := t.Users[name]
		login := section{"auth": string(u.ServerAuth)}
		put(login, "user", u.ServerUser)
		put(login, "password_file", password(u.ServerPassword))
		user := section{"name": u.Name, "max_clients": u.MaxClients, "max_servers": u.MaxServers, "timeouts": clocks(u.Timeouts), "upstream": login}
		put(user, "verifier", u.Verifier.Reveal())
		put(user, "password_file", password(u.Password))
		if u.PoolSize != 0 {
			user["pool_size"] = u.PoolSize
		}
		users = append(users, user)
	}
	all["users"] = users
	return all
}

func writtenRule(r netrestrict.Rule) any {
	out := section{}
	switch {
	case r.Endpoint != netrestrict.Endpoint{}:
		out["endpoint"] = section{"provider": string(r.Endpoint.Provider), "id": r.Endpoint.ID}
	case r.Flycast.IsValid():
		out["flycast"] = r.Flycast.String()
	case r.Comment == "" && r.Expires.IsZero():
		return r.Network.String()
	default:
		out["cidr"] = r.Network.String()
	}
	if r.Comment != "" {
		out["comment"] = r.Comment
	}
	if !r.Expires.IsZero() {
		out["expires"] = r.Expires // which YAML writes without quotes
	}
	return out
}

// TestRulesAndFileAgree: a tenant that Validate accepts is read from a file as it is, and of one that it does not accept the
// file's problems are the same, each with the line of what it is about.
func TestRulesAndFileAgree(t *testing.T) {
	accepted, refused := 0, 0
	cert, key := harness.SelfSigned(t)
	roots, err := tenants.ParseRoots([]byte(cert))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		tenant := drawTenant(draw{r, rapid.Bool().Draw(r, "sound"), cert, key, roots})
		files := map[string]string{}
		text, err := yaml.Marshal(section{"tenants": []section{written(tenant, files)}})
		if err != nil {
			r.Fatal(err)
		}
		l := &loader{check: checkVerifier, read: func(path string, _ int) ([]byte, error) {
			if p, ok := files[path]; ok {
				return []byte(p), nil
			}
			return nil, fs.ErrNotExist
		}}
		s, err := l.load(text, when)
		problems := tenants.Validate(tenant, checkVerifier)
		if len(problems) == 0 {
			accepted++
			if err != nil {
				r.Fatalf("%s\n%v", text, err)
			}
			if got := s.Tenants[0]; !got.Equal(tenant) && !sameButNil(got, tenant) {
				r.Fatalf("%s\nread as %+v\nis %+v", text, got, tenant)
			}
			return
		}
		refused++
		users := slices.Sorted(maps.Keys(tenant.Users))
		var want, got []string
		for _, p := range problems {
			path, message := inFile(p, users)
			if strings.HasSuffix(message, " needs it") || strings.Contains(message, "_file is missing") { // told where it would be
				path = path[:strings.LastIndex(path, ".")]
			}
			want = append(want, path+": "+message)
		}
		lines := strings.Split(string(text), "\n")
		for _, p := range l.found.all {
			path := strings.TrimPrefix(strings.TrimPrefix(p.Path, "tenants[0]"), ".")
			got = append(got, path+": "+p.Message)
			if key := path[strings.LastIndex(path, ".")+1:]; key != "" && !strings.Contains(p.Message, " is missing") && !strings.Contains(key, "[") && !isOf(lines, p.Line, key) {
				r.Fatalf("%v is not about %q", p, lines[p.Line-1])
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			r.Fatalf("%s\nthe file says\n%s\nthe rules say\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: nothing was compared", accepted, refused)
	}
}

// isOf reports whether a line has a key's value: beside it, or below it, where a value of several keys begins.
func isOf(lines []string, number int, key string) bool {
	return strings.Contains(lines[number-1], key+":") || number > 1 && strings.HasSuffix(strings.TrimSpace(lines[number-2]), key+":")
}

// sameButNil takes a list without entries for none.
func sameButNil(a, b *tenants.Tenant) bool {
	x, y := *a, *b
	if len(x.Databases) == 0 && len(y.Databases) == 0 {
		x.Databases, y.Databases = nil, nil
	}
	return x.Equal(&y)
}
