// Where a secret may stand a marked one does, and then two nodes on one store live: nothing that they, the commands, the API, the
// console, the metrics, the cache file or the store's tables say has one of them.

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

// canaryWorld is a store world with marked secrets.
type canaryWorld struct {
	*storeWorld
	*canaries
	t       *testing.T
	a, b    *gate
	role    string // of the tenants' server; its password is marked
	pw      string
	console string            // its user's password
	made    map[string]string // tokens, each shown once, by name
}

// secretFile makes a file with a secret in it.
func (w *canaryWorld) secretFile(name, secret string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	write(w.t, path, []byte(secret+"\n"))
	return path
}

// run runs a command, whatever becomes of it.
func (w *canaryWorld) run(stdin string, env []string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), harness.Binary(w.t), args...)
	cmd.Env = append(append(os.Environ(), "POSTERN_API="+w.a.AdminURL(), "POSTERN_TOKEN="+w.a.Token), env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, _ := cmd.CombinedOutput() // refusals are wanted as well
	said := string(out)
	if len(args) > 1 && args[0] == "token" && args[1] == "make" {
		said = w.shown(args[2], said)
	}
	w.hear("postern "+args[0]+" "+args[min(1, len(args)-1)], said)
	return string(out)
}

// shown takes a made token out of the one text that may have it.
func (w *canaryWorld) shown(name, text string) string {
	w.t.Helper()
	at := strings.Index(text, "postern_")
	if at < 0 {
		w.t.Fatalf("no token in %q", text)
	}
	token := text[at : at+len("postern_")+26]
	w.keep("token "+name, []byte(token[len("postern_"):]))
	w.made[name] = token
	return strings.Replace(text, token, "", 1)
}

// call asks the API, whatever the answer is, and returns its status.
func (w *canaryWorld) call(token, method, path, body string, headers ...string) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.a.AdminURL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	said := string(text)
	if method == "POST" && path == "/v1/tokens" && res.StatusCode == http.StatusCreated {
		said = w.shown("api", said)
	}
	route, _, _ := strings.Cut(path, "?") // what is asked may have a secret
	w.hear("the API", fmt.Sprint(method, " ", route, " ", res.StatusCode, res.Header, said))
	return res.StatusCode
}

// must is a call that has to succeed.
func (w *canaryWorld) must(method, path string, body harness.Map) {
	w.t.Helper()
	if status := w.call(w.a.Token, method, path, string(asJSON(w.t, body))); status >= 300 {
		w.t.Fatalf("%s %s: %d", method, path, status)
	}
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	text := new(bytes.Buffer)
	e := json.NewEncoder(text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// newCanaryWorld makes a store whose own secrets are marked.
func newCanaryWorld(t *testing.T) *canaryWorld {
	t.Helper()
	w := &canaryWorld{t: t, storeWorld: newStoreWorld(t), canaries: newCanaries(), made: make(map[string]string), role: harness.Unique("canary")}
	owner := w.mark("the password of dsn_file")
	w.exec(fmt.Sprintf("CREATE ROLE keeper LOGIN PASSWORD '%s'; ALTER DATABASE %q OWNER TO keeper", owner, w.database))
	w.secretFile("dsn", fmt.Sprintf("host=127.0.0.1 port=%d user=keeper password='%s' dbname=%s sslmode=disable", w.cluster.Port(), owner, w.database))
	w.hear("postern store init", w.command("init"))
	w.keepKeys()

	upstream := harness.Postgres(t)
	w.pw = w.mark("a user's password")
	w.acmeExec(fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", w.role, w.pw))
	verifier := w.keepVerifier(t, "the verifier of the server's role", harness.Verifier(t, upstream, w.role))
	w.acme["users"] = []harness.Map{
		{"name": "app", "verifier": verifier, "upstream": harness.Map{"user": w.role, "password_file": w.secretFile("up.pw", w.pw)}},
		{"name": "web", "password_file": w.secretFile("web.pw", w.mark("web's password")), "upstream": harness.Map{"user": w.role, "password_file": w.secretFile("up2.pw", w.pw)}}}
	return w
}

func (w *canaryWorld) acmeExec(sql string) {
	w.t.Helper()
	if err := harness.Postgres(w.t).Exec(w.t.Context(), w.acme["database"].(string), sql); err != nil {
		w.t.Fatal(err)
	}
}

// keepKeys has what the key file holds as secrets.
func (w *canaryWorld) keepKeys() {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "store.key"))
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			if key, err := base64.StdEncoding.DecodeString(fields[1]); err == nil {
				w.keep("key "+fields[0], key)
				n++
			}
		}
	}
	if n == 0 {
		w.t.Fatalf("no key in the key file")
	}
}

