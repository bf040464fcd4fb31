// The files that a tenants file points to: passwords and certificates.

package file

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Limits in bytes. Postgres itself takes passwords up to about 64 KiB, libpq up to 1000 bytes or so.
const (
	maxPasswordFile = 4 << 10
	maxCAFile       = 4 << 20
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

// certificates reads a file of trusted CA certificates. Tenants that name the same file share the pool.
func (l *loader) certificates(v value) *x509.CertPool {
	path, data, ok := l.file(v, maxCAFile)
	if !ok {
		return nil
	}
	if pool, ok := l.cas[path]; ok {
		return pool
	}
	pool, err := parseCertificates(data)
	if err != nil {
		v.fail("%s: %v", path, err)
		return nil
	}
	if l.cas == nil {
		l.cas = make(map[string]*x509.CertPool)
	}
	l.cas[path] = pool
	return pool
}

// parseCertificates reads every certificate in data. One that cannot be read is an error, not skipped as by
// AppendCertsFromPEM: the server that it stands for would be refused later, with nobody watching.
func parseCertificates(data []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %q besides certificates", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return pool, nil
}
