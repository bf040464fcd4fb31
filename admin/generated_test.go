// Tests with requests that are drawn from openapi.yaml: those that it allows are read, and those that it does not are refused.

package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern/postern/tenants/document"
)

// operation is one with a body.
type operation struct {
	method, path string
	body         map[string]any // its schema
}

// operations are all that take a body of some keys, in their order.
func (s schemas) operations(t testing.TB) (all []operation) {
	t.Helper()
	paths := s.at(s.doc, "paths")
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		for _, method := range slices.Sorted(maps.Keys(s.at(paths[path]))) {
			if body := s.bodyOf(s.at(paths[path], method)); len(s.at(body, "properties")) > 0 {
				all = append(all, operation{strings.ToUpper(method), path, body})
			}
		}
	}
	if len(all) < 5 {
		t.Fatalf("only %v", all)
	}
	return all
}

// bodyOf is the schema of an operation's body, which a merge patch has from what it patches.
func (s schemas) bodyOf(op map[string]any) map[string]any {
	body := s.at(op, "requestBody", "content", "application/json", "schema")
	if whole, ok := body["x-merge-patch-of"].(string); ok {
		return s.at(map[string]any{"$ref": whole})
	}
	return body
}

// draw draws a value that a schema allows.
func (s schemas) draw(t *rapid.T, schema any) any {
	m := s.at(schema)
	if allowed, ok := m["enum"].([]any); ok {
		return rapid.SampledFrom(allowed).Draw(t, "one of")
	}
	kinds, isList := m["type"].([]any)
	if !isList {
		kinds = []any{m["type"]}
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "type"); kind {
	case "object":
		object := make(map[string]any)
		required, _ := m["required"].([]any)
		properties := s.at(m, "properties")
		for _, key := range slices.Sorted(maps.Keys(properties)) {
			if slices.Contains(required, any(key)) || rapid.IntRange(0, 2).Draw(t, key) == 0 {
				object[key] = s.draw(t, properties[key])
			}
		}
		return object
	case "array":
		list := []any{}
		for range rapid.IntRange(0, 2).Draw(t, "length") {
			list = append(list, s.draw(t, m["items"]))
		}
		return list
	case "integer":
		return rapid.IntRange(0, 50).Draw(t, "number")
	case "boolean":
		return rapid.Bool().Draw(t, "truth")
	case "null":
		return nil
	case "string":
		if m["format"] == "date-time" {
			return "2099-01-31T18:00:00Z"
		}
		switch m["pattern"] {
		case nil:
			return rapid.SampledFrom([]string{"acme", "203.0.113.0/24", "2001:db8::1", "ä \"'", "postgres"}).Draw(t, "text")
		case "^[0-9]":
			return rapid.SampledFrom([]string{"0s", "5s", "1m30s"}).Draw(t, "time")
		case `^[a-z0-9][a-z0-9_-]{0,62}$`:
			return "acme"
		}
	}
	t.Fatalf("nothing is drawn for %v", m)
	return nil
}

// broken is a value of another kind than this one.
func another(v any) any {
	if _, isNumber := v.(int); isNumber {
		return "5"
	}
	return 5
}

// spoil makes of a value that a schema allows one that it does not, and reports whether it could.
func (s schemas) spoil(t *rapid.T, schema, v any) (any, bool) {
	m := s.at(schema)
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		choice := rapid.IntRange(-2, len(keys)-1).Draw(t, "what")
		required, _ := m["required"].([]any)
		switch {
		case choice == -1 && len(required) > 0:
			delete(v, rapid.SampledFrom(required).Draw(t, "missing").(string))
		case choice < 0:
			v[rapid.SampledFrom([]string{"nothing", "Pool", "", "a/b~"}).Draw(t, "key")] = 1
		case rapid.Bool().Draw(t, "deeper"):
			below, ok := s.spoil(t, s.at(m, "properties")[keys[choice]], v[keys[choice]])
			v[keys[choice]] = below
			return v, ok
		default:
			v[keys[choice]] = another(v[keys[choice]])
		}
		return v, true
	case []any:
		if len(v) > 0 {
			below, ok := s.spoil(t, m["items"], v[0])
			v[0] = below
			return v, ok
		}
	}
	return another(v), true
}

// unread are the ways to say that a body has not the form that it must have.
var unread = []string{"no such key", "must be an object", "must be a list", "must be text", "must be a whole number", "must be true or false", "null means", "missing", "not JSON"}

func (op operation) ask(t *rapid.T, w *world, body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	path := strings.NewReplacer("{id}", "acme", "{name}", "app").Replace(op.path)
	got := w.ask("file", op.method, path, string(text))
	if got.Code >= 500 {
		t.Fatalf("%s %s %s: %d %s", op.method, path, text, got.Code, got.Body)
	}
	s := loadSchemas(w.t)
	schema := s.at(s.doc, "paths", op.path, strings.ToLower(op.method), "responses", strconv.Itoa(got.Code), "content", contentType(got.Code), "schema")
	var v any
	if err := json.Unmarshal(got.Body.Bytes(), &v); schema == nil || err != nil || s.check(schema, v) != nil {
		t.Fatalf("%s %s %s: %d %s is not as documented: %v", op.method, path, text, got.Code, got.Body, s.check(schema, v))
	}
	return answer{ResponseRecorder: got}
}

