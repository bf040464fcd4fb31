// Loading the tenants file.

package file

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/postern/postern/files"
	"github.com/postern/postern/tenants"
)

// Options say what to load and how to judge it.
type Options struct {
	Path          string
	CheckVerifier func(string) error // judges a verifier's text; its errors must not repeat it. nil: only not empty
	Now           func() time.Time   // nil: time.Now
	Lane          *files.Lane        // where the files are read; nil: the load waits for them as long as it takes
}

// Load reads a tenants file and everything it names: password files and CA certificates, whose relative paths start
// at the tenants file's folder. Either all of it is good, or the error holds every problem found (errors.Join; each one
// found in the YAML is a *Problem).
//
// A file that is read while it is being written may be cut short at a place where it is still valid YAML, with fewer
// tenants. Whoever writes it writes beside it and renames.
func Load(o Options) (*Snapshot, error) {
	read := files.Read
	if o.Lane != nil {
		read = o.Lane.Read
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	at := now() // before: what is written from here on may be in it or not
	data, err := read(o.Path, maxTenantsFile)
	if err != nil {
		return nil, fmt.Errorf("read the tenants file: %w", err)
	}
	l := &loader{dir: filepath.Dir(o.Path), check: o.CheckVerifier, read: read}
	s, err := l.load(data, at)
	if err != nil {
		return nil, err
	}
	s.files = append([]string{o.Path}, l.files...)
	return s, nil
}

// loader is one load in progress.
type loader struct {
	dir   string
	check func(string) error
	read  func(path string, limit int) ([]byte, error)
	found problems
	files []string // read besides the tenants file, each once
	cas   map[string]roots

	all []*tenants.Tenant
	at  []value // of each
}

// load decodes a whole file.
func (l *loader) load(data []byte, now time.Time) (*Snapshot, error) {
	if root, ok := parseYAML(data, &l.found); ok {
		seen := root.keys(map[string]func(value){
			"tenants": func(v value) { v.each(func(_ int, v value) { l.entry(v) }) },
		})
		if seen != nil && !seen["tenants"] {
			root.fail("the key tenants is missing; write tenants: [] for none")
		}
	}
	l.judgeTogether()
	if err := l.found.err(); err != nil {
		return nil, err
	}
	return newSnapshot(now, l.all), nil
}

// entry reads and judges one tenant.
func (l *loader) entry(v value) {
	t, users := l.tenant(v)
	l.all, l.at = append(l.all, t), append(l.at, v)
	for _, p := range tenants.Validate(t, l.check) {
		v.report(p, users)
	}
}

// judgeTogether reports what several tenants cannot be beside each other.
func (l *loader) judgeTogether() {
	for _, c := range tenants.Conflicts(l.all) {
		if c.Err.Flycast.IsValid() {
			at, earlier := l.at[c.At].find("flycast"), l.at[c.Earlier].find("flycast")
			at.say("address %s is another tenant's already, in line %d", c.Err.Flycast, earlier.node.Line)
			continue
		}
		if c.Err.Machine == "" {
			l.at[c.At].say("tenant %q is there already, in line %d", c.Err.ID, l.at[c.Earlier].node.Line)
			continue
		}
		at, earlier := l.at[c.At].find("machine"), l.at[c.Earlier].find("machine")
		at.say("machine %s is another tenant's already, in line %d", c.Err.Machine, earlier.node.Line)
	}
}
