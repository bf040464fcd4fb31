// Loading the tenants file.

package tenants

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/postern/postern/files"
)

// FileOptions say what to load and how to judge it.
type FileOptions struct {
	Path          string
	CheckVerifier func(string) error // judges a verifier's text; its errors must not repeat it. nil: only not empty
	Now           func() time.Time   // nil: time.Now
	Lane          *files.Lane        // where the files are read; nil: the load waits for them as long as it takes
}

// LoadFile reads a tenants file and everything it names: password files and CA certificates, whose relative paths start
// at the tenants file's folder. Either all of it is good, or the error holds every problem found (errors.Join; each one
// found in the YAML is a *Problem).
//
// A file that is read while it is being written may be cut short at a place where it is still valid YAML, with fewer
// tenants. Whoever writes it writes beside it and renames.
func LoadFile(o FileOptions) (*Snapshot, error) {
	read := files.Read
	if o.Lane != nil {
		read = o.Lane.Read
	}
	data, err := read(o.Path, maxTenantsFile)
	if err != nil {
		return nil, fmt.Errorf("read the tenants file: %w", err)
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	l := &loader{dir: filepath.Dir(o.Path), check: o.CheckVerifier, read: read}
	s, err := l.load(data, now())
	if err != nil {
		return nil, err
	}
	s.files = append([]string{o.Path}, l.files...)
	return s, nil
}

// loader is one load in progress.
type loader struct {
	dir      string
	check    func(string) error
	read     func(path string, limit int) ([]byte, error)
	problems []error
	files    []string // read besides the tenants file, each once
	cas      map[string]*x509.CertPool
	machines map[string]int // the line of each machine, by its key
}

// load decodes a whole file.
func (l *loader) load(data []byte, now time.Time) (*Snapshot, error) {
	var all []*Tenant
	if root, ok := parseYAML(data, &l.problems); ok {
		lines := map[string]int{} // where each id is
		seen := root.keys(map[string]func(value){
			"tenants": func(v value) {
				v.each(func(_ int, v value) {
					t := l.tenant(v)
					if t.ID == "" {
						return
					}
					if line, dup := lines[t.ID]; dup {
						v.fail("tenant %q is there already, in line %d", t.ID, line)
						return
					}
					lines[t.ID] = v.node.Line
					all = append(all, t)
				})
			},
		})
		if seen != nil && !seen["tenants"] {
			root.fail("the key tenants is missing; write tenants: [] for none")
		}
	}
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	return NewSnapshot(now, all...)
}
