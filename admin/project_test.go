// Tests of what Supabase's clients ask, and of what they are answered.

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

func (g *fakeGate) Bans(ctx context.Context, tenant string) ([]Ban, error) {
	return g.bans, g.called(ctx, "bans of", tenant)
}

func (g *fakeGate) LiftBan(ctx context.Context, tenant string, addr netip.Addr) (n int, err error) {
	for _, b := range g.bans {
		if b.Address.Contains(addr) {
			n++
		}
	}
	return n, g.called(ctx, "lift "+addr.String()+" at", tenant)
}

const restrictionsPath = "/v1/projects/acme/network-restrictions"

// TestRestrictions are what was applied, in Supabase's shapes.
func TestRestrictions(t *testing.T) {
	w := newWorld(t)
	const times, everybody = `"status":"applied","updated_at":"2`, `"config":{"dbAllowedCidrs":["0.0.0.0/0"],"dbAllowedCidrsV6":["::/0"]}`
	w.to(t, "read", "GET", restrictionsPath, "").is(200, `{"entitlement":"allowed",`+everybody+`,`+times, `"applied_at":"2`)
	for _, tc := range []struct{ body, config string }{
		{`{"dbAllowedCidrs":["203.0.113.0/24","10.0.0.0/8"],"dbAllowedCidrsV6":["2001:db8::/32"]}`, `{"dbAllowedCidrs":["10.0.0.0/8","203.0.113.0/24"],"dbAllowedCidrsV6":["2001:db8::/32"]}`},
		{`{"dbAllowedCidrs":["203.0.113.7"]}`, `{"dbAllowedCidrs":["203.0.113.7/32"],"dbAllowedCidrsV6":[]}`},
		{`{"dbAllowedCidrsV6":["::/0"]}`, `{"dbAllowedCidrs":[],"dbAllowedCidrsV6":["::/0"]}`},
		{`{"dbAllowedCidrs":[],"dbAllowedCidrsV6":[]}`, `{"dbAllowedCidrs":[],"dbAllowedCidrsV6":[]}`},
		{`{"dbAllowedCidrs":["0.0.0.0/0"],"dbAllowedCidrsV6":["::/0"]}`, `{"dbAllowedCidrs":["0.0.0.0/0"],"dbAllowedCidrsV6":["::/0"]}`},
	} {
		applied := w.to(t, "write", "POST", restrictionsPath+"/apply", tc.body).is(201, `{"entitlement":"allowed","config":`+tc.config+`,`+times)
		if strings.Contains(applied.Body.String(), "old_config") {
			t.Errorf("%s", applied.Body)
		}
		w.to(t, "read", "GET", restrictionsPath, "").is(200, `{"entitlement":"allowed","config":`+tc.config+`,`+times)
	}
	if allow := w.store.all["acme"].Tenant.Allow; allow != nil {
		t.Errorf("everybody is a list: %v", allow.Rules())
	}
	w.to(t, "write", "PATCH", restrictionsPath, `{"add":{"dbAllowedCidrs":["203.0.113.0/24"],"dbAllowedCidrsV6":[]},"remove":{"dbAllowedCidrs":["0.0.0.0/0"]}}`).
		is(200, `{"entitlement":"allowed","config":{"dbAllowedCidrs":[{"address":"203.0.113.0/24","type":"v4"},{"address":"::/0","type":"v6"}]},`+times)
	w.to(t, "write", "PATCH", restrictionsPath, `{"remove":{"dbAllowedCidrs":["192.0.2.0/24"],"dbAllowedCidrsV6":["::/0"]}}`).
		is(200, `"config":{"dbAllowedCidrs":[{"address":"203.0.113.0/24","type":"v4"}]}`)
	w.to(t, "write", "PATCH", restrictionsPath, `{}`).is(200, `"config":{"dbAllowedCidrs":[{"address":"203.0.113.0/24","type":"v4"}]}`)
	entries := w.store.entries
	if last := entries[len(entries)-2]; last.Action != "restrictions.patch" || last.Outcome != "done" || last.By.Name != "write" {
		t.Errorf("audit: %+v", last)
	}
	w.to(t, "operator", "POST", "/v1/projects/nobody/network-restrictions/apply", `{"dbAllowedCidrs":[]}`).is(404, `"message":"there is no such tenant"`)
	w.to(t, "operator", "GET", "/v1/projects/nobody/network-restrictions", "").is(404)
	w.to(t, "read", "POST", restrictionsPath+"/apply", `{"dbAllowedCidrs":[]}`).is(403, `"message":`)
}

