// The blocks of YAML in the documents are read by the loaders of the real files.

package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/tenants/file"
)

var yamlBlock = regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```$")

// What completes a block that is only a part, by its first line.
const (
	wholeConfig   = "# postern.yaml"
	partOfConfig  = "# postern.yaml, a part"
	wholeTenants  = "# tenants.yaml"
	someTenants   = "# tenants.yaml, entries of tenants"
	keysOfATenant = "# tenants.yaml, at a tenant"
)

func TestBlocksOfYAMLLoad(t *testing.T) {
	found := 0
	for _, name := range documents(t) {
		for _, m := range yamlBlock.FindAllStringSubmatch(read(t, "../"+name), -1) {
			found++
			if err := loadBlock(t, m[1]); err != nil {
				t.Errorf("%s: %v\n%s", name, err, m[1])
			}
		}
	}
	if found < 7 {
		t.Errorf("found %d blocks only", found)
	}
}

// loadBlock loads a block as the file that its first line names.
func loadBlock(t *testing.T, block string) error {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "acme-ca.pem"), certificate(t))
	write(t, filepath.Join(dir, "postern_auth.pw"), "secret\n")
	write(t, filepath.Join(dir, "globex.token"), "secret\n")
	first, _, _ := strings.Cut(block, "\n")
	first, _, _ = strings.Cut(first, ":")
	path := filepath.Join(dir, "file.yaml")
	switch first {
	case wholeConfig:
		write(t, path, block)
	case partOfConfig:
		write(t, path, "listeners: [{name: l, address: \"127.0.0.1:6543\"}]\ntenants: {file: tenants.yaml}\n"+block)
	case wholeTenants:
		write(t, path, block)
	case someTenants:
		write(t, path, "tenants:\n"+block)
	case keysOfATenant:
		write(t, path, "tenants:\n  - id: a\n    upstream: {host: h}\n    users: []\n"+block)
	default:
		t.Errorf("the first line of a block must be one of %q, %q, %q, %q, %q", wholeConfig, partOfConfig, wholeTenants, someTenants, keysOfATenant)
		return nil
	}
	if strings.HasPrefix(first, wholeConfig) {
		_, err := configs.Load(path)
		return err
	}
	_, err := file.Load(file.Options{Path: path})
	return err
}

// certificate is one that a tenants file can name as its ca.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
