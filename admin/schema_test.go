// A checker of answers against the schemas in openapi.yaml, for the few keywords that it uses.

package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// schemas is openapi.yaml as decoded.
type schemas struct{ doc map[string]any }

// parsed reads openapi.yaml once for all tests.
var parsed = sync.OnceValues(func() (s schemas, err error) {
	err = yaml.Unmarshal([]byte(openAPI), &s.doc)
	return s, err
})

func loadSchemas(t testing.TB) schemas {
	t.Helper()
	s, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decode(t *testing.T, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

// at follows keys, and references on the way; nil: nothing is there.
func (s schemas) at(v any, keys ...string) map[string]any {
	for i := 0; ; i++ {
		m, _ := v.(map[string]any)
		for m["$ref"] != nil {
			m = s.at(s.doc, strings.Split(strings.TrimPrefix(m["$ref"].(string), "#/"), "/")...)
		}
		if i == len(keys) {
			return m
		}
		v = m[keys[i]]
	}
}

// checkAnswer fails the test unless the document has this answer of this operation.
func (s schemas) checkAnswer(t *testing.T, method, path string, code int, body []byte) {
	t.Helper()
	schema := s.at(s.doc, "paths", path, strings.ToLower(method), "responses", strconv.Itoa(code), "content", contentType(code), "schema")
	if schema == nil {
		t.Errorf("%s %s answers %d, which is not documented", method, path, code)
		return
	}
	if err := s.check(schema, decode(t, body)); err != nil {
		t.Errorf("%s %s answers %d against the document: %v\n%s", method, path, code, err, body)
	}
}

// contentType is that of every answer in JSON.
func contentType(code int) string {
	if code >= http.StatusBadRequest {
		return "application/problem+json"
	}
	return "application/json"
}

// check returns what is wrong with a decoded JSON value. A keyword that it does not know is wrong too.
func (s schemas) check(schema, v any) error {
	m := s.at(schema)
	for keyword, arg := range m {
		var err error
		switch keyword {
		case "description", "required", "additionalProperties", "default", "writeOnly": // for people; with properties
		case "type":
			err = checkType(arg, v)
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				err = fmt.Errorf("%v is not in %v", v, arg)
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(text) {
				err = fmt.Errorf("%q does not match %s", text, arg)
			}
		case "format":
			err = checkFormat(arg, v)
		case "items":
			list, _ := v.([]any)
			for i, item := range list {
				if e := s.check(arg, item); e != nil {
					err = fmt.Errorf("%d: %w", i, e)
				}
			}
		case "properties":
			err = s.checkProperties(m, v)
		default:
			err = fmt.Errorf("the checker does not know %s", keyword)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkType(arg, v any) error {
	allowed, isList := arg.([]any)
	if !isList {
		allowed = []any{arg}
	}
	var is []any
	switch v := v.(type) {
	case nil:
		is = []any{"null"}
	case bool:
		is = []any{"boolean"}
	case string:
		is = []any{"string"}
	case float64:
		is = []any{"number"}
		if v == math.Trunc(v) {
			is = append(is, "integer")
		}
	case []any:
		is = []any{"array"}
	case map[string]any:
		is = []any{"object"}
	}
	if !slices.ContainsFunc(is, func(name any) bool { return slices.Contains(allowed, name) }) {
		return fmt.Errorf("%v is none of %v", v, allowed)
	}
	return nil
}

// checkFormat wants times in UTC, which is stricter than the format.
func checkFormat(format, v any) error {
	text, ok := v.(string)
	if !ok {
		return nil
	}
	if format != "date-time" {
		return fmt.Errorf("the checker does not know format %v", format)
	}
	if _, err := time.Parse(time.RFC3339Nano, text); err != nil || !strings.HasSuffix(text, "Z") {
		return fmt.Errorf("%q is no time in UTC", text)
	}
	return nil
}

func (s schemas) checkProperties(schema map[string]any, v any) error {
	object, ok := v.(map[string]any)
	if !ok {
		return nil // for type to judge
	}
	properties := s.at(schema, "properties")
	if required, ok := schema["required"].([]any); ok {
		for _, name := range required {
			if _, ok := object[name.(string)]; !ok {
				return fmt.Errorf("%s is missing", name)
			}
		}
	}
	for name, value := range object {
		if properties[name] == nil {
			if schema["additionalProperties"] == false {
				return fmt.Errorf("%s is not documented", name)
			}
			continue
		}
		if err := s.check(properties[name], value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func aProblem(more string) string {
	return `{"type":"about:blank","title":"Conflict","status":409,"detail":"a","instance":"b","error":"c"` + more + "}"
}

// TestCheckerRefuses: it can fail.
func TestCheckerRefuses(t *testing.T) {
	s := loadSchemas(t)
	if err := s.check(map[string]any{"$ref": "#/components/schemas/Problem"}, decode(t, []byte(aProblem("")))); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string]struct{ schema, body string }{
		"missing":        {"Problem", `{}`},
		"undocumented":   {"Problem", aProblem(`,"cause":"b"`)},
		"type":           {"Problem", aProblem(`,"error":1`)},
		"null":           {"Problem", aProblem(`,"error":null`)},
		"no object":      {"Problem", `[]`},
		"item":           {"Problem", aProblem(`,"reasons":[1]`)},
		"no UTC":         {"Transition", `{"at":"2026-03-01T12:00:00+02:00","reason":"a","result":"b","seconds":1}`},
		"no time":        {"Transition", `{"at":"now","reason":"a","result":"b","seconds":1}`},
		"nested in null": {"Transition", `{"at":null,"reason":"a","result":"b","seconds":1}`},
	} {
		if s.check(map[string]any{"$ref": "#/components/schemas/" + wrong.schema}, decode(t, []byte(wrong.body))) == nil {
			t.Errorf("%s: accepted %s", name, wrong.body)
		}
	}
}