// TestWrongRestrictions change nothing, and the answer says what is wrong where Supabase's clients look.
func TestWrongRestrictions(t *testing.T) {
	w := newWorld(t)
	before := w.store.version
	for body, says := range map[string]string{
		``:     "missing",
		`[]`:   "must be an object",
		`null`: "null",
		`{}`:   "to keep a family out say []", // nobody means that
		`{"dbAllowedCidrs":null,"dbAllowedCidrsV6":[]}`:              "leave the key out",
		`{"dbAllowedCidrs":"10.0.0.0/8"}`:                            "must be a list",
		`{"dbAllowedCidrs":[5]}`:                                     "must be text",
		`{"dbAllowedCidrs":["10.0.0.0/33"]}`:                         "dbAllowedCidrs[0]: ",
		`{"dbAllowedCidrs":["10.0.0.0/8","10.0.0.1/8"]}`:             "dbAllowedCidrs[1]: \\\"10.0.0.1/8\\\" has bits set behind its prefix length: write 10.0.0.0/8",
		`{"dbAllowedCidrs":["2001:db8::/32"]}`:                       "dbAllowedCidrs[0]: 2001:db8::/32 is of the other family",
		`{"dbAllowedCidrs":[],"dbAllowedCidrsV6":["10.0.0.0/8"]}`:    "dbAllowedCidrsV6[0]: 10.0.0.0/8 is of the other family",
		`{"dbAllowedCidrsV6":["::ffff:10.0.0.0/104"]}`:               "an IPv4 network written as IPv6",
		`{"dbAllowedCidrs":["` + strings.Repeat("1", 10_000) + `"]}`: "dbAllowedCidrs[0]",
		`{"dbAllowedCidrs":["10.0.0.0/8"],"comment":"office"}`:       "there is no such key",
		`{"dbAllowedCidrs":[],"dbAllowedCidrs":[]}`:                  "twice",
	} {
		if got := w.to(t, "write", "POST", restrictionsPath+"/apply", body, "Content-Type", "application/json").is(400, says, `"message":`); got.Body.Len() > 2000 {
			t.Errorf("an answer of %d bytes", got.Body.Len())
		}
	}
	for body, says := range map[string]string{
		`{"dbAllowedCidrs":[]}`:                          "there is no such key",
		`{"add":{"dbAllowedCidrs":["a"]}}`:               "add.dbAllowedCidrs[0]",
		`{"remove":{"dbAllowedCidrsV6":["10.0.0.0/8"]}}`: "remove.dbAllowedCidrsV6[0]",
		`{"add":{"dbAllowedCidrs":["10.0.0.0/8"]},"remove":{"dbAllowedCidrs":["10.0.0.0/8"]}}`: "10.0.0.0/8 is to be added and removed",
	} {
		w.to(t, "write", "PATCH", restrictionsPath, body).is(400, says)
	}
	w.to(t, "write", "POST", restrictionsPath+"/apply?wait=0", `{"dbAllowedCidrs":[]}`).is(400)
	if w.store.version != before {
		t.Error("something was changed")
	}
}