// TestBodiesThatTheDocumentAllows are read: if one is refused, then for what it says, and not for its form.
func TestBodiesThatTheDocumentAllows(t *testing.T) {
	s := loadSchemas(t)
	operations, codes := s.operations(t), make(map[string]bool)
	rapid.Check(t, func(rt *rapid.T) {
		op := rapid.SampledFrom(operations).Draw(rt, "operation")
		body := s.draw(rt, op.body)
		got := op.ask(rt, newWorld(t), body)
		codes[fmt.Sprint(op.method, " ", op.path, " ", got.Code/100)] = true
		var p problem
		_ = json.Unmarshal(got.Body.Bytes(), &p)
		supabases := strings.HasPrefix(op.path, "/v1/projects/") // whose clients are answered 400, whatever is wrong
		if got.Code == http.StatusBadRequest && (!supabases || slices.ContainsFunc(unread, func(says string) bool { return strings.Contains(p.Detail, says) })) ||
			got.Code == http.StatusUnsupportedMediaType {
			rt.Fatalf("%s %s %v: %d %s", op.method, op.path, body, got.Code, got.Body)
		}
		for _, e := range p.Errors {
			for _, says := range unread[:7] {
				if strings.Contains(e.Detail, says) {
					rt.Fatalf("%s %s %v: %s", op.method, op.path, body, got.Body)
				}
			}
		}
	})
	if len(codes) < len(operations) {
		t.Errorf("drawn were only %v", slices.Sorted(maps.Keys(codes)))
	}
}

// TestBodiesThatTheDocumentDoesNotAllow are refused: with a key more, one less, or a value of another type.
func TestBodiesThatTheDocumentDoesNotAllow(t *testing.T) {
	s := loadSchemas(t)
	operations := s.operations(t)
	rapid.Check(t, func(rt *rapid.T) {
		op := rapid.SampledFrom(operations).Draw(rt, "operation")
		body, _ := s.spoil(rt, op.body, s.draw(rt, op.body))
		if op.method == http.MethodPatch && s.check(op.body, roundTrip(rt, body)) == nil {
			return // a patch need not have what a document needs
		}
		if got := op.ask(rt, newWorld(t), body); got.Code != http.StatusBadRequest && got.Code != http.StatusUnprocessableEntity {
			rt.Fatalf("%s %s %v: %d %s", op.method, op.path, body, got.Code, got.Body)
		}
	})
}

func roundTrip(t *rapid.T, v any) (out any) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestQueriesAreStrict: no route takes what it does not know.
func TestQueriesAreStrict(t *testing.T) {
	for _, r := range newWorld(t).routes() {
		if !strings.HasPrefix(r.path, "/v1/") {
			continue
		}
		path := strings.NewReplacer("{id}", "acme", "{name}", "app", "{token}", "0", "{node}", "a").Replace(r.path)
		for _, query := range []string{"nothing=1", "Limit=1", "limit=1&limit=1", "wait=0&wait=0", "%zz"} {
			w := newWorld(t)
			if got := w.ask("file", r.method, path+"?"+query, ""); got.Code != http.StatusBadRequest || w.store.version != 2 || len(w.gate.calls) > 0 {
				t.Errorf("%s %s?%s: %d %s", r.method, path, query, got.Code, got.Body)
			}
		}
	}
}

// paths are the paths of the values that a schema has; lists and maps count as one.
func (s schemas) paths(at string, schema any, stop func(path string) bool, into map[string]bool) {
	m := s.at(schema)
	if properties := s.at(m, "properties"); m["type"] == "object" && len(properties) > 0 && !stop(at) {
		for key, below := range properties {
			s.paths(strings.TrimPrefix(at+"."+key, "."), below, stop, into)
		}
		return
	}
	into[at] = true
}

// TestDocumentHasEveryKey: who adds a key adds it to openapi.yaml.
func TestDocumentHasEveryKey(t *testing.T) {
	s := loadSchemas(t)
	for name, typ := range map[string]reflect.Type{"Document": reflect.TypeFor[document.Tenant](), "UserBody": reflect.TypeFor[userBody](),
		"UserDocument": reflect.TypeFor[document.User](), "TokenBody": reflect.TypeFor[tokenBody]()} {
		fields, described := make(map[string]string), make(map[string]bool)
		leaves("", typ, fields)
		if name == "Document" {
			for _, secret := range document.TenantSecrets() {
				fields[secret.Path] = ""
			}
		}
		s.paths("", map[string]any{"$ref": "#/components/schemas/" + name}, func(path string) bool { _, isField := fields[path]; return isField }, described)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(described))); diff != "" {
			t.Errorf("%s (-read +described)\n%s", name, diff)
		}
	}
}
