// Tests of what a tenant's own token may change, over every field that there is.

package admin

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants/document"
)

// leaves are the keys of a document's values, by their paths, each with a value that is of its type.
func leaves(at string, t reflect.Type, into map[string]string) {
	for key, index := range fieldsOf(t) {
		path := strings.TrimPrefix(at+"."+key, ".")
		f := t.FieldByIndex(index).Type
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		_, readsItself := reflect.New(f).Interface().(interface{ UnmarshalText([]byte) error })
		_, readsJSON := reflect.New(f).Interface().(json.Unmarshaler)
		switch {
		case readsItself:
			into[path] = `"1s"`
		case readsJSON:
			into[path] = `{}`
		case f.Kind() == reflect.Struct:
			leaves(path, f, into)
		case f.Kind() == reflect.Slice:
			into[path] = `[]`
		case f.Kind() == reflect.Map:
			into[path] = `{}`
		case f.Kind() == reflect.Bool:
			into[path] = `true`
		case f.Kind() == reflect.String:
			into[path] = `"x"`
		default:
			into[path] = `1`
		}
	}
}

// nested is the patch that sets one value.
func nested(path, value string) string {
	keys := strings.Split(path, ".")
	for _, key := range slices.Backward(keys) {
		value = fmt.Sprintf(`{%q:%s}`, key, value)
	}
	return value
}

// TestOwnersFields: of all that can be written of a tenant and its users, this and nothing else is its owner's. Who adds a field
// decides here whose it is.
func TestOwnersFields(t *testing.T) {
	owners := "allow_list never_ban pool.max_clients pool.max_database_clients pool.max_database_servers pool.max_servers pool.size require_tls restrictions_mode"
	all, ofUsers := make(map[string]string), make(map[string]string)
	leaves("", reflect.TypeFor[document.Tenant](), all)
	leaves("", reflect.TypeFor[userBody](), ofUsers)
	if len(all) < 40 || len(ofUsers) < 13 {
		t.Fatalf("only %d and %d fields", len(all), len(ofUsers))
	}
	try := func(route string, fields map[string]string) (mine []string) {
		for _, path := range slices.Sorted(maps.Keys(fields)) {
			for _, value := range []string{fields[path], "null"} {
				w := newWorld(t)
				before := w.store.all["acme"]
				got := w.to(t, "write", "PATCH", route, nested(path, value))
				switch {
				case got.Code == 403:
					if !strings.Contains(got.Body.String(), "may not change "+strings.Split(path, ".")[0]) || w.store.all["acme"] != before || len(w.store.entries) != 1 {
						t.Errorf("%s: %s; %v", path, got.Body, w.store.entries)
					}
				case got.Code == 200 || got.Code == 422:
					mine = append(mine, path)
				default:
					t.Errorf("%s: %d %s", path, got.Code, got.Body)
				}
			}
		}
		return slices.Compact(mine)
	}
	if got := strings.Join(try("/v1/tenants/acme", all), " "); got != owners {
		t.Errorf("of the tenant: %s\nwant %s", got, owners)
	}
	if got := strings.Join(try("/v1/tenants/acme/users/app", ofUsers), " "); got != "password verifier" {
		t.Errorf("of users: %s", got)
	}
}

// TestOwnersView: who adds a key of a document decides here whether its owner sees it.
func TestOwnersView(t *testing.T) {
	var keys []string
	for key := range fieldsOf(reflect.TypeFor[document.Tenant]()) {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	const seen = "allow_list auth_query caps client_address client_ca client_cert connection_rate database databases disabled flycast never_ban paused pool require_tls residency restrictions_mode server_reset_always service state timeouts"
	const hidden = "machine upstream"
	want := slices.Sorted(slices.Values(strings.Fields(seen + " " + hidden)))
	if !slices.Equal(keys, want) {
		t.Errorf("keys %v\nwant %v: an owner sees all but those that view leaves out", keys, want)
	}
}

// TestOwnersPool: an owner's numbers go down and up again, and never above the operator's, which the operator can change.
func TestOwnersPool(t *testing.T) {
	w := newWorld(t)
	for i, step := range []struct {
		kind, body string
		code       int
		says       string
	}{
		{"write", `{"pool":{"size":5}}`, 200, `"caps":{"size":20,"max_clients":1000,"max_servers":60,"max_database_clients":1000000,"max_database_servers":1000000}`},
		{"write", `{"pool":{"size":20}}`, 200, `"size":20`},
		{"write", `{"pool":{"size":21}}`, 422, `{"pointer":"/pool/size","detail":"must be between 1 and 20, which is what caps.size says"}`},
		{"write", `{"pool":{"max_database_clients":7}}`, 200, `"max_database_clients":7`},
		{"write", `{"pool":{"max_database_clients":null}}`, 200, ``}, // the operator had no limit there
		{"write", `{"caps":{"size":30}}`, 403, `may not change caps`},
		{"write", `{"caps":null}`, 403, `may not change caps`},
		{"operator", `{"pool":{"size":30}}`, 422, `caps.size`},
		{"operator", `{"pool":{"size":30},"caps":{"size":40,"max_database_servers":8},"pool":{}}`, 400, `twice`},
		{"operator", `{"pool":{"size":30,"max_database_servers":8},"caps":{"size":40,"max_database_servers":8}}`, 200, `"size":40`},
		{"write", `{"pool":{"size":40}}`, 200, `"size":40`},
		{"write", `{"pool":{"max_database_servers":null}}`, 422, `/pool/max_database_servers`},
		{"write", `{"pool":{"max_clients":1001}}`, 422, `/pool/max_clients`},
		{"operator", `{"caps":null,"pool":{"size":50}}`, 200, `"size":50`},
		{"write", `{"pool":{"size":51}}`, 422, `/pool/size`},
		{"operator", `{"caps":{"size":99,"max_clients":null}}`, 200, `"caps":{"size":99}`},
		{"write", `{"pool":{"size":98,"max_clients":1001}}`, 422, `/pool/max_clients`},
	} {
		if got := w.to(t, step.kind, "PATCH", "/v1/tenants/acme", step.body).is(step.code, step.says); t.Failed() {
			t.Fatalf("step %d: %s", i, got.Body)
		}
	}
}

// TestOwnersDatabases: numbers of databases that are the operator's stay so, even if the others have caps already.
func TestOwnersDatabases(t *testing.T) {
	w := newWorld(t)
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{"pool":{"max_database_clients":10},"caps":{"size":30,"max_clients":1000,"max_servers":60}}`).is(200)
	w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"pool":{"size":25}}`).is(200, `"max_database_clients":10`)
	for _, n := range []string{"null", "0", "11"} {
		w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"pool":{"max_database_clients":`+n+`}}`).is(422, "/pool/max_database_clients")
	}
	for _, n := range []string{"7", "500", "null"} { // there the operator had no limit
		w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"pool":{"max_database_servers":`+n+`}}`).is(200)
	}
}

