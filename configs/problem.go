// One thing wrong with a configuration, and lists of them.

package configs

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing wrong with a configuration. Errors of Load, Validate, CheckExposure and
// CheckProviders are joined Problems.
type Problem struct {
	Path    string // such as listeners[0].address; "" for the file as a whole
	Line    int    // of the file, from 1; 0: not known, or not from the file
	Env     string // the variable that the value came from; "": none
	Message string
}

// Error returns the path, the message, and where the value came from.
func (p *Problem) Error() string {
	s := p.Message
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	switch {
	case p.Env != "":
		s += " (from " + p.Env + ")"
	case p.Line > 0:
		s += fmt.Sprintf(" (line %d)", p.Line)
	}
	return s
}

// problems collects what is wrong, in the order in which it is found.
type problems []*Problem

func (ps *problems) add(path, format string, args ...any) {
	*ps = append(*ps, &Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// addNew appends those of more that are not consequences of a problem already there: one at the same path, at a part of it,
// or at a whole of which it is a part. A value that could not be read would be blamed again for being absent.
func (ps *problems) addNew(more problems) {
	known := *ps
	for _, p := range more {
		related := false
		for _, k := range known {
			related = related || within(p.Path, k.Path) || within(k.Path, p.Path)
		}
		if !related {
			*ps = append(*ps, p)
		}
	}
}

// within reports whether path is whole or a part of it. The file as a whole counts as related only to itself: problems
// there, such as a second document, have no consequences below.
func within(path, whole string) bool {
	rest, ok := strings.CutPrefix(path, whole)
	return ok && (rest == "" || whole != "" && (rest[0] == '.' || rest[0] == '['))
}

// err joins the problems; nil if there are none.
func (ps problems) err() error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errors.Join(errs...)
}
