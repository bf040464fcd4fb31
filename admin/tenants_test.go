// Tests of the tenants' documents: read, put, patched, removed, on conditions, and as strict as can be.

package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// answer is what tests look at of an answer.
type answer struct {
	*httptest.ResponseRecorder
	t *testing.T
}

// to asks, and checks the answer against the document.
func (w *world) to(t *testing.T, kind, method, path, body string, headers ...string) answer {
	t.Helper()
	got := w.ask(kind, method, path, body, headers...)
	at, _, _ := strings.Cut(path, "?")
	for _, r := range w.routes() {
		if matches(r.path, at) && r.method == method && got.Code != 405 {
			loadSchemas(t).checkAnswer(t, method, r.path, got.Code, got.Body.Bytes())
			return answer{got, t}
		}
	}
	t.Fatalf("%s %s is no route", method, path)
	return answer{}
}

// matches reports whether a path is one of a pattern.
func matches(pattern, path string) bool {
	a, b := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !strings.HasPrefix(a[i], "{") {
			return false
		}
	}
	return true
}

// is fails the test unless the answer is this one, of which says is a part.
func (a answer) is(code int, says ...string) answer {
	a.t.Helper()
	for _, part := range says {
		if !strings.Contains(a.Body.String(), part) {
			a.t.Errorf("%s\nlacks %s", a.Body, part)
		}
	}
	if a.Code != code {
		a.t.Errorf("%d %s, want %d", a.Code, a.Body, code)
	}
	return a
}

// value is what is at a path of keys in the answer.
func (a answer) value(keys ...string) any {
	a.t.Helper()
	var v any
	if err := json.Unmarshal(a.Body.Bytes(), &v); err != nil {
		a.t.Fatalf("%v: %s", err, a.Body)
	}
	for _, key := range keys {
		v = v.(map[string]any)[key]
	}
	return v
}

func TestTenantsAreListed(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		tenant := anUpstream(fmt.Sprint("t", i))
		w.store.all[tenant.ID] = tenants.Record{Tenant: tenant, Revision: int64(100 + i)}
	}
	var ids []string
	for after, pages := "", 0; ; pages++ {
		path := "/v1/tenants?limit=3"
		if after != "" {
			path += "&after=" + after
		}
		page := w.to(t, "operator", "GET", path, "").is(200)
		for _, tenant := range page.value("tenants").([]any) {
			ids = append(ids, tenant.(map[string]any)["id"].(string))
		}
		next, more := page.value("next").(string)
		if !more {
			if pages != 2 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
		after = next
	}
	if got := strings.Join(ids, " "); got != "acme globex t0 t1 t2 t3 t4" {
		t.Errorf("got %s", got)
	}
	w.to(t, "operator", "GET", "/v1/tenants?after=t4", "").is(200, `{"tenants":[],"next":null}`)
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "after=A", "after=", "limit=1&limit=1", "before=a", "%zz"} {
		w.to(t, "operator", "GET", "/v1/tenants?"+query, "").is(400)
	}
}

func TestTenantIsRead(t *testing.T) {
	w := newWorld(t)
	got := w.to(t, "operator", "GET", "/v1/tenants/acme", "").is(200, `{"id":"acme","revision":"1","changed":"2027-01-15T08:00:00Z","document":{"upstream":{"host":"10.1.2.3"`)
	if got.Header().Get("ETag") != `"1"` {
		t.Errorf("%v", got.Header())
	}
	for _, kind := range []string{"read", "write"} {
		if got := w.to(t, kind, "GET", "/v1/tenants/acme", "").is(200, `"pool"`); strings.Contains(got.Body.String(), "10.1.2.3") || strings.Contains(got.Body.String(), "upstream") {
			t.Errorf("%s sees %s", kind, got.Body)
		}
	}
	w.to(t, "operator", "GET", "/v1/tenants/nobody", "").is(404)
	w.to(t, "operator", "GET", "/v1/tenants/acme?x=1", "").is(400)
}

