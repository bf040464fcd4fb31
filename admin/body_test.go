// Tests of how bodies are read: merge patches as the RFC has them, pointers, and whatever anybody may send.

package admin

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern/postern/tenants"
)

// TestMergePatches: the examples of RFC 7396, appendix A, of which a body can be one.
func TestMergePatches(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a": null }`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":1.0,"b":12345678901234567890}`, `{}`, `{"a":1.0,"b":12345678901234567890}`},
	} {
		if got := string(merged(json.RawMessage(c[0]), json.RawMessage(c[1]))); got != c[2] {
			t.Errorf("%s with %s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestPointers(t *testing.T) {
	for path, want := range map[string]string{"": "", "pool.size": "/pool/size", "databases[3]": "/databases/3", "allow_list[0].cidr": "/allow_list/0/cidr",
		`users["a.b\"]["].timeouts.query`: `/users/a.b"][/timeouts/query`, `users["a/b~"]`: "/users/a~1b~0", "[": "/", "..": "//", "[x": "/x"} {
		if got := pointer(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(0, 20, 60).Draw(t, "name")
		if got, want := pointer(tenants.UserPath(name)+".verifier"), "/users/"+escape(name)+"/verifier"; got != want {
			t.Fatalf("%q: %s, want %s", name, got, want)
		}
	})
}

// FuzzPatch: whatever is sent is answered, and what is taken is a tenant that is valid, with its users as they were.
func FuzzPatch(f *testing.F) {
	for _, body := range []string{`{}`, `{"pool":{"size":3}}`, `{"upstream":null,"machine":{"provider":"local","name":"a"}}`, `{"allow_list":[{"cidr":"10.0.0.0/8","comment":"x"},"::/0"]}`,
		`{"upstream":{"client_key":"x"}}`, `{"state":{"set":"pin"},"timeouts":{"query":"5s"}}`, `{"a":{"a":{"a":[[]]}}}`, "{\"database\":\"\xff\"}", `{"pool":{"size":1e3}}`, `null`, `{"":null}`} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := newWorld(t)
		before := w.store.all["acme"]
		got := w.ask("file", "PATCH", "/v1/tenants/acme", body)
		after := w.store.all["acme"].Tenant
		switch got.Code {
		case 200:
			if problems := tenants.Validate(after, nil); len(problems) > 0 || !reflect.DeepEqual(after.Users, before.Tenant.Users) {
				t.Errorf("%v; users %v", problems, after.Users)
			}
			again := w.ask("file", "PUT", "/v1/tenants/acme", documentIn(t, got.Body.Bytes()))
			if again.Code != 200 || !w.store.all["acme"].Tenant.Equal(after) {
				t.Errorf("what was answered cannot be put: %d %s", again.Code, again.Body)
			}
		case 400, 422, 413:
			if w.store.all["acme"] != before || !strings.Contains(got.Header().Get("Content-Type"), "problem") {
				t.Errorf("%d: it has changed: %s", got.Code, got.Body)
			}
		case 415:
			if body != "" { // which has no type
				t.Errorf("%d %s", got.Code, got.Body)
			}
		default:
			t.Errorf("%d %s", got.Code, got.Body)
		}
	})
}

func documentIn(t *testing.T, text []byte) string {
	t.Helper()
	var v tenantView
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return string(v.Document)
}