// TestEndlessRestrictions: what is as long as a body can be is judged at once, and lists do not grow for ever.
func TestEndlessRestrictions(t *testing.T) {
	w := newWorld(t)
	list := func(first, n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"%d.%d.%d.%d"`, first, i>>16, i>>8&255, i&255))
		}
		return `{"dbAllowedCidrs":[` + strings.Join(all, ",") + `]}`
	}
	w.to(t, "write", "POST", restrictionsPath+"/apply", list(1, tenants.MaxRules)).is(201)
	before := spent(t)
	w.to(t, "write", "PATCH", restrictionsPath, `{"add":`+list(2, 65_000)+`,"remove":`+list(3, 65_000)+`}`).is(422, "more than 20000 rules")
	if took := spent(t) - before; took > time.Minute { // a look at each for each takes minutes
		t.Errorf("it took %v", took)
	}
	w.to(t, "write", "PATCH", restrictionsPath, `{"add":`+list(2, 1)+`}`).is(422, "more than 20000 rules")
}

// spent is how long the process has computed: a busy computer takes longer for it, but not more of it.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestRestrictionsThatWait: what is not in force on every node after a second is stored, and what was there before is told.
func TestRestrictionsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const first, second = `{"dbAllowedCidrs":["10.0.0.0/8"],"dbAllowedCidrsV6":[]}`, `{"dbAllowedCidrs":["203.0.113.0/24"],"dbAllowedCidrsV6":["::/0"]}`
		w.to(t, "write", "POST", restrictionsPath+"/apply", first).is(201, `"status":"applied"`)
		w.store.applied = func(version int64) tenants.Applied {
			return tenants.Applied{Everywhere: version < w.store.version, Missing: []string{"b"}}
		}
		begin := time.Now()
		got := w.to(t, "write", "POST", restrictionsPath+"/apply", second).is(201, `"config":`+second+`,"old_config":`+first+`,"status":"stored","updated_at"`)
		if took := time.Since(begin); took != appliedWait || strings.Contains(got.Body.String(), "applied_at") {
			t.Errorf("after %v: %s", took, got.Body)
		}
		begin = time.Now()
		w.to(t, "read", "GET", restrictionsPath, "").is(200, `"config":`+second+`,"status":"stored"`)
		if took := time.Since(begin); took != 0 {
			t.Errorf("a question took %v", took)
		}
		w.to(t, "write", "PATCH", restrictionsPath, `{"remove":{"dbAllowedCidrsV6":["::/0"]}}`).is(200, `"config":{"dbAllowedCidrs":[{"address":"203.0.113.0/24","type":"v4"}]},`+
			`"old_config":{"dbAllowedCidrs":[{"address":"203.0.113.0/24","type":"v4"},{"address":"::/0","type":"v6"}]},"status":"stored"`)
		w.to(t, "write", "PUT", "/v1/projects/acme/ssl-enforcement", `{"requestedConfig":{"database":true}}`).is(200, `{"currentConfig":{"database":true},"appliedSuccessfully":false}`)
		w.to(t, "read", "GET", "/v1/projects/acme/ssl-enforcement", "").is(200, `{"currentConfig":{"database":true},"appliedSuccessfully":false}`)
		w.store.applied = nil
		w.to(t, "read", "GET", restrictionsPath, "").is(200, `"status":"applied"`)
	})
}

// TestRestrictionsKeepWhatIsOurs: comments and rules for endpoints, of which Supabase's clients know nothing.
func TestRestrictionsKeepWhatIsOurs(t *testing.T) {
	w := newWorld(t)
	rec := w.store.all["acme"]
	rec.Tenant = with(netrestrict.Rule{Network: network("10.0.0.0/8"), Comment: "office"}, netrestrict.Rule{Endpoint: netrestrict.Endpoint{Provider: netrestrict.GCP, ID: "1"}},
		netrestrict.Rule{Network: network("192.0.2.0/24"), Expires: time.Now().Add(-time.Minute)})
	w.store.all["acme"] = rec
	w.to(t, "read", "GET", restrictionsPath, "").is(200, `"config":{"dbAllowedCidrs":["10.0.0.0/8"],"dbAllowedCidrsV6":[]}`)
	w.to(t, "write", "POST", restrictionsPath+"/apply", `{"dbAllowedCidrs":["10.0.0.0/8","203.0.113.0/24"],"dbAllowedCidrsV6":[]}`).is(201)
	w.to(t, "read", "GET", "/v1/tenants/acme", "").is(200, `"comment":"office"`, `"gcp"`, `203.0.113.0/24`)
}

func TestBansOfAProject(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/projects/acme/network-bans"
	w.to(t, "read", "POST", path+"/retrieve", "").is(201, `{"banned_ipv4_addresses":[]}`)
	w.gate.bans = []Ban{{Address: network("203.0.113.7/32")}, {Address: network("2001:db8::/64")}, {Address: network("198.51.100.0/24"), Manual: true}}
	w.to(t, "read", "POST", path+"/retrieve", "{}").is(201, `{"banned_ipv4_addresses":["203.0.113.7","2001:db8::/64","198.51.100.0/24"]}`)
	w.to(t, "write", "POST", path+"/retrieve/enriched", "").is(201, `{"banned_ipv4_addresses":[{"banned_address":"203.0.113.7","identifier":"acme","type":"failed_logins"},`+
		`{"banned_address":"2001:db8::/64","identifier":"acme","type":"failed_logins"},{"banned_address":"198.51.100.0/24","identifier":"acme","type":"manual"}]}`)
	w.gate.calls = nil
	for body, removed := range map[string]string{
		`{"ipv4_addresses":["203.0.113.7"],"requester_ip":false}`:                             "1",
		`{"ipv4_addresses":["::ffff:203.0.113.7","2001:db8::/64","2001:db8::9","192.0.2.1"]}`: "3",
		`{"ipv4_addresses":[],"identifier":"acme"}`:                                           "0",
	} {
		w.to(t, "write", "DELETE", path, body).is(200, `{"removed":`+removed+`}`)
	}
	w.gate.calls = nil
	w.to(t, "write", "DELETE", path, `{"ipv4_addresses":[],"requester_ip":true}`).is(200)
	if got := strings.Join(w.gate.calls, ", "); got != "lift 192.0.2.1 at acme" { // as httptest has it
		t.Errorf("the asker's: %s", got)
	}
	w.gate.calls = nil
	for body, says := range map[string]string{
		``: "missing", `{}`: "ipv4_addresses is missing", `{"ipv4_addresses":["a"]}`: "ipv4_addresses[0]", `{"ipv4_addresses":["fe80::1%eth0"]}`: "ipv4_addresses[0]",
		`{"ipv4_addresses":[],"identifier":"globex"}`: "identifier", `{"ipv4_addresses":[],"all":true}`: "no such key",
	} {
		w.to(t, "write", "DELETE", path, body, "Content-Type", "application/json").is(400, says, `"message":`)
	}
	if len(w.gate.calls) > 0 {
		t.Errorf("the gate was asked: %v", w.gate.calls)
	}
	w.gate.fail = map[string]error{"bans of": ErrNoTenant, "lift 192.0.2.9 at": errors.New("10.1.2.3")}
	w.to(t, "operator", "POST", path+"/retrieve", "").is(404)
	w.to(t, "operator", "DELETE", path, `{"ipv4_addresses":["192.0.2.9"]}`).is(500)

	// One that cannot be lifted keeps no other from it, and the answer and the audit log say which were.
	w.gate.calls, w.store.entries = nil, nil
	w.gate.fail["lift 198.51.100.9 at"] = ErrNoTenant
	w.to(t, "write", "DELETE", path, `{"ipv4_addresses":["203.0.113.7","198.51.100.9","192.0.2.1","2001:db8::9"]}`).
		is(404, "done for 203.0.113.7, 2001:db8::9, not for 198.51.100.9: there is no such tenant")
	if got := strings.Join(w.gate.calls, ", "); got != "lift 203.0.113.7 at acme, lift 198.51.100.9 at acme, lift 192.0.2.1 at acme, lift 2001:db8::9 at acme" {
		t.Errorf("the gate was asked: %s", got)
	}
	if e := w.store.entries; len(e) != 2 || e[0].Outcome != tenants.OutcomeDone || len(e[0].Changes) != 2 || e[0].Changes[1].Path != `bans["2001:db8::9"]` || !strings.HasPrefix(e[1].Outcome, "done for") {
		t.Errorf("audit: %+v", e)
	}
	w.gate.fail = map[string]error{"lift 203.0.113.7 at": errors.New("10.1.2.3")}
	w.to(t, "write", "DELETE", path, `{"ipv4_addresses":["203.0.113.7","198.51.100.9"]}`).is(500, "done for 198.51.100.9, not for 203.0.113.7: internal error; the log says why")
}

func TestEnforcementOfTLS(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/projects/acme/ssl-enforcement"
	w.to(t, "read", "GET", path, "").is(200, `{"currentConfig":{"database":false},"appliedSuccessfully":true}`)
	for _, is := range []string{"true", "true", "false"} {
		w.to(t, "write", "PUT", path, `{"requestedConfig":{"database":`+is+`}}`).is(200, `{"currentConfig":{"database":`+is+`},"appliedSuccessfully":true}`)
		w.to(t, "read", "GET", path, "").is(200, `{"currentConfig":{"database":`+is+`},"appliedSuccessfully":true}`)
	}
	for _, body := range []string{``, `{}`, `{"requestedConfig":{}}`, `{"requestedConfig":{"database":"true"}}`, `{"requestedConfig":{"database":null}}`, `{"requestedConfig":{"database":true,"pooler":true}}`} {
		w.to(t, "write", "PUT", path, body, "Content-Type", "application/json").is(400, `"message":`)
	}
}

func TestPooler(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/projects/acme/config/database/pooler"
	w.to(t, "read", "GET", path, "", "Host", "ignored").is(200, `[{"identifier":"acme","database_type":"PRIMARY","is_using_scram_auth":true,"db_user":"app","db_host":"127.0.0.1","db_port":5432,`+
		`"db_name":"postgres","connection_string":"postgresql://app.acme:[YOUR-PASSWORD]@127.0.0.1:5432/postgres","connectionString":"postgresql://app.acme:[YOUR-PASSWORD]@127.0.0.1:5432/postgres",`+
		`"default_pool_size":20,"max_client_conn":1000,"pool_mode":"transaction"}]`)
	for _, host := range []string{"[::1]", "[::1]:9187"} {
		w.called = host
		w.to(t, "read", "GET", path, "").is(200, `"db_host":"::1"`, `@[::1]:5432/postgres"`)
	}
	w.called = ""
	w.to(t, "write", "PATCH", path, `{"default_pool_size":7}`).is(200, `{"default_pool_size":7,"pool_mode":"transaction"}`)
	w.to(t, "write", "PATCH", path, `{"default_pool_size":8,"pool_mode":"session"}`).is(403, "pool.mode")
	w.to(t, "operator", "PATCH", path, `{"pool_mode":"session"}`).is(200, `{"default_pool_size":7,"pool_mode":"session"}`)
	w.to(t, "operator", "PATCH", path, `{}`).is(200, `{"default_pool_size":7,"pool_mode":"session"}`)
	w.to(t, "operator", "PATCH", path, `{"default_pool_size":0}`).is(422, `"/pool/size"`)
	w.to(t, "operator", "PATCH", path, `{"pool_mode":"none"}`).is(422, `"/pool/mode"`)
	for _, body := range []string{``, `{"default_pool_size":null}`, `{"default_pool_size":1.5}`, `{"max_client_conn":5}`} {
		w.to(t, "operator", "PATCH", path, body, "Content-Type", "application/json").is(400, `"message":`)
	}

	w.opts.TenantDomain = "db.example.com"
	w.opts.Ways = func() []WayIn { return []WayIn{{"statement", 7000}, {"session", 5432}, {"transaction", 6543}} }
	w.to(t, "read", "GET", path, "").is(200, `"connection_string":"postgresql://app.acme:[YOUR-PASSWORD]@acme.db.example.com:5432/postgres"`, `"pool_mode":"session"`)
	w.to(t, "operator", "PATCH", path, `{"pool_mode":"transaction"}`).is(200)
	rec := w.store.all["acme"]
	tenant := *rec.Tenant
	tenant.Pool.Mode, tenant.Database, tenant.Users = "", "a/b c", map[string]*tenants.User{}
	rec.Tenant = &tenant
	w.store.all["acme"] = rec
	w.to(t, "read", "GET", path, "").is(200, `"connection_string":"postgresql://[YOUR-USER].acme:[YOUR-PASSWORD]@acme.db.example.com:6543/a%2Fb%20c"`, `"pool_mode":"transaction"`)
	for _, name := range []string{"a@b:c", "postgres"} {
		tenant := tenant
		tenant.Users = map[string]*tenants.User{"aaa": {Name: "aaa"}, name: {Name: name}}
		if name != "postgres" {
			delete(tenant.Users, "aaa")
		}
		rec.Tenant = &tenant
		w.store.all["acme"] = rec
		w.to(t, "read", "GET", path, "").is(200, `postgresql://`+strings.NewReplacer("@", "%40", ":", "%3A").Replace(name)+`.acme:`)
	}
}
