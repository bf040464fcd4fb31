// The files that a tenants file points to: passwords and certificates.

package file

import (
	"bytes"
	"crypto/x509"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern/postern/tenants"
)

// Limits in bytes. Postgres itself takes passwords up to about 64 KiB, libpq up to 1000 bytes or so.
const (
	maxPasswordFile = 4 << 10
	maxCAFile       = 4 << 20
	maxPairFile     = 64 << 10
	maxTokenFile    = 16 << 10 // macaroons are long
	maxTenantsFile  = 256 << 20
)

// file reads the file that v names.
func (l *loader) file(v value, limit int) (path string, data []byte, ok bool) {
	path = v.name()
	if path == "" {
		return "", nil, false
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(l.dir, path)
	}
	data, err := l.read(path, limit)
	if err != nil {
		v.fail("%v", err)
		return path, nil, false
	}
	if !slices.Contains(l.files, path) {
		l.files = append(l.files, path)
	}
	return path, data, true
}

// password reads a password file: one line, whose end is not part of the password; "" if it cannot be read.
func (l *loader) password(v value) string {
	_, data, ok := l.file(v, maxPasswordFile)
	if !ok {
		return ""
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	switch {
	case len(data) == 0:
		v.fail("the password file is empty")
	case bytes.ContainsAny(data, "\n\r\x00"):
		v.fail("the password file must hold one line of text and nothing else")
	default:
		return string(data)
	}
	return ""
}

// chain reads the file of a certificate and of those that link it to its authority; "" if it cannot be read.
func (l *loader) chain(v value) string {
	path, data, ok := l.file(v, maxPairFile)
	if !ok {
		return ""
	}
	chain, err := tenants.ParseChain(data)
	if err != nil {
		v.fail("%s: %v", path, err)
		return ""
	}
	return chain
}

// key reads the file of a certificate's key; "" if it cannot be read.
func (l *loader) key(v value) string {
	path, data, ok := l.file(v, maxPairFile)
	if ok && len(data) == 0 {
		v.fail("%s: is empty", path)
	}
	return string(data)
}

// token reads the file of a token of Fly's, as `fly tokens create` prints it; "" if it cannot be read.
func (l *loader) token(v value) string {
	path, data, ok := l.file(v, maxTokenFile)
	text := strings.Join(strings.Fields(string(data)), " ")
	if ok && text == "" {
		v.fail("%s: is empty", path)
	}
	return text
}

// roots are trusted CA certificates, and the text that they were read from.
type roots struct {
	pool *x509.CertPool
	pem  string
}

// certificates reads a file of trusted CA certificates. Tenants that name the same file share them.
func (l *loader) certificates(v value) roots {
	path, data, ok := l.file(v, maxCAFile)
	if !ok {
		return roots{}
	}
	if r, ok := l.cas[path]; ok {
		return r
	}
	pool, err := tenants.ParseRoots(data)
	if err != nil {
		v.fail("%s: %v", path, err)
		return roots{}
	}
	if l.cas == nil {
		l.cas = make(map[string]roots)
	}
	l.cas[path] = roots{pool, string(data)}
	return l.cas[path]
}
