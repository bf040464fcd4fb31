// Every kind of setting is changed while clients work, and none of them notices.

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants/document"
	"github.com/postern/postern/test/harness"
)

// loadedSettings are changes of a tenant's document, by key, each laid over what it was at first.
func loadedSettings(port int) map[string][]harness.Map {
	one := func(values ...any) (all []harness.Map) {
		for _, v := range values {
			all = append(all, harness.Map{"": v})
		}
		return all
	}
	within := func(key string, values ...any) (all []harness.Map) {
		for _, v := range values {
			all = append(all, harness.Map{"": harness.Map{key: v}})
		}
		return all
	}
	all := map[string][]harness.Map{
		"upstream":  one(harness.Map{"host": "localhost", "port": port, "tls": "disable"}),
		"database":  one("elsewhere"), // for who names none: not who is there
		"databases": one([]string{"others", "DATABASE"}),
		"allow_list": one([]string{"127.0.0.0/8"}, []string{"0.0.0.0/0", "::/0"},
			[]harness.Map{{"cidr": "127.0.0.0/8", "comment": "here", "expires": "2099-01-01T00:00:00Z"}, {"endpoint": harness.Map{"provider": "aws", "id": "vpce-0123456789abcdef0"}}}),
		"connection_rate":     one(1000),
		"restrictions_mode":   one("observe"),
		"flycast":             one("fdaa:0:1::3"),
		"caps":                slices.Concat(within("size", 50), within("max_clients", 5000), within("max_servers", 500)),
		"never_ban":           one([]string{"127.0.0.1/32"}),
		"require_tls":         one(true),
		"client_address":      one("application_name", "guc"),
		"server_reset_always": one(true),
		"pool": slices.Concat(within("size", 1, 3, 30), within("min", 2), within("reserve", 2), within("reserve_after", "1s"), within("max_clients", 50, 1),
			within("max_servers", 50), within("max_database_clients", 50), within("max_database_servers", 50), within("mode", "session", "statement", "transaction")),
		"timeouts": slices.Concat(within("query", "50s"), within("transaction", "50s"), within("idle_transaction", "50s"), within("client_idle", "50s"),
			within("query_wait", "50s"), within("server_idle", "1s"), within("server_lifetime", "1s")),
	}
	for _, kind := range []string{"set", "listen", "temp", "advisory_lock"} {
		all["state"] = append(all["state"], within(kind, "pin", "allow", "reset", "refuse")...)
	}
	return all
}

// elsewhere are keys that other tests change: why they are not for this one.
func elsewhere() map[string]string {
	return map[string]string{"machine": "where a tenant moves to one: machine_test.go", "client_ca": "who has no certificate may not stay", "client_cert": "likewise",
		"paused": "clients wait then: fellows_command_test.go", "disabled": "likewise", "residency": "there is one region: passon_test.go",
		"service":    "it is an account for Postern alone: portions_fault_test.go",
		"auth_query": "it needs a user of its own on the server, and changes who is listed"}
}

