// Certificates that a tenant trusts, read from PEM.

package tenants

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// ParseRoots reads every certificate in a text in PEM. One that cannot be read is an error, not skipped as by
// AppendCertsFromPEM: the server that it stands for would be refused later, with nobody watching.
func ParseRoots(text []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
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
