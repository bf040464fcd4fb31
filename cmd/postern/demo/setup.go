// What the demo stands on: a folder, two tenants, a certificate, and the same files that serve reads.

package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// markerFile is in a folder that the demo has made, so that it never writes into anybody else's.
const markerFile = ".postern-demo"

// openFolder returns the absolute folder to work in, and what to do with
// it in the end. The account that runs PostgreSQL must be able to pass through
// it; what is secret in it is readable for its owner alone.
func openFolder(dir string) (folder string, remove func(), err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "postern-demo-"); err != nil {
			return "", nil, err
		}
		remove = func() { _ = os.RemoveAll(dir) }
		if err := os.Chmod(dir, 0o711); err != nil {
			remove()
			return "", nil, err
		}
		return dir, remove, nil
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	marker := filepath.Join(dir, markerFile)
	content, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, err
		}
	case err != nil:
		return "", nil, err
	case len(content) > 0:
		if _, err := os.Stat(marker); err != nil {
			return "", nil, fmt.Errorf("%s is neither empty nor a demo's folder: choose another one", dir)
		}
	}
	return dir, func() {}, os.WriteFile(marker, []byte("Made by postern demo. The whole folder may be deleted while no demo runs.\n"), 0o644)
}

// tenant is one of the demo, and how its machine sleeps.
type tenant struct {
	id        string // and the machine's name
	sleep     tenants.Sleep
	allowList string // as in the tenants file
}

// bothTenants are those that the demo serves: one of each kind.
func bothTenants() []tenant {
	return []tenant{
		{id: "acme", sleep: tenants.SleepStop, allowList: "[127.0.0.0/8, 203.0.113.0/24]"},
		{id: "globex", sleep: tenants.SleepSuspend, allowList: `[127.0.0.0/8, "2001:db8::/32"]`},
	}
}

// machinesFolder is where the clusters are, in the demo's folder.
const machinesFolder = "machines"

// Names of the demo's listeners.
const (
	listenerTransaction = "transaction"
	listenerSession     = "session"
	listenerProxied     = "behind-proxy"
)

const configText = `# Written by postern demo at every start.
listeners:
  - {name: ` + listenerTransaction + `, address: "%s", pool_mode: transaction, proxy_protocol: off}
  - {name: ` + listenerSession + `, address: "%s", pool_mode: session, proxy_protocol: off}
  - {name: ` + listenerProxied + `, address: "%s", pool_mode: transaction, proxy_protocol: require, trusted_proxies: [127.0.0.1/32]}
tls:
  certificates: [{cert: server.crt, key: server.key}]
  tenant_domain: ` + tenantDomain + `
auth: {mock_secret_file: mock.key}
admin: {address: "%s", token_file: admin.token}
tenants: {file: tenants.yaml}
machines: {local: {dir: ` + machinesFolder + `}}
timeouts: {drain: 2s}
log: {level: warn, format: text}
`

const tenantText = `  - id: %s
    machine: {provider: local, name: %s, suspend_after: %v, wake: connect, sleep: %s}
    database: app
    users:
      - {name: app, verifier: "%s"}
    allow_list: %s
    pool: {size: 10, max_servers: 20}
`

// writeFiles writes what serve would read, and returns what is known of
// the scene before anything listens. Everything secret is new with every run:
// a machine takes over the new verifiers when it wakes.
func writeFiles(folder string, suspendAfter time.Duration) (*scene, error) {
	sc := &scene{config: filepath.Join(folder, "postern.yaml"), ca: filepath.Join(folder, "ca.crt"), machines: filepath.Join(folder, machinesFolder),
		token: rand.Text(), suspendAfter: suspendAfter, passwords: make(map[string]string)}
	directory := "# Written by postern demo at every start; a change is noticed while it runs.\ntenants:\n"
	for _, t := range bothTenants() {
		password := rand.Text()
		verifier, err := scram.NewVerifier(password, scram.DefaultIterations, nil)
		if err != nil {
			return nil, err
		}
		directory += fmt.Sprintf(tenantText, t.id, t.id, suspendAfter, t.sleep, verifier.Encode(), t.allowList)
		sc.passwords[t.id] = password
	}
	files := map[string][]byte{
		"postern.yaml": fmt.Appendf(nil, configText, loopback(portTransaction), loopback(portSession), loopback(portProxied), loopback(portAdmin)),
		"tenants.yaml": []byte(directory),
		"mock.key":     []byte(rand.Text() + rand.Text()),
		"admin.token":  []byte(sc.token + "\n"),
	}
	if err := addCertificates(files); err != nil {
		return nil, err
	}
	for name, content := range files {
		mode := fs.FileMode(0o600)
		if name == "ca.crt" {
			mode = 0o644 // for a psql of another account
		}
		if err := os.WriteFile(filepath.Join(folder, name), content, mode); err != nil {
			return nil, err
		}
	}
	return sc, nil
}

// addCertificates makes a CA, whose key is forgotten, and the server's certificate.
func addCertificates(files map[string][]byte) error {
	now := time.Now()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0)}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template(1, "Postern demo CA "+now.UTC().Format(time.DateTime))
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	server := template(2, tenantDomain)
	server.DNSNames = []string{"localhost", tenantDomain, "*." + tenantDomain}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	server.KeyUsage, server.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	files["ca.crt"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	files["server.crt"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serverDER})
	files["server.key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return nil
}