// serve starts both nodes, the first with a cache file and a console.
func (w *canaryWorld) serve() {
	w.t.Helper()
	conf := withConsole(w.t)
	delete(conf["timeouts"].(harness.Map), "drain")
	conf["timeouts"].(harness.Map)["login"] = "60s"
	w.console = w.mark("the console's password")
	v, err := scram.NewVerifier(w.console, scram.DefaultIterations, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	conf["admin"].(harness.Map)["console_users"] = []harness.Map{{"name": consoleUser, "verifier": w.keepVerifier(w.t, "the console's verifier", v.Encode())}}
	conf["tenants"] = w.tenants
	start := func(node string) *gate {
		w.tenants["postgres"].(harness.Map)["node"] = node
		g := &gate{t: w.t, Gate: harness.Postern(w.t, harness.GateConfig{Config: conf})}
		w.keep("the token of "+node, []byte(g.Token))
		secret, err := os.ReadFile(filepath.Join(g.Dir, "mock.key"))
		if err != nil {
			w.t.Fatal(err)
		}
		w.keep("the mock secret of "+node, bytes.TrimSpace(secret))
		return g
	}
	w.a = start("a")
	delete(w.tenants["postgres"].(harness.Map), "cache_file")
	w.b = start("b")
	w.show()
}

// show asks the console for everything.
func (w *canaryWorld) show() {
	w.t.Helper()
	conf := configOf(w.t, w.a.consoleDSN("private"))
	conf.Password, conf.DefaultQueryExecMode = w.console, pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(w.t.Context(), conf)
	if err != nil {
		w.t.Fatal(err)
	}
	defer closeConn(conn)
	for _, what := range strings.Fields("HELP CONFIG DATABASES POOLS CLIENTS SERVERS USERS VERSION TENANTS PINS BANS REFUSALS PEERS PEER_POOLS SOCKETS ACTIVE_SOCKETS LISTS MEM STATE " +
		"DNS_HOSTS DNS_ZONES STATS STATS_TOTALS STATS_AVERAGES TOTALS") {
		rows, err := conn.Query(w.t.Context(), "SHOW "+what)
		if err != nil {
			w.t.Fatalf("SHOW %s: %v", what, err)
		}
		for rows.Next() {
			values, _ := rows.Values() // an error comes below
			w.hear("SHOW "+what, fmt.Sprint(values...))
		}
		if err := rows.Err(); err != nil {
			w.t.Fatalf("SHOW %s: %v", what, err)
		}
	}
	_, err = conn.Exec(w.t.Context(), "RELOAD")
	w.hear("RELOAD", fmt.Sprint(err))
}

// refused sends a secret in every way that is refused: where what it is to be is named, and under what path.
func (w *canaryWorld) refused(method, path string, wrap func(key string, value any) harness.Map, keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		marked := w.mark(method + " " + path + " " + key)
		with := func(more harness.Map) string {
			body := wrap(key, marked)
			for k, v := range more {
				body[k] = v
			}
			return string(asJSON(w.t, body))
		}
		good := with(nil)
		for what, body := range map[string]string{
			"too long":    string(asJSON(w.t, wrap(key, marked+strings.Repeat("x", 2<<20)))),
			"longer":      string(asJSON(w.t, wrap(key, marked+strings.Repeat("x", 3000)+"\x00"))),
			"a list":      string(asJSON(w.t, wrap(key, []string{marked}))),
			"an object":   string(asJSON(w.t, wrap(key, harness.Map{"x": marked}))),
			"another key": string(asJSON(w.t, wrap("x"+key, marked))), "a key beside": with(harness.Map{"no_such": marked}), "in a number": with(harness.Map{"pool_size": marked, "pool": marked}),
			"cut": good[:len(good)-3], "twice": strings.TrimSuffix(strings.TrimSpace(good), "}") + "," + strings.TrimPrefix(good, "{"),
		} {
			if status := w.call(w.a.Token, method, path, body); status < 400 || status >= 500 {
				w.t.Errorf("%s %s with %s, %s: %d", method, path, key, what, status)
			}
		}
		if status := w.call(w.a.Token, method, path, good, "If-Match", `"1"`); status < 400 {
			w.t.Errorf("%s %s with %s and an old revision: %d", method, path, key, status)
		}
		_ = w.call("postern_"+strings.Repeat("x", 30), method, path, good)
		_ = w.call(w.made["ci"], method, path, good) // which may only read
		_ = w.call(w.a.Token, method, path+"?"+key+"="+marked, good)
	}
}

