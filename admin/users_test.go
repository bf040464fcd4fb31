// Tests of the users of a tenant, and that their secrets only go in.

package admin

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/postern/postern/tenants"
)

func TestUsersAreListed(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		name := fmt.Sprint("u", i)
		w.store.all["acme"].Tenant.Users[name] = &tenants.User{Name: name, Password: tenants.NewSecret("s3cret"), ServerUser: name, ServerAuth: tenants.AuthSCRAM}
	}
	w.to(t, "read", "GET", "/v1/tenants/acme/users?limit=2", "").is(200, `{"name":"app"`, `{"name":"u0"`, `"next":"u0"`, `"revision":"1"`)
	w.to(t, "read", "GET", "/v1/tenants/acme/users?limit=4&after=app", "").is(200, `{"users":[{"name":"u0"`, `"u3"`, `"next":null`)
	w.to(t, "read", "GET", "/v1/tenants/acme/users?after=zz", "").is(200, `{"users":[],"next":null`)
	w.to(t, "operator", "GET", "/v1/tenants/nobody/users", "").is(404)
	w.to(t, "operator", "GET", "/v1/tenants/acme/users?x=1", "").is(400)
}

func TestUserIsRead(t *testing.T) {
	w := newWorld(t)
	got := w.to(t, "operator", "GET", "/v1/tenants/acme/users/app", "").is(200, `"upstream":{"user":"secret_role"`, `"verifier_set":false,"password_set":true,"server_password_set":true`)
	if got.Header().Get("ETag") != `"1"` {
		t.Errorf("%v", got.Header())
	}
	for _, kind := range []string{"read", "write"} {
		if got := w.to(t, kind, "GET", "/v1/tenants/acme/users/app", "").is(200); strings.Contains(got.Body.String(), "upstream") {
			t.Errorf("%s sees %s", kind, got.Body)
		}
	}
	w.to(t, "operator", "GET", "/v1/tenants/acme/users/nobody", "").is(404, "no such user")
	w.to(t, "operator", "GET", "/v1/tenants/acme/users/app?x=1", "").is(400)
}

// secrets are what a user of the store has.
func (w *world) secrets(tenant, user string) string {
	u := w.store.all[tenant].Tenant.Users[user]
	if u == nil {
		return "nobody"
	}
	return u.Verifier.Reveal() + "/" + u.Password.Reveal() + "/" + u.ServerPassword.Reveal()
}

func TestUserIsWritten(t *testing.T) {
	w := newWorld(t)
	const app, web = "/v1/tenants/acme/users/app", "/v1/tenants/acme/users/a%2Fb"
	for i, step := range []struct {
		method, path, body string
		code               int
		secrets            string // of app, then
	}{
		{"PUT", app, `{}`, 200, "/s3cret-app/s3cret-server"},
		{"PUT", app, `{"verifier":"s3cret-v"}`, 200, "s3cret-v//s3cret-server"},
		{"PUT", app, `{"password":"s3cret-p"}`, 200, "/s3cret-p/s3cret-server"},
		{"PUT", app, `{"password":"s3cret-p","verifier":"s3cret-v"}`, 422, "/s3cret-p/s3cret-server"},
		{"PUT", app, `{"password":null}`, 422, "/s3cret-p/s3cret-server"},
		{"PUT", app, `{"password":""}`, 422, "/s3cret-p/s3cret-server"},
		{"PUT", app, `{"password":"s3cret-p\u0000"}`, 422, "/s3cret-p/s3cret-server"},
		{"PATCH", app, `{"server_password":null}`, 200, "/s3cret-p/"},
		{"PATCH", app, `{"pool_size":5,"server_password":"s3cret-x"}`, 200, "/s3cret-p/s3cret-x"},
		{"PATCH", app, `{"verifier":"s3cret-v"}`, 200, "s3cret-v//s3cret-x"},
		{"PATCH", app, `{"verifier":null,"password":"s3cret-p"}`, 200, "/s3cret-p/s3cret-x"},
		{"PATCH", app, `{"password":null}`, 422, "/s3cret-p/s3cret-x"},
		{"PATCH", app, `{"password_file":"/etc/passwd"}`, 422, "/s3cret-p/s3cret-x"},
		{"PATCH", app, `{"name":"x"}`, 422, "/s3cret-p/s3cret-x"},
		{"PATCH", app, `{"upstream":{"user":"r","auth":"md5"}}`, 200, "/s3cret-p/s3cret-x"},
		{"PATCH", web, `{"password":"s3cret"}`, 404, "/s3cret-p/s3cret-x"},
		{"PUT", web, `{}`, 422, "/s3cret-p/s3cret-x"},
		{"PUT", web, `{"password":"s3cret"}`, 201, "/s3cret-p/s3cret-x"},
		{"DELETE", web, ``, 200, "/s3cret-p/s3cret-x"},
		{"DELETE", web, ``, 404, "/s3cret-p/s3cret-x"},
		{"DELETE", app, ``, 200, "nobody"},
		{"PUT", "/v1/tenants/nobody/users/app", `{"password":"s3cret"}`, 404, "nobody"},
	} {
		got := w.to(t, "operator", step.method, step.path, step.body).is(step.code)
		if secrets := w.secrets("acme", "app"); secrets != step.secrets {
			t.Errorf("step %d, %s %s: %s, want %s; %s", i, step.method, step.body, secrets, step.secrets, got.Body)
		}
	}
	if !strings.Contains(fmt.Sprint(w.store.entries), `users["app"].password   true`) {
		t.Errorf("audit: %v", w.store.entries)
	}
}