func TestTenantIsPut(t *testing.T) {
	w := newWorld(t)
	made := w.to(t, "operator", "PUT", "/v1/tenants/new", `{"upstream":{"host":"db.internal"},"allow_list":["203.0.113.0/24"]}`, "If-None-Match", "*").
		is(201, `"allow_list":["203.0.113.0/24"]`, `"port":5432`, `"applied":{"everywhere":true`)
	etag := made.Header().Get("ETag")
	w.to(t, "operator", "PUT", "/v1/tenants/new", `{"upstream":{"host":"db.internal"}}`, "If-None-Match", "*").is(412, "it is there already")
	w.to(t, "operator", "PUT", "/v1/tenants/new", `{"upstream":{"host":"db.internal"}}`, "If-Match", `"1"`).is(412, "somebody else has changed it")
	again := w.to(t, "operator", "PUT", "/v1/tenants/new", `{"upstream":{"host":"db.internal"},"pool":{"size":3}}`, "If-Match", etag).is(200, `"size":3`)
	if strings.Contains(again.Body.String(), "allow_list") || again.Header().Get("ETag") == etag {
		t.Errorf("what is not there any more is still there: %s", again.Body)
	}
	w.to(t, "operator", "PUT", "/v1/tenants/other", `{"upstream":{"host":"db.internal"}}`, "If-Match", "*").is(404)

	// Putting what is there changes nothing, its users least of all.
	acme, _ := json.Marshal(w.to(t, "operator", "GET", "/v1/tenants/acme", "").value("document"))
	w.to(t, "operator", "PUT", "/v1/tenants/acme", string(acme)).is(200, `"revision":"1"`)
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{"upstream":{"host":"db.internal"}}`).is(200)
	if u := w.store.all["acme"].Tenant.Users["app"]; u == nil || u.Password.Reveal() != "s3cret-app" || u.ServerUser != "secret_role" {
		t.Errorf("its user is %+v", u)
	}
	if last := w.store.entries[len(w.store.entries)-1]; last.Action != "tenant.put" || last.By.Name != "operator" || last.Outcome != "done" {
		t.Errorf("audit: %+v", last)
	}
	for _, id := range []string{"NEW", "-new", "a%2Fb", "%2E%2E", strings.Repeat("a", 64)} {
		w.to(t, "operator", "PUT", "/v1/tenants/"+id, `{"upstream":{"host":"db.internal"}}`).is(422, "is no tenant id: it must match ^[a-z0-9]")
		w.to(t, "operator", "PATCH", "/v1/tenants/"+id, `{}`).is(404)
	}
}

// TestUnreadableTenant: what the store has of it can be replaced as a whole, or removed, and not be changed.
func TestUnreadableTenant(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"acme", "globex"} {
		w.store.unreadable[id] = true
		path := "/v1/tenants/" + id
		w.to(t, "operator", "GET", path, "").is(500, "cannot be read", "PUT")
		w.to(t, "operator", "PATCH", path, `{"require_tls":true}`).is(500, "cannot be read")
		w.to(t, "operator", "PUT", path+"/users/app", `{"password":"s3cret"}`).is(500, "cannot be read")
		w.to(t, "operator", "DELETE", path+"/users/app", "").is(500, "cannot be read")
		w.to(t, "operator", "PUT", "/v1/projects/"+id+"/ssl-enforcement", `{"requestedConfig":{"database":true}}`).is(500, "cannot be read")
	}
	w.gate.locked, w.gate.open = 2, 2
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{"upstream":{"host":"db.internal"}}`).is(409, "confirm=true")
	w.gate.locked = 0
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{"upstream":{"host":"db.internal"}}`).is(200)
	w.to(t, "operator", "GET", "/v1/tenants/acme", "").is(200)
	w.to(t, "operator", "DELETE", "/v1/tenants/globex", "").is(200)
	w.to(t, "operator", "GET", "/v1/tenants/globex", "").is(404)
}

func TestTenantIsPatched(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme"
	for _, mediaType := range []string{"application/json", "application/merge-patch+json"} {
		w.to(t, "operator", "PATCH", path, `{"pool":{"size":3,"mode":"session"},"timeouts":{"query":"5s"}}`, "Content-Type", mediaType).
			is(200, `"size":3`, `"mode":"session"`, `"query":"5s"`, `"max_clients":1000`, `"host":"10.1.2.3"`)
	}
	w.to(t, "operator", "PATCH", path, `{"pool":{"size":null},"timeouts":null}`).is(200, `"size":20`, `"mode":"session"`)
	w.to(t, "operator", "PATCH", path, `{"upstream":null,"machine":{"provider":"local","name":"acme"}}`).is(200, `"machine"`)
	rules := `"allow_list":["203.0.113.0/24",{"cidr":"::/0","comment":"a","expires":"2027-01-31T18:00:00Z"},{"endpoint":{"provider":"gcp","id":"7"}},{"flycast":"fdaa::3"}],"restrictions_mode":"observe","flycast":"fdaa::3"`
	w.to(t, "operator", "PATCH", path, "{"+rules+"}").is(200, rules)
	w.to(t, "operator", "PATCH", path, `{"allow_list":[]}`).is(200, `"allow_list":[]`)
	w.to(t, "operator", "PATCH", path, `{}`).is(200, `"allow_list":[]`)
	w.to(t, "operator", "PATCH", path, `{"allow_list":null}`).is(422, `"pointer":"/allow_list"`, "0.0.0.0/0", "::/0")
	w.to(t, "operator", "PATCH", "/v1/tenants/nobody", `{"require_tls":true}`).is(404)
	before := len(w.store.entries)
	w.to(t, "operator", "PATCH", path, `{}`, "If-Match", `"99"`).is(412)
	if n := len(w.store.entries) - before; n != 1 { // by the store
		t.Errorf("a refused change is written down %d times", n)
	}
	if u := w.store.all["acme"].Tenant.Users["app"]; u == nil || u.Password.Reveal() != "s3cret-app" {
		t.Errorf("its user is %+v", u)
	}
}

// keyPair is a certificate with its key, in PEM, as a JSON text.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		quoted, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
		return string(quoted)
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", bytes)
}

// TestTenantsSecret: the key that belongs to a certificate goes in, stays, goes with it, and never comes out.
func TestTenantsSecret(t *testing.T) {
	w := newWorld(t)
	cert, key := keyPair(t)
	const path = "/v1/tenants/acme"
	has := func() bool { return !w.store.all["acme"].Tenant.Upstream.ClientKey.IsZero() }
	for i, step := range []struct {
		method, body string
		code         int
		has          bool
	}{
		{"PUT", `{"upstream":{"host":"x","client_cert":` + cert + `}}`, 422, false},
		{"PUT", `{"upstream":{"host":"x","client_key":` + key + `}}`, 422, false},
		{"PUT", `{"upstream":{"host":"x","client_cert":` + cert + `,"client_key":` + key + `}}`, 200, true},
		{"PUT", `{"upstream":{"host":"y","client_cert":` + cert + `}}`, 200, true},
		{"PATCH", `{"upstream":{"port":6000}}`, 200, true},
		{"PATCH", `{"upstream":{"client_key":null}}`, 422, true},
		{"PATCH", `{"upstream":{"client_key":""}}`, 422, true},
		{"PUT", `{"upstream":{"host":"y","client_cert":` + cert + `,"client_key":null}}`, 422, true},
		{"PATCH", `{"machine":{"client_key":` + key + `}}`, 422, true},
		{"PATCH", `{"upstream":{"client_cert":null}}`, 200, false},
		{"PATCH", `{"upstream":{"client_cert":` + cert + `,"client_key":` + key + `}}`, 200, true},
	} {
		got := w.to(t, "operator", step.method, path, step.body).is(step.code)
		if has() != step.has || strings.Contains(got.Body.String(), "PRIVATE KEY") || step.code == 200 && strings.Contains(got.Body.String(), `"secrets_set":["upstream.client_key"]`) != step.has {
			t.Errorf("step %d: %t, %s", i, has(), got.Body)
		}
	}
	w.to(t, "read", "GET", path, "").is(200, `"secrets_set":[]`)
	if strings.Contains(w.log.String()+fmt.Sprint(w.store.entries), "PRIVATE KEY") {
		t.Error("the key is in a log")
	}
}

// TestTenantsAuthQuery: the password that asks for roles goes in, stays, goes with what it belongs to, and never comes out.
func TestTenantsAuthQuery(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme"
	for i, step := range []struct {
		method, body string
		code         int
		want         string // the password
	}{
		{"PATCH", `{"auth_query":{"user":"asker"}}`, 422, ""},
		{"PATCH", `{"auth_query":{"user":"asker","password":"c4nary"}}`, 200, "c4nary"},
		{"PATCH", `{"auth_query":{"user":"other","database":"d"}}`, 200, "c4nary"},
		{"PATCH", `{"auth_query":{"password":"c4nary-2"}}`, 200, "c4nary-2"},
		{"PATCH", `{"auth_query":{"password":null}}`, 422, "c4nary-2"},
		{"PATCH", `{"auth_query":{"query":"select"}}`, 422, "c4nary-2"},
		{"PATCH", `{"auth_query":null}`, 200, ""},
	} {
		got := w.to(t, "operator", step.method, path, step.body).is(step.code)
		is := ""
		if q := w.store.all["acme"].Tenant.AuthQuery; q != nil {
			is = q.Password.Reveal()
		}
		if is != step.want || strings.Contains(got.Body.String(), "c4nary") {
			t.Errorf("step %d: %q, %s", i, is, got.Body)
		}
	}
	w.to(t, "write", "PATCH", path, `{"auth_query":{"user":"mine","password":"mine"}}`).is(403)
	if strings.Contains(w.log.String()+fmt.Sprint(w.store.entries), "c4nary") {
		t.Error("a password is in a log")
	}
}

// TestKeysOfFiles: whoever names a file, as a tenants file does, is told where the secret itself goes.
func TestKeysOfFiles(t *testing.T) {
	w := newWorld(t)
	for key, body := range map[string]string{
		"service.password":    `{"service":{"user":"x","password_file":"f"}}`,
		"auth_query.password": `{"auth_query":{"user":"x","password":"s3cret","password_file":null}}`,
		"machine.token":       `{"machine":{"provider":"fly","app":"a","id":"1","token_file":"f"}}`,
	} {
		for _, method := range []string{"PATCH", "PUT"} {
			got := w.to(t, "operator", method, "/v1/tenants/acme", body).is(422, `there is no such key: the secret itself goes into `+key)
			if errors, _ := got.value("errors").([]any); len(errors) != 1 || strings.Contains(got.Body.String(), "s3cret") {
				t.Errorf("%s", got.Body)
			}
		}
	}
}

// TestTenantsMachineToken: a tenant's token for Fly's API goes in, stays, is its operator's alone, and never comes out.
func TestTenantsMachineToken(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme"
	const fly = `"provider":"fly","app":"acme-db","id":"9080e6f1","tls":"disable"`
	for i, step := range []struct {
		method, body string
		code         int
		want         string // the token
	}{
		{"PATCH", `{"machine":{"token":"c4nary"}}`, 422, ""},
		{"PATCH", `{"upstream":null,"machine":{` + fly + `,"token":"c4nary two words"}}`, 422, ""},
		{"PATCH", `{"upstream":null,"machine":{` + fly + `,"token":""}}`, 422, ""},
		{"PATCH", `{"upstream":null,"machine":{` + fly + `,"token_file":"/etc/passwd"}}`, 422, ""},
		{"PATCH", `{"upstream":null,"machine":{` + fly + `,"token":"c4nary"}}`, 200, "c4nary"},
		{"PUT", `{"machine":{` + fly + `}}`, 200, "c4nary"},
		{"PATCH", `{"machine":{"suspend_after":"9m"}}`, 200, "c4nary"},
		{"PATCH", `{"machine":{"token":"FlyV1 c4nary-2"}}`, 200, "FlyV1 c4nary-2"},
		{"PATCH", `{"machine":{"token":null}}`, 200, ""},
		{"PATCH", `{"machine":{"token":"c4nary-3"}}`, 200, "c4nary-3"},
		{"PATCH", `{"machine":{"provider":"local","app":null,"id":null,"port":null,"name":"m","token":"c4nary-4"}}`, 422, "c4nary-3"},
		{"PATCH", `{"machine":{"provider":"local","app":null,"id":null,"port":null,"name":"m"}}`, 200, ""},
		{"PATCH", `{"machine":{` + fly + `,"name":null,"token":"c4nary-5"}}`, 200, "c4nary-5"},
	} {
		got := w.to(t, "operator", step.method, path, step.body).is(step.code)
		is := ""
		if m := w.store.all["acme"].Tenant.Machine; m != nil {
			is = m.Token.Reveal()
		}
		if is != step.want || strings.Contains(got.Body.String(), "c4nary") || step.code == 200 && strings.Contains(got.Body.String(), `"secrets_set":["machine.token"]`) != (is != "") {
			t.Errorf("step %d: %q, %s", i, is, got.Body)
		}
	}
	w.to(t, "operator", "GET", path, "").is(200, `"secrets_set":["machine.token"]`)
	w.to(t, "write", "PATCH", path, `{"machine":{"token":"mine"}}`).is(403)
	w.to(t, "write", "PATCH", path, `{"machine":{"token":null}}`).is(403)
	if got := w.to(t, "read", "GET", path, "").is(200, `"secrets_set":[]`); strings.Contains(got.Body.String(), "token") {
		t.Errorf("an owner sees %s", got.Body)
	}
	if strings.Contains(w.log.String()+fmt.Sprint(w.store.entries), "c4nary") {
		t.Error("a token is in a log")
	}
}

func TestTenantIsDeleted(t *testing.T) {
	w := newWorld(t)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme", "", "If-Match", `"2"`).is(412)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme", "", "If-Match", `"1"`).is(200, `{"id":"acme","applied":{"everywhere":true`)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme", "").is(404)
	w.to(t, "operator", "GET", "/v1/tenants/acme", "").is(404)
	w.to(t, "operator", "DELETE", "/v1/tenants/globex?force=1", "").is(400)
	w.to(t, "operator", "DELETE", "/v1/tenants/globex", `{"a":1}`).is(400)
}

// TestBodiesAreStrict: what is wrong is told with where it is, all of it at once, and nothing happens.
func TestBodiesAreStrict(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"PUT", "PATCH"} {
		for body, want := range map[string]string{
			``:                                       "400 missing",
			` `:                                      "400 not JSON",
			`{`:                                      "400 not JSON",
			`{"a":}`:                                 "400 not JSON",
			`{}{}`:                                   "400 something follows",
			`{} x`:                                   "400 something follows",
			`{"pool":{"size":1,"size":2}}`:           "400 twice",
			"{\"database\":\"\xff\"}":                "400 UTF-8",
			`{"a":` + strings.Repeat("[", 100) + `}`: "400 too deeply",
			`null`:                                   "422 ",
			`[]`:                                     "422 ",
			`5`:                                      "422 ",
			`{"nothing":1}`:                          "422 /nothing",
			`{"Pool":{}}`:                            "422 /Pool",
			`{"id":"acme"}`:                          "422 /id",
			`{"users":[]}`:                           "422 /users",
			`{"pool":{"size~/":1}}`:                  "422 /pool/size~0~1",
			`{"pool":{"size":"1"}}`:                  "422 /pool/size",
			`{"pool":{"size":1.5}}`:                  "422 /pool/size",
			`{"pool":{"size":99999999999999999999}}`: "422 /pool/size",
			`{"pool":[]}`:                            "422 /pool",
			`{"require_tls":"yes"}`:                  "422 /require_tls",
			`{"database":5}`:                         "422 /database",
			`{"databases":"a"}`:                      "422 /databases",
			`{"databases":["a",5]}`:                  "422 /databases/1",
			`{"databases":[null]}`:                   "422 /databases/0",
			`{"timeouts":{"query":5}}`:               "422 /timeouts/query",
			`{"timeouts":{"query":"5"}}`:             "422 /timeouts/query",
			`{"allow_list":null}`:                    "422 /allow_list",
			`{"allow_list":["1.2.3.4/33"]}`:          "422 /allow_list/0",
			`{"allow_list":[{"CIDR":"1.2.3.4"}]}`:    "422 /allow_list/0",
			`{"allow_list":["::1",{"cidr":"1.2.3.4","expires":"soon"}]}`: "422 /allow_list/1",
			`{"flycast":"::1","upstream":{"host":"x"}}`:                  "422 /flycast",
			`{"upstream":{"host":"x","ca_file":"/"}}`:                    "422 /upstream/ca_file",
			`{"upstream":{"host":"x","ca":"x"}}`:                         "422 /upstream/ca",
			`{"upstream":{"host":"x","port":70000}}`:                     "422 /upstream/port",
			`{"state":{"set":5}}`:                                        "422 /state/set",
			`{"upstream":{"host":"db:5432"}}`:                            "422 /upstream/host", // from here on it is tenants.Validate that says so
			`{"upstream":{"host":"x"},"state":{"nothing":"pin"}}`:        "422 /state",
			`{"upstream":{"host":"x"},"databases":["postgres","a","a"]}`: "422 /databases/2",
			`{"upstream":{"host":"x"},"pool":{"size":0}}`:                "422 /pool/size",
		} {
			code, says, _ := strings.Cut(want, " ")
			got := w.to(t, "operator", method, "/v1/tenants/acme", body, "Content-Type", "application/json")
			if code == "422" {
				says = fmt.Sprintf(`{"pointer":%q,`, says)
			}
			if fmt.Sprint(got.Code) != code || !strings.Contains(got.Body.String(), says) {
				t.Errorf("%s %s: %d %s, want %s", method, body, got.Code, got.Body, want)
			}
		}
	}
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{"a":1,"b":2,"upstream":{"c":3}}`).is(422, `"/a"`, `"/b"`, `"/upstream/c"`)
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{}`).is(422, `{"pointer":"/upstream","detail":"upstream or machine is missing"}`)
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{"upstream":{"host":"x"},"machine":{"provider":"local","name":"x"}}`).is(422, `"/machine"`)
	w.to(t, "operator", "PUT", "/v1/tenants/acme", `{}`, "Content-Type", "application/merge-patch+json").is(415)
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{}`, "Content-Type", "text/plain").is(415)
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", strings.Repeat(" ", maxDocument+1)).is(413)
	for _, header := range []string{`"x"`, `1`, `W/"1"`, `"1", "2"`, `"01"`, `"-1"`, `"0"`, `""`} {
		w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{}`, "If-Match", header).is(400)
	}
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{}`, "If-None-Match", `"1"`).is(400)
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{}`, "If-None-Match", `*`, "If-Match", `"1"`).is(400)
	w.to(t, "operator", "PATCH", "/v1/tenants/acme?wait=2", `{}`).is(400)
	if w.store.all["acme"].Revision != 1 {
		t.Error("something was changed")
	}
}