// login tries one, and has what the client is told.
func (w *canaryWorld) login(g *gate, user, password string) error {
	w.t.Helper()
	conf := configOf(w.t, g.dsn("session"))
	conf.User, conf.Password = user, password
	conn, err := pgx.ConnectConfig(w.t.Context(), conf)
	if err != nil {
		w.hear("what a client is told", sqlstate(err)+fmt.Sprint(err))
		return err
	}
	w.hear("what a client is told", value(w.t, conn, "select current_user"))
	closeConn(conn)
	return nil
}

func TestCanaries(t *testing.T) {
	t.Parallel()
	w := newCanaryWorld(t)
	w.hear("postern store import", w.load(w.acme))
	w.serve()
	if !strings.Contains(w.run("", nil, "token", "make", "ci", "--scope", "tenant:read", "--tenant", "acme"), "postern_") {
		t.Fatal("no token was made")
	}
	w.call(w.a.Token, "POST", "/v1/tokens", `{"name": "api", "scope": "tenant:write", "tenant": "acme"}`)

	// Logins, good and bad.
	for _, g := range []*gate{w.a, w.b} {
		if err := w.login(g, "app.acme", w.pw); err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"app.acme", "nobody.acme", "app.nobody", "app"} {
			if err := w.login(g, user, w.mark("a wrong password of "+user)); err == nil {
				t.Errorf("%s has logged in with a wrong password", user)
			}
		}
	}
	w.changes()
	w.commands()

	// What has been said. The first node ends, so that its cache file is what it leaves.
	w.show()
	for _, g := range []*gate{w.a, w.b} {
		g.Signal(t, syscall.SIGHUP)
		for _, path := range []string{"/metrics", "/metrics/tenants/acme"} {
			_, text := g.Admin(t, http.MethodGet, path, nil)
			w.hear("the metrics", string(text))
		}
	}
	w.judge()
}

