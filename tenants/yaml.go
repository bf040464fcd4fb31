// A strict reader of YAML nodes that knows where it is and collects every problem.

package tenants

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing wrong with a tenants file. Its text repeats no secret.
type Problem struct {
	Path    string // such as tenants[2].users[0].verifier; "" for the file as a whole
	Line    int    // from 1; 0 if unknown
	Message string
}

// Error implements error.
func (p *Problem) Error() string {
	s := p.Message
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Line > 0 {
		s += fmt.Sprintf(" (line %d)", p.Line)
	}
	return s
}

// value is a node, its path, and where problems go. A reading method that finds a problem reports it and returns the zero
// value: decoding goes on, to find the next one.
type value struct {
	node     *yaml.Node
	path     string
	problems *[]error
}

// parseYAML returns the root of the only document in data.
func parseYAML(data []byte, problems *[]error) (value, bool) {
	var doc, more yaml.Node
	root := value{node: &doc, problems: problems}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		root.fail("the file is empty")
		return value{}, false
	case err != nil:
		*problems = append(*problems, err) // it names the line and repeats no value
		return value{}, false
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		root.fail("the file must hold one YAML document, and nothing after it")
		return value{}, false
	}
	root.node = doc.Content[0]
	return root, true
}

func (v value) fail(format string, args ...any) {
	*v.problems = append(*v.problems, &Problem{Path: v.path, Line: v.node.Line, Message: fmt.Sprintf(format, args...)})
}

// notBuilt reports a key of the documentation that this version does not know how to obey.
func (v value) notBuilt(what string) { v.fail("%s is documented but not built yet", what) }

// plainKey is a key that may be repeated in a message. Anything else could be a secret whose key was forgotten.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)

// keys calls the function for each key of a mapping, in the file's order, and returns the keys that were there; nil if v
// is no mapping. Unknown keys and second occurrences are problems.
func (v value) keys(known map[string]func(value)) map[string]bool {
	if v.node.Kind != yaml.MappingNode {
		v.fail("must be a mapping of keys to values, not %s", describe(v.node))
		return nil
	}
	seen := make(map[string]bool, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, node := v.node.Content[i], v.node.Content[i+1]
		name := key.Value
		at := value{node: key, path: v.path, problems: v.problems}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || !plainKey.MatchString(name) {
			at.fail("has a key that is not a plain word")
			continue
		}
		if v.path != "" {
			at.path += "."
		}
		at.path += name
		read, ok := known[name]
		switch {
		case !ok:
			at.fail("unknown key")
		case seen[name]:
			at.fail("the key is there twice")
		default:
			seen[name] = true
			at.node = node
			read(at)
		}
	}
	return seen
}

// each calls f for every item of a list and reports whether v is one.
func (v value) each(f func(i int, item value)) bool {
	if v.node.Kind != yaml.SequenceNode {
		v.fail("must be a list, not %s", describe(v.node))
		return false
	}
	for i, node := range v.node.Content {
		f(i, value{node: node, path: fmt.Sprintf("%s[%d]", v.path, i), problems: v.problems})
	}
	return true
}

func (v value) isNull() bool { return v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null" }

// text reads a string, which may be empty.
func (v value) text() (string, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!str" {
		v.fail("must be text, not %s", describe(v.node))
		return "", false
	}
	return v.node.Value, true
}

// name reads a string that Postgres could take for a name: not empty and without NUL.
func (v value) name() string {
	s, ok := v.text()
	switch {
	case ok && s == "":
		v.fail("must not be empty")
	case bytes.IndexByte([]byte(s), 0) >= 0:
		v.fail("must not contain a NUL character")
	default:
		return s
	}
	return ""
}

// integer reads a number between least and most.
func (v value) integer(least, most int) int {
	tag := v.node.ShortTag()
	if v.node.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		v.fail("must be a whole number, not %s", describe(v.node))
		return 0
	}
	n, err := strconv.Atoi(v.node.Value)
	// Decimal only: 010 and 0x10 are read differently by different people. Very long ones are floats to YAML.
	switch {
	case err != nil || v.node.Value != strconv.Itoa(n):
		v.fail("must be a whole number in plain decimal digits")
	case n < least || n > most:
		v.fail("must be between %d and %d", least, most)
	default:
		return n
	}
	return 0
}

func (v value) boolean() bool {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!bool" {
		v.fail("must be true or false, not %s", describe(v.node))
		return false
	}
	b, _ := strconv.ParseBool(v.node.Value) // true, True, TRUE and the like are all that YAML tags so
	return b
}

// describe says what a node is without repeating it.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias (those are not supported)"
	}
	switch n.ShortTag() {
	case "!!null":
		return "null"
	case "!!bool":
		return "true or false (put it in quotes if you mean the word)"
	case "!!int", "!!float":
		return "a number (put it in quotes if you mean its digits)"
	case "!!timestamp":
		return "a date (put it in quotes if you mean its digits)"
	case "!!str":
		return "text"
	}
	return "a value with a tag"
}
