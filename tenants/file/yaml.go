// A strict reader of YAML nodes that knows where it is and collects every problem.

package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// value is a node, its path, and where problems go. A reading method that finds a problem reports it and returns the zero
// value: decoding goes on, to find the next one.
type value struct {
	node  *yaml.Node
	path  string
	found *problems
}

// at is v with another node, that of one of its keys.
func (v value) at(node *yaml.Node, key string) value {
	if v.path != "" {
		key = v.path + "." + key
	}
	return value{node, key, v.found}
}

// item is one of a list.
func (v value) item(i int) value {
	return value{v.node.Content[i], fmt.Sprintf("%s[%d]", v.path, i), v.found}
}

// parseYAML returns the root of the only document in data.
func parseYAML(data []byte, found *problems) (value, bool) {
	var doc, more yaml.Node
	root := value{node: &doc, found: found}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		root.fail("the file is empty")
		return value{}, false
	case err != nil:
		found.syntax = err // it names the line and repeats no value
		return value{}, false
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		root.fail("the file must hold one YAML document, and nothing after it")
		return value{}, false
	}
	root.node = doc.Content[0]
	return root, true
}

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
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || !plainKey.MatchString(name) {
			value{key, v.path, v.found}.say("has a key that is not a plain word")
			continue
		}
		at := v.at(key, name)
		read, ok := known[name]
		switch {
		case !ok:
			at.say("unknown key")
		case seen[name]:
			at.say("the key is there twice")
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
	for i := range v.node.Content {
		f(i, v.item(i))
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

// name reads a string that is not empty, which is what a tenant has where nothing was said.
func (v value) name() string {
	s, ok := v.text()
	if ok && s == "" {
		v.fail("must not be empty")
	}
	return s
}

// number reads a number of which a tenant's rules say what it may be.
func (v value) number() int { return v.integer(math.MinInt, math.MaxInt) }

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

// duration reads a length of time with its unit.
func (v value) duration() time.Duration {
	tag := v.node.ShortTag()
	_, err := strconv.ParseFloat(v.node.Value, 64)
	if tag == "!!int" || tag == "!!float" || tag == "!!str" && err == nil { // ParseDuration would let "0" pass
		v.fail("needs a unit, such as 30s or 5m")
		return 0
	}
	s, ok := v.text()
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		v.fail("must be a duration with its unit, such as 30s or 5m")
	}
	return d
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
