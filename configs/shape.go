// The shape of the file: which keys may stand where, once, and what kind of thing stands behind them.

package configs

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// shape walks the tree of a YAML document beside the Go types that it is for, reports what does not fit, and takes it out,
// so that the rest can be decoded and the rest's problems be found as well. It is needed because viper lowers the case of
// keys, splits them at dots, and forgets keys whose value is null or an empty mapping.
type shape struct {
	lines    map[string]int // by path
	problems problems
}

// read returns the keys of the document that fit.
func (s *shape) read(data []byte) map[string]any {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // an empty file; what it lacks is for Validate to say
	case err != nil:
		s.problems.add("", "%v", err) // it names the line
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		s.problems.add("", "the file must hold one YAML document, and nothing after it")
		return nil
	}
	root := doc.Content[0]
	if isNull(root) {
		return nil // nothing but comments
	}
	if !s.isKind(root, yaml.MappingNode, "") {
		return nil
	}
	s.mapping(root, reflect.TypeFor[Config](), "")
	var keys map[string]any
	if err := root.Decode(&keys); err != nil {
		s.problems.add("", "%v", err)
		return nil
	}
	return keys
}

// fits reports whether node can hold a t, after it took out of node what does not fit.
func (s *shape) fits(node *yaml.Node, t reflect.Type, path string) bool {
	s.lines[path] = node.Line
	switch {
	case isNull(node):
		s.fail(node, path, "has no value: leave the key out if you mean the default")
		return false
	case isSection(t):
		if !s.isKind(node, yaml.MappingNode, path) {
			return false
		}
		if len(node.Content) == 0 {
			s.fail(node, path, "is empty: leave the key out if you mean the defaults")
			return false
		}
		s.mapping(node, t, path)
	case t.Kind() == reflect.Slice:
		if !s.isKind(node, yaml.SequenceNode, path) {
			return false
		}
		for i, item := range node.Content {
			if at := fmt.Sprintf("%s[%d]", path, i); !s.fits(item, t.Elem(), at) {
				node.Content[i] = placeholder(t.Elem()) // so that the others keep their numbers
			}
		}
	default:
		if !s.isKind(node, yaml.ScalarNode, path) {
			return false
		}
		if t.Kind() == reflect.String && node.Value == "" {
			s.fail(node, path, "is empty: leave the key out if you mean the default")
			return false
		}
	}
	return true
}

// plainKey is a key that may be repeated in a message; anything else could be a secret whose key was forgotten.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)

func (s *shape) mapping(node *yaml.Node, t reflect.Type, path string) {
	fields := fieldsByKey(t)
	seen := make(map[string]int) // key to line
	var kept []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode || !plainKey.MatchString(key.Value) {
			s.fail(key, path, "has a key that is not a plain word")
			continue
		}
		at := join(path, key.Value)
		field, known := fields[key.Value]
		first, twice := seen[key.Value]
		switch {
		case !known:
			s.fail(key, at, "unknown key")
		case twice:
			s.fail(key, at, fmt.Sprintf("duplicate key, first in line %d", first))
		default:
			seen[key.Value] = key.Line
			if s.fits(value, field, at) {
				kept = append(kept, key, value)
			}
		}
	}
	node.Content = kept
}

// isKind reports whether node is of the kind, and complains if not.
func (s *shape) isKind(node *yaml.Node, want yaml.Kind, path string) bool {
	if node.Kind == want {
		return true
	}
	if node.Kind == yaml.AliasNode {
		s.fail(node, path, "is an alias, which is not supported here: write the value out")
		return false
	}
	s.fail(node, path, map[yaml.Kind]string{
		yaml.MappingNode:  "must be a mapping of keys to values",
		yaml.SequenceNode: "must be a list",
		yaml.ScalarNode:   "must be a single value",
	}[want])
	return false
}

func (s *shape) fail(node *yaml.Node, path, message string) {
	s.problems = append(s.problems, &Problem{Path: path, Line: node.Line, Message: message})
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }

// placeholder stands for a list item that does not fit. What is wrong with it besides is not reported.
func placeholder(t reflect.Type) *yaml.Node {
	if isSection(t) {
		return &yaml.Node{Kind: yaml.MappingNode}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
}

// isSection reports whether t is written as a mapping. A type that reads itself from text, such as netip.Prefix, is not.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fieldsByKey returns the types of t's fields by the keys that they have in the file.
func fieldsByKey(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		if key := f.Tag.Get("mapstructure"); key != "-" {
			fields[key] = f.Type
		}
	}
	return fields
}

// scalarKeys returns the paths of t's scalar keys outside lists, in no order.
func scalarKeys(t reflect.Type, path string) []string {
	var keys []string
	for key, field := range fieldsByKey(t) {
		switch at := join(path, key); {
		case isSection(field):
			keys = append(keys, scalarKeys(field, at)...)
		case field.Kind() != reflect.Slice:
			keys = append(keys, at)
		}
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
