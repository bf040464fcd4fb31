// Bodies of requests: JSON that is read strictly, with every problem and where in the body it is.

package admin

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxDepth  = 16 // of a body's objects and lists
	maxErrors = 20 // told about one body
)

// Media types of bodies.
const (
	jsonType  = "application/json"
	patchType = "application/merge-patch+json"
)

// readBody reads a whole body, which may be empty, and must be said to be JSON if it is not.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	tooLarge := (*http.MaxBytesError)(nil)
	if errors.As(err, &tooLarge) {
		return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return nil, bad("the body could not be read")
	}
	if len(body) == 0 {
		return nil, nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && (media == jsonType || media == patchType && r.Method == http.MethodPatch) {
		return body, nil
	}
	return nil, &refusal{http.StatusUnsupportedMediaType, "a body must come with Content-Type: application/json"}
}

// strict reads a body into v: one JSON value, no key that v has not, none twice, none of another case, and no null.
func strict(r *http.Request, v any) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	return strictText(body, v, reader{})
}

// plainBody reads a request that has a strict body and no parameters.
func plainBody(r *http.Request, v any) error {
	if _, err := query(r); err != nil {
		return err
	}
	return strict(r, v)
}

// onlyBody reads what a request of Supabase's clients says. What is wrong with it is 400 there.
func onlyBody(r *http.Request, v any) error {
	err := plainBody(r, v)
	if fields := invalid(nil); errors.As(err, &fields) {
		return bad("%s", fields.Error())
	}
	return err
}

// strictPatch reads a merge patch (RFC 7396) of what v is. In it null takes a key away; nulls are pointers to keys for which it
// does not, and why.
func strictPatch(r *http.Request, v any, nulls map[string]string) (json.RawMessage, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	return body, strictText(body, v, reader{patch: true, nulls: nulls})
}

func strictText(text []byte, v any, s reader) error {
	if err := wellFormed(text); err != nil {
		return err
	}
	s.read("", text, reflect.ValueOf(v).Elem())
	if len(s.found) > 0 {
		return s.found
	}
	return nil
}

// wellFormed judges what encoding/json lets pass.
func wellFormed(text []byte) error {
	if len(text) == 0 {
		return bad("the body is missing")
	}
	if !utf8.Valid(text) {
		return bad("the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := scan(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("the body must be one JSON value: something follows it")
	}
	return nil
}

// scan reads one value.
func scan(d *json.Decoder, depth int) error {
	token, err := d.Token()
	if err != nil {
		return bad("the body is not JSON")
	}
	if depth > maxDepth {
		return bad("the body is nested too deeply")
	}
	open, isDelim := token.(json.Delim)
	if !isDelim {
		return nil
	}
	seen := make(map[string]bool)
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return bad("the body is not JSON")
			}
			name := key.(string)
			if seen[name] {
				return bad("the body has a key twice: %.64q", name)
			}
			seen[name] = true
		}
		if err := scan(d, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the end
		return bad("the body is not JSON")
	}
	return nil
}

// reader reads well-formed JSON into a value, and finds what does not fit. What reads itself (a duration) is asked.
type reader struct {
	patch bool // null takes a key away
	nulls map[string]string
	found invalid
}

func (s *reader) fail(at, format string, args ...any) {
	if len(s.found) < maxErrors {
		s.found = append(s.found, fieldError{at, fmt.Sprintf(format, args...)})
	}
}

func (s *reader) read(at string, text json.RawMessage, v reflect.Value) {
	if string(bytes.TrimSpace(text)) == "null" {
		switch why, refused := s.nulls[at]; {
		case refused:
			s.fail(at, "%s", why)
		case !s.patch || at == "":
			s.fail(at, "null means nothing: leave the key out")
		}
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		s.read(at, text, v.Elem())
		return
	}
	var readsItself bool
	switch v.Addr().Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		readsItself = true
	}
	switch {
	case readsItself:
		s.leaf(at, text, v)
	case v.Kind() == reflect.Struct:
		s.object(at, text, v)
	case v.Kind() == reflect.Map:
		s.mapping(at, text, v)
	case v.Kind() == reflect.Slice:
		var items []json.RawMessage
		if json.Unmarshal(text, &items) != nil {
			s.fail(at, "must be a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
		for i, item := range items {
			s.read(fmt.Sprintf("%s/%d", at, i), item, v.Index(i))
		}
	default:
		s.leaf(at, text, v)
	}
}

// keys reads an object, whose keys are told in their order.
func (s *reader) keys(at string, text json.RawMessage, each func(at, key string, value json.RawMessage)) {
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil {
		s.fail(at, "must be an object")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		each(at+"/"+escape(key), key, object[key])
	}
}

func (s *reader) object(at string, text json.RawMessage, v reflect.Value) {
	fields := fieldsOf(v.Type())
	s.keys(at, text, func(at, key string, value json.RawMessage) {
		index, ok := fields[key]
		if !ok {
			s.fail(at, "there is no such key")
			return
		}
		s.read(at, value, v.FieldByIndex(index))
	})
}

// mapping reads texts by their keys. Which keys there can be is for others to judge.
func (s *reader) mapping(at string, text json.RawMessage, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	s.keys(at, text, func(at, key string, value json.RawMessage) {
		item := reflect.New(v.Type().Elem()).Elem()
		s.read(at, value, item)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	})
}

func (s *reader) leaf(at string, text json.RawMessage, v reflect.Value) {
	err := json.Unmarshal(text, v.Addr().Interface())
	wrongType := (*json.UnmarshalTypeError)(nil)
	switch {
	case err == nil:
	case !errors.As(err, &wrongType):
		s.fail(at, "%v", err)
	case v.CanInt(), v.CanUint():
		s.fail(at, "must be a whole number, and not too large")
	case v.Kind() == reflect.Bool:
		s.fail(at, "must be true or false")
	default:
		s.fail(at, "must be text")
	}
}

// fieldsOf are the fields of a struct by their keys, those of embedded structs among them.
func fieldsOf(t reflect.Type) map[string][]int {
	all := make(map[string][]int)
	for _, f := range reflect.VisibleFields(t) {
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" && key != "-" {
			all[key] = f.Index
		}
	}
	return all
}

// escape makes a key a part of a pointer (RFC 6901).
func escape(key string) string {
	const longest = 64
	if len(key) > longest {
		key = strings.ToValidUTF8(key[:longest], "") + "..."
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// merged applies a merge patch to a JSON object; both are well-formed.
func merged(target, patch json.RawMessage) json.RawMessage {
	var changes map[string]json.RawMessage
	if json.Unmarshal(patch, &changes) != nil || changes == nil {
		return patch
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(target, &object) != nil || object == nil {
		object = make(map[string]json.RawMessage)
	}
	for key, change := range changes {
		if string(change) == "null" {
			delete(object, key)
		} else {
			object[key] = merged(object[key], change)
		}
	}
	out, err := json.Marshal(object)
	if err != nil {
		panic(fmt.Errorf("BUG: what was JSON does not encode: %w", err))
	}
	return out
}
