// Postern as the benchmark runs it: one transaction-mode listener without PROXY headers, one tenant, defaults otherwise.

package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// startPostern starts a fresh Postern under the given name. plain: it may not use io_uring.
func (r *rig) startPostern(name, bin string, plain bool) (*target, error) {
	ioUring := "auto"
	if plain {
		ioUring = "off"
	}
	dir, err := r.instanceDir(name)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	adminPort, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := r.cert.write(dir, r.as); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "postern.yaml")
	for path, content := range map[string]string{
		config: fmt.Sprintf(`listeners:
  - name: bench
    address: %[1]s:%[2]d
    pool_mode: transaction
    proxy_protocol: "off"
tls:
  certificates: [{cert: %[3]s/server.crt, key: %[3]s/server.key}]
auth:
  mock_secret_file: %[3]s/mock.key
admin:
  address: %[1]s:%[4]d
  token_file: %[3]s/admin.token
  metrics_public: true
tenants:
  file: %[3]s/tenants.yaml
timeouts: {drain: 1s}
io_uring: %[5]q
`, loopback, port, dir, adminPort, ioUring),
		filepath.Join(dir, "tenants.yaml"): fmt.Sprintf(`tenants:
  - id: %[1]s
    upstream: {host: %[2]s, port: %[3]d, tls: disable}
    database: %[4]s
    users:
      - {name: %[5]s, verifier: %[6]q, pool_size: %[7]d}
    pool: {size: %[7]d, max_clients: %[8]d, max_servers: %[7]d}
`, benchTenant, loopback, r.pg.port, benchDatabase, benchRole, r.pg.verifier, poolSize, maxClients),
		filepath.Join(dir, "admin.token"): rand.Text() + "\n",
		filepath.Join(dir, "mock.key"):    rand.Text() + rand.Text() + "\n",
	} {
		if err := r.as.write(path, content); err != nil {
			return nil, err
		}
	}
	proc, err := start(name, filepath.Join(r.dir, filepath.Base(dir)+".log"), r.as, bin, "serve", "--config", config)
	if err != nil {
		return nil, err
	}
	return &target{
		name: name, host: loopback, port: port, user: benchRole + "." + benchTenant, proc: proc,
		metrics: fmt.Sprintf("http://%s:%d/metrics", loopback, adminPort),
	}, nil
}

// ioUring says whether the Postern of the run may send by io_uring; "" if there is none.
func (r *rig) ioUring() string {
	t := r.targets[instance{target: postern}]
	if t == nil {
		return ""
	}
	log, err := os.ReadFile(t.proc.log)
	if err != nil {
		return "unknown"
	}
	return parseIOUring(string(log))
}

// parseIOUring finds in Postern's log whether it sends by io_uring: "yes", or why not.
func parseIOUring(log string) string {
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Reason, Error string }
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		switch entry.Msg {
		case "each write is a system call of its own":
			return "no: " + entry.Reason
		case "io_uring failed: sending without it":
			return "no longer: " + entry.Error
		}
	}
	return "yes"
}