// TestStoreSettings: each key of a tenant's document, and a user's password at both ends, is changed and changed back on two nodes under load.
func TestStoreSettings(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	upstream := harness.Postgres(t)
	direct, err := upstream.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(direct)
	role := harness.Unique("rotated")
	if _, err := direct.Exec(t.Context(), "create role "+role+" login password 'server-1'"); err != nil {
		t.Fatal(err)
	}
	w.rotated(role, 1)
	w.load(w.acme)
	fillFor(t, w.acme)
	if err := upstream.Exec(t.Context(), w.acme["database"].(string), "grant select on all tables in schema public to "+role); err != nil {
		t.Fatal(err)
	}
	pair := harness.Certificates(t).Issue(t, "localhost")
	p := w.tenants["postgres"].(harness.Map)
	delete(p, "cache_file")
	var gates []*gate
	var loads []*load
	named := "dbname=" + w.acme["database"].(string)
	for _, name := range []string{"a", "b"} {
		p["node"] = name
		g := &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: harness.Map{"tenants": w.tenants,
			"tls": harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}}}})}
		gates = append(gates, g)
		dsn := strings.Replace(g.dsn("transaction", named), "sslmode=disable", "sslmode=require", 1)
		loads = append(loads, startLoad(t, dsn), startLoad(t, strings.NewReplacer("user=app.acme", "user=web.acme", "password=pw-app", "password=client-1").Replace(dsn)))
	}
	goOn := func() {
		t.Helper()
		for _, l := range loads {
			l.goesOn()
			l.check()
		}
	}
	goOn()
	store, err := w.cluster.Connect(t.Context(), w.database)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(store)
	change := func(last bool, what, sql string, args ...any) {
		t.Helper()
		if _, err := store.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if last || harness.Long() { // else some come at once
			w.inForce(store, what)
		}
		for _, l := range loads {
			l.check()
		}
	}
	var first string
	if err := store.QueryRow(t.Context(), `SELECT document FROM postern.tenants`).Scan(&first); err != nil {
		t.Fatal(err)
	}
	all := loadedSettings(upstream.Port())
	for _, key := range slices.Sorted(maps.Keys(all)) {
		for _, value := range all[key] {
			text, err := json.Marshal(harness.Map{key: value[""]})
			if err != nil {
				t.Fatal(err)
			}
			patch := strings.ReplaceAll(string(text), "DATABASE", w.acme["database"].(string))
			change(false, patch, `UPDATE postern.tenants SET document = $1::jsonb || jsonb_build_object($2::text,
				CASE jsonb_typeof($3::jsonb->$2) WHEN 'object' THEN coalesce($1::jsonb->$2, '{}') || ($3::jsonb->$2) ELSE $3::jsonb->$2 END)`, first, key, patch)
		}
		w.inForce(store, key)
		change(true, key+" as it was", `UPDATE postern.tenants SET document = $1::jsonb`, first)
	}
	for _, d := range reflect.VisibleFields(reflect.TypeFor[document.Tenant]()) {
		key, _, _ := strings.Cut(d.Tag.Get("json"), ",")
		if _, ok := elsewhere()[key]; ok == (all[key] != nil) {
			t.Errorf("nobody changes %s under load: it needs a line in loadedSettings, or a reason in elsewhere", key)
		}
	}
	for _, user := range []string{`{"pool_size": 1}`, `{"pool_size": 30}`, `{"max_clients": 50}`, `{"max_servers": 50}`, `{"timeouts": {"query": "50s", "server_lifetime": "1s"}}`, `{}`} {
		change(user == `{}`, "user: "+user, `UPDATE postern.users SET document = $1 WHERE name = 'app'`, user)
	}
	goOn()

	// A password at both ends: of whoever comes, and of the server's role.
	if _, err := direct.Exec(t.Context(), "alter role "+role+" password 'server-2'"); err != nil {
		t.Fatal(err)
	}
	w.rotated(role, 2)
	w.load(w.acme)
	w.told("the password", "a", "b")
	for i, g := range gates {
		for password, want := range map[string]string{"client-1": "28P01", "client-2": ""} {
			conf := configOf(t, strings.NewReplacer("user=app.acme", "user=web.acme", "password=pw-app", "password="+password).Replace(g.dsn("session", named)))
			conn, err := pgx.ConnectConfig(t.Context(), conf)
			if (err == nil) != (want == "") || err != nil && sqlstate(err) != want {
				t.Errorf("node %d, %s: %v", i, password, err)
			}
			if err == nil {
				closeConn(conn)
			}
		}
	}
	goOn()
}

// inForce waits until everything is in force on both nodes, and neither refuses it.
func (w *storeWorld) inForce(store *pgx.Conn, what string) {
	w.t.Helper()
	harness.Eventually(w.t, harness.Patience, what+" is in force", func() bool {
		var n int
		err := store.QueryRow(context.WithoutCancel(w.t.Context()), `SELECT count(*) FROM postern.nodes, postern.feed WHERE applied = version AND refused = '{}'`).Scan(&n)
		return err == nil && n == 2
	})
}

// rotated gives acme a user whose password is another one at each end.
func (w *storeWorld) rotated(role string, n int) {
	w.t.Helper()
	verifier, err := scram.NewVerifier(fmt.Sprint("client-", n), 4096, []byte("sixteen bytes ok"))
	if err != nil {
		w.t.Fatal(err)
	}
	write(w.t, filepath.Join(w.dir, "server.pw"), fmt.Appendf(nil, "server-%d\n", n))
	users := w.acme["users"].([]harness.Map)[:2]
	w.acme["users"] = append(slices.Clone(users), harness.Map{"name": "web", "verifier": verifier.Encode(),
		"upstream": harness.Map{"user": role, "password_file": filepath.Join(w.dir, "server.pw")}})
}