// TestUserConditions: whether there is one is asked of the user; a revision is the tenant's.
func TestUserConditions(t *testing.T) {
	w := newWorld(t)
	const app, web, body = "/v1/tenants/acme/users/app", "/v1/tenants/acme/users/web", `{"password":"s3cret"}`
	w.to(t, "operator", "PUT", app, body, "If-None-Match", "*").is(412, "it is there already")
	w.to(t, "operator", "PUT", web, body, "If-Match", "*").is(404, "no such user")
	made := w.to(t, "operator", "PUT", web, body, "If-None-Match", "*").is(201)
	w.to(t, "operator", "PUT", web, body, "If-None-Match", "*").is(412)
	w.to(t, "operator", "PATCH", web, `{"pool_size":3}`, "If-Match", `"1"`).is(412, "somebody else")
	w.to(t, "operator", "PATCH", web, `{"pool_size":3}`, "If-Match", made.Header().Get("ETag")).is(200)
	w.to(t, "operator", "DELETE", web, "", "If-Match", made.Header().Get("ETag")).is(412)
	w.to(t, "operator", "DELETE", web, "", "If-Match", "*").is(200)
	w.to(t, "operator", "DELETE", web, "", "If-Match", "x").is(400)
}

// TestStrangeUserNames: whatever a user is called, its path leads to it, and to nobody else.
func TestStrangeUserNames(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{".", "..", "...", "a//b", "//", "a/../b", "/a/", "a/", "%2E", "ä ?#", "a;b", "\n"} {
		segment := strings.ReplaceAll(url.PathEscape(name), ".", "%2E")
		path := "/v1/tenants/acme/users/" + segment
		w.to(t, "operator", "PUT", path, `{"password":"s3cret"}`).is(201)
		if _, is := w.store.all["acme"].Tenant.Users[name]; !is || len(w.store.all["acme"].Tenant.Users) != 2 {
			t.Errorf("%s has made %v", path, w.store.all["acme"].Tenant.Users)
		}
		if got := w.to(t, "read", "GET", path, "").is(200).value("name"); got != name {
			t.Errorf("%s leads to %q", path, got)
		}
		w.to(t, "operator", "DELETE", path, "").is(200)
	}
	for _, path := range []string{"/v1/tenants/acme/users/..", "/v1/tenants/acme/users/.", "/v1/tenants/acme/users//app", "/v1/tenants/acme/users/app/", "/v1/tenants/acme/users/%2F", "//v1/tenants/acme"} {
		if got := w.ask("operator", "DELETE", path, ""); got.Code != 404 || got.Header().Get("Location") != "" {
			t.Errorf("%s: %d %s", path, got.Code, got.Body)
		}
	}
	for _, path := range []string{"/v1/tenants/%2E%2E", "/v1/tenants/acme%2Fusers", "/v1/tokens/%2E%2E", "/v1/cluster/%2F"} {
		w.to(t, "operator", "DELETE", path, "").is(404)
	}
	if w.store.all["acme"].Tenant == nil {
		t.Error("the tenant is gone")
	}
}

func TestUserBodiesAreStrict(t *testing.T) {
	w := newWorld(t)
	for body, pointer := range map[string]string{`{"pool_size":"1"}`: "/pool_size", `{"pool_size":-1}`: "/pool_size", `{"upstream":{"auth":"x"}}`: "/upstream/auth",
		`{"upstream":{"auth":"password"},"password":"a"}`: "", `{"server_password":"s3cret\u0000"}`: "/server_password", `{"timeouts":{"x":"1s"}}`: "/timeouts/x",
		`{"upstream":{"user":5}}`: "/upstream/user", `{"password":5}`: "/password", `{"Password":"a"}`: "/Password"} {
		for _, method := range []string{"PUT", "PATCH"} {
			want := 422
			if pointer == "" { // the server has tls: verify-full, so this is good
				want = 200
			}
			got := w.to(t, "operator", method, "/v1/tenants/globex/users/app", body).is(want)
			if want == 422 && !strings.Contains(got.Body.String(), fmt.Sprintf(`{"pointer":%q,`, pointer)) {
				t.Errorf("%s %s: %s", method, body, got.Body)
			}
		}
	}
	w.to(t, "operator", "PUT", "/v1/tenants/acme/users/app", `{}`, "If-Match", `"7"`).is(412)
	w.to(t, "operator", "PUT", "/v1/tenants/acme/users/app?x=1", `{}`).is(400)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme/users/app", `{"a":1}`).is(400)
	w.to(t, "operator", "DELETE", "/v1/tenants/acme/users/app?x=1", ``).is(400)
}