// TestOwnersChangesHaveAnEnd: what an owner changes is written down for ever, so there is only so much of it in an hour. What a change
// leaves as it is does not count, nor what was refused, nor what an operator does.
func TestOwnersChangesHaveAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		comment := strings.Repeat("a", 200)
		list := func(net, n int) string {
			var all []string
			for i := range n {
				all = append(all, fmt.Sprintf(`{"cidr":"%d.%d.%d.0/24","comment":%q}`, net, i/256, i%256, comment))
			}
			return `"allow_list":[` + strings.Join(all, ",") + `]`
		}
		patch := func(kind, body string) answer { return w.to(t, kind, "PATCH", "/v1/tenants/acme", "{"+body+"}") }
		written := func() (n int) {
			for _, e := range w.store.entries {
				n += sizeOf(e.Changes)
			}
			return n
		}
		patch("write", list(10, 50)).is(200)
		full := written()
		m := w.Server.tokens.of[sha256.Sum256([]byte(w.tokens["write"]))]
		if m.changes.Burst() != changesKept {
			t.Errorf("%d bytes an hour", m.changes.Burst())
		}
		most := 6 * full
		m.changes = perHour(most) // so that few words are many
		for i := range 20 {
			patch("write", list(10, 50)+fmt.Sprintf(`,"pool":{"size":%d}`, i%2+1)).is(200)
			patch("write", list(10, 50)+`,"pool":{"size":0}`).is(422)
		}
		if n := written() - full; n > full/5 {
			t.Errorf("numbers of a pool were changed in %d bytes", n)
		}
		last, changes := answer{}, 0
		for ; changes < 20; changes++ {
			time.Sleep(time.Second)
			if last = patch("write", list(11+changes%2, 50)); last.Code != 200 {
				break
			}
		}
		last.is(429, "too much was changed in the last hour")
		if n := written() - full; n < most/2 || n > most+full {
			t.Errorf("%d changes and %d bytes were written of %d", changes, n, most)
		}
		patch("write", `"require_tls":true`).is(200)
		patch("operator", list(13, 50)).is(200)
		patch("operator", list(14, 50)).is(200)
		wait, err := strconv.Atoi(last.Header().Get("Retry-After"))
		if err != nil || wait < 1 || wait > 3600 {
			t.Errorf("wait for %d s", wait)
		}
		time.Sleep(time.Hour)
		patch("write", list(15, 50)).is(200)
	})
}

// TestOwnersEdits: even an edit that would do more than its route says changes nothing but what is the owner's.
func TestOwnersEdits(t *testing.T) {
	w := newWorld(t)
	w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"allow_list":["203.0.113.0/24"],"require_tls":true}`).is(200, `"allow_list":["203.0.113.0/24"]`)
	w.to(t, "write", "PATCH", "/v1/tenants/acme/users/app", `{"verifier":"s3cret-v"}`).is(200)
	if got := w.secrets("acme", "app"); got != "s3cret-v//s3cret-server" {
		t.Error(got)
	}
	w.to(t, "write", "PATCH", "/v1/tenants/acme/users/nobody", `{"password":"s3cret"}`).is(404)
	// The same answer, whether it would change something or not: what upstream is must not be guessed.
	for _, host := range []string{"10.1.2.3", "10.1.2.4"} {
		w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"upstream":{"host":"`+host+`"}}`).is(403, "may not change upstream")
	}
	w.to(t, "operator", "PATCH", "/v1/tenants/acme", `{"pool":{"min":3}}`).is(200)
	w.to(t, "write", "PATCH", "/v1/tenants/acme", `{"pool":null}`).is(403, "may not change pool.min")
	for _, method := range []string{"PUT", "DELETE"} {
		w.to(t, "write", method, "/v1/tenants/acme", `{}`).is(403)
		w.to(t, "write", method, "/v1/tenants/acme/users/app", `{}`).is(403)
	}
	w.to(t, "read", "PATCH", "/v1/tenants/acme", `{"require_tls":false}`).is(403)
	if !w.store.all["acme"].Tenant.RequireTLS {
		t.Error("who may read has written")
	}
}
