// What is wrong with a tenants file, and where.

package file

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/tenants"
)

// Problem is one thing wrong with a tenants file. Its text repeats no secret.
type Problem struct {
	Path    string // such as tenants[2].users[0].verifier; "" for the file as a whole
	Line    int    // from 1; 0 if unknown
	Message string

	column int
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

// problems are those of a load.
type problems struct {
	syntax error // the file is no YAML at all
	all    []*Problem
	unread map[string]bool // paths of values that could not be read: nothing else is said about them
}

// err is all of them as one error, in the file's order.
func (p *problems) err() error {
	slices.SortStableFunc(p.all, func(a, b *Problem) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.column, b.column)) })
	errs := []error{p.syntax}
	for _, one := range p.all {
		errs = append(errs, one)
	}
	return errors.Join(errs...)
}

func (p *problems) setUnread(path string) {
	if p.unread == nil {
		p.unread = make(map[string]bool)
	}
	p.unread[path] = true
}

// fail reports that a value cannot be read.
func (v value) fail(format string, args ...any) {
	v.say(format, args...)
	v.found.setUnread(v.path)
}

// say reports a problem of a value that can be read, or of something beside it.
func (v value) say(format string, args ...any) {
	v.found.all = append(v.found.all, &Problem{v.path, v.node.Line, fmt.Sprintf(format, args...), v.node.Column})
}

// notBuilt reports a key of the documentation that this version does not know how to obey.
func (v value) notBuilt(what string) { v.say("%s is documented but not built yet", what) }

// report reports a problem of the tenant that was read from v, at its value or, if that is not in the file, at what it would
// be in. users are the keys of the tenant's users in the order of the file.
func (v value) report(p tenants.Problem, users []string) {
	path, message := inFile(p, users)
	at := v.find(path)
	whole := v.path
	if path != "" {
		whole += "." + path
	}
	for ; len(whole) >= len(v.path); whole = whole[:max(0, strings.LastIndexAny(whole, ".["))] {
		if v.found.unread[whole] {
			return
		}
	}
	at.say("%s", message)
}

// inFile says where and how the file has what a tenant's problem is about: users by number, and passwords and tokens in files.
func inFile(p tenants.Problem, users []string) (path, message string) {
	path, message = p.Path, p.Message
	if rest, ok := strings.CutPrefix(path, "users["); ok {
		quoted, err := strconv.QuotedPrefix(rest)
		name, _ := strconv.Unquote(quoted)
		if i := slices.Index(users, name); err == nil && i >= 0 {
			path = fmt.Sprintf("users[%d]%s", i, rest[len(quoted)+1:])
		}
	}
	if strings.HasSuffix(path, ".password") || path == "machine.token" {
		path += "_file"
	}
	return path, strings.NewReplacer("verifier and password", "verifier and password_file", "upstream.password", "upstream.password_file").Replace(message)
}

// find follows a path such as users[0].verifier as far as the file has it.
func (v value) find(path string) value {
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next, ok := v.step(step)
		if !ok {
			break
		}
		v = next
	}
	return v
}

func (v value) step(name string) (value, bool) {
	switch v.node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			if v.node.Content[i].Value == name {
				return v.at(v.node.Content[i+1], name), true
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i < len(v.node.Content) {
			return v.item(i), true
		}
	}
	return v, false
}