// TestManyNetworks: ten thousand are taken.
func TestManyNetworks(t *testing.T) {
	w := newWorld(t)
	var list []string
	for i := range 10_000 {
		list = append(list, fmt.Sprintf("2001:db8:%x:%x::/64", i/256, i%256))
	}
	body, _ := json.Marshal(map[string]any{"allow_list": list})
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", string(body)).is(200)
}

// TestAppliedIsAwaited, for a second, and no longer than that.
func TestAppliedIsAwaited(t *testing.T) {
	for query, want := range map[string]time.Duration{"": 300 * time.Millisecond, "?wait=1": 300 * time.Millisecond, "?wait=0": 0} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			begin := time.Now()
			w.store.applied = func(version int64) tenants.Applied {
				if version == 3 && time.Since(begin) >= 300*time.Millisecond {
					return tenants.Applied{Everywhere: true, At: time.Now()}
				}
				return tenants.Applied{Missing: []string{"b"}}
			}
			got := w.to(t, "operator", "PATCH", "/v1/tenants/acme"+query, `{"require_tls":true}`).is(200)
			if took := time.Since(begin); took < want || took > want+appliedWait/2 || got.value("applied", "everywhere") != (want > 0) {
				t.Errorf("%q: after %v: %s", query, took, got.Body)
			}
			w.store.applied = func(int64) tenants.Applied { return tenants.Applied{Missing: []string{"b"}} }
			begin = time.Now()
			w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{"require_tls":false}`).is(200, `"applied":{"everywhere":false,"at":null,"missing":["b"]}`)
			if took := time.Since(begin); took != appliedWait {
				t.Errorf("gave up after %v", took)
			}
		})
	}
}