// changes makes them by the API: each secret set well, and refused.
func (w *canaryWorld) changes() {
	t := w.t
	client := harness.Certificates(t).IssueClient(t, "postern")
	chain, err := os.ReadFile(client.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(client.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	w.keep("client_key", block.Bytes)
	for i, line := range strings.Split(strings.TrimSpace(string(key)), "\n") {
		if i > 0 && len(line) == 64 {
			w.keep(fmt.Sprint("line of client_key ", i), []byte(line))
		}
	}
	w.must("PATCH", "/v1/tenants/acme", harness.Map{"auth_query": harness.Map{"user": w.role, "password": w.mark("auth_query's password")}})
	w.must("PUT", "/v1/tenants/globex", harness.Map{"upstream": harness.Map{"host": "localhost", "port": 1, "tls": "require", "client_cert": string(chain), "client_key": string(key)}})
	v, err := scram.NewVerifier(w.mark("the password of a verifier"), scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.must("PUT", "/v1/tenants/acme/users/one", harness.Map{"verifier": w.keepVerifier(t, "one's verifier", v.Encode()), "server_password": w.mark("one's server_password"), "upstream": harness.Map{"user": "u"}})
	w.must("PATCH", "/v1/tenants/acme/users/one", harness.Map{"password": w.mark("one's password")})

	flat := func(key string, value any) harness.Map { return harness.Map{key: value} }
	w.refused("PATCH", "/v1/tenants/acme/users/one", flat, "password", "verifier", "server_password")
	w.refused("PUT", "/v1/tenants/acme/users/two", flat, "password", "verifier", "server_password")
	w.refused("PATCH", "/v1/tenants/globex", func(key string, value any) harness.Map { return harness.Map{"upstream": harness.Map{key: value}} }, "client_key")
	w.refused("PATCH", "/v1/tenants/acme", func(key string, value any) harness.Map {
		return harness.Map{"auth_query": harness.Map{"user": w.role, key: value}}
	}, "password")
	for _, path := range []string{"/v1/tenants", "/v1/tenants/acme", "/v1/tenants/globex", "/v1/tenants/acme/users", "/v1/tenants/acme/users/one", "/v1/tenants/acme/refusals", "/v1/tenants/acme/bans",
		"/v1/tenants/acme/sessions", "/v1/tokens", "/v1/audit?limit=200", "/v1/cluster", "/v1/projects/acme/config/database/pooler", "/v1/nothing", "/readyz"} {
		for _, token := range []string{w.a.Token, w.made["ci"], w.made["api"], "postern_" + strings.TrimRight(w.mark("a wrong token for "+path), "/&")} {
			w.call(token, "GET", path, "")
		}
	}
}

// commands runs them, with what they are right to refuse.
func (w *canaryWorld) commands() {
	t, conf := w.t, []string{"--config", filepath.Join(w.dir, "postern.yaml")}
	store := func(args ...string) string {
		return w.run("", nil, append(append([]string{"store"}, args...), conf...)...)
	}
	if out := w.run(w.mark("a password that is typed")+"\n", nil, "user", "password", "acme", "one"); !strings.Contains(out, "in force") {
		t.Errorf("user password says %q", out)
	}
	for _, key := range []string{"password", "verifier", "server_password", "no_such"} {
		w.run(key+": ["+w.mark("a list in YAML: "+key)+"]", nil, "user", "put", "acme", "one", "-")
		w.run(key+": '"+w.mark("YAML that is cut: "+key), nil, "user", "put", "acme", "one", "-")
	}
	w.run("upstream: {client_key: '"+w.mark("no client_key")+"'}", nil, "tenant", "patch", "globex", "-")
	for _, args := range []string{"tenant list", "tenant show acme", "tenant show globex", "user list acme", "user show acme one", "token list", "ban list acme", "session list acme", "audit list --limit 200",
		"restriction refused acme", "cluster status"} {
		w.run("", nil, strings.Fields(args)...)
		w.run("", nil, append(strings.Fields(args), "--json")...)
		w.run("", []string{"POSTERN_TOKEN=" + w.mark("a wrong token of "+args)}, strings.Fields(args)...)
	}
	w.run("", nil, append([]string{"audit", "verify"}, conf...)...)

	w.secretFile("web.pw", w.mark("web's next password"))
	if out := store("import", "--dry-run", filepath.Join(w.dir, "tenants.yaml")); !strings.Contains(out, `users["web"]`) {
		t.Errorf("import --dry-run says %q", out)
	}
	store("import", filepath.Join(w.dir, "tenants.yaml"))
	w.acme["users"] = append(w.acme["users"].([]harness.Map), harness.Map{"name": "bad", "verifier": w.mark("a verifier that is none")})
	store("import", w.yaml("bad.yaml", harness.Map{"tenants": []harness.Map{w.acme}}))
	w.acme["users"] = w.acme["users"].([]harness.Map)[:2]
	store("export")
	store("nodes")
	if out := store("rotate-key"); !strings.Contains(out, "nothing needs k1 any more") {
		t.Errorf("rotate-key says %q", out)
	}
	w.keepKeys()
	w.run("", nil, append([]string{"check-config"}, conf...)...)

	// Files of secrets that are no good.
	files := harness.Map{"dsn_file": w.secretFile("bad.dsn", fmt.Sprintf("host=127.0.0.1 port=%d user=keeper password='%s' dbname=x sslmode=disable", w.cluster.Port(), w.mark("a wrong dsn"))),
		"key_file": filepath.Join(w.dir, "store.key")}
	bad := func(what string) {
		path := w.yaml("bad-"+what+".yaml", harness.Map{"listeners": []harness.Map{{"name": "l", "address": "127.0.0.1:1"}}, "tenants": harness.Map{"postgres": files}})
		for _, args := range [][]string{{"serve"}, {"store", "nodes"}, {"store", "export"}, {"check-config"}} {
			w.run("", nil, append(args, "--config", path)...)
		}
	}
	bad("password")
	files["dsn_file"] = w.secretFile("bad.dsn", "host=127.0.0.1 password='"+w.mark("a dsn that cannot be read"))
	bad("dsn")
	files["dsn_file"] = w.secretFile("bad.dsn", "postgres://keeper:"+w.mark("a URL that cannot be read")+"%zz@127.0.0.1/x")
	bad("url")
	files["dsn_file"], files["key_file"] = filepath.Join(w.dir, "dsn"), w.secretFile("bad.key", "k1 "+w.mark("a key that is none"))
	bad("key")
}

// judge ends the nodes and looks at everything.
func (w *canaryWorld) judge() {
	t := w.t
	for _, g := range []*gate{w.a, w.b} {
		if code := g.Stop(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		w.hear("the log", g.Log().String())
	}
	cache, err := os.ReadFile(filepath.Join(w.dir, "tenants.cache"))
	if err != nil || len(cache) == 0 {
		t.Fatalf("the cache file: %d bytes, %v", len(cache), err)
	}
	w.hear("the cache file", string(cache))
	w.hear("the store's tables", harness.StoreDump(t, w.connect()))
	all := w.found()
	for _, one := range all {
		t.Error(one)
	}
	t.Logf("%d secrets, %d places", len(w.secrets), len(w.heard))
	w.hear("the log", w.pw)
	if len(w.found()) <= len(all) {
		t.Error("a secret that was told is not found")
	}
}
