// PgBouncer as the benchmark runs it: its own defaults but for what both poolers are told alike.

package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// startPgBouncer starts a fresh PgBouncer. It holds the role's verifier, as Postern does, and logs in to the server
// with what it learned from the client's proof; with a plaintext password it would derive a verifier at each log-in.
// wide: its buffers are of 64 KiB, not of 4.
func (r *rig) startPgBouncer(wide bool) (*target, error) {
	buffers := ""
	if wide {
		buffers = "pkt_buf = 65536\n"
	}
	dir, err := r.instanceDir(pgbouncer)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := r.cert.write(dir, r.as); err != nil {
		return nil, err
	}
	if err := r.as.write(filepath.Join(dir, "userlist.txt"), fmt.Sprintf("%q %q\n", benchRole, r.pg.verifier)); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "pgbouncer.ini")
	if err := r.as.write(config, fmt.Sprintf(`[databases]
%[1]s = host=%[2]s port=%[3]d dbname=%[1]s

[pgbouncer]
listen_addr = %[2]s
listen_port = %[4]d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[5]s/userlist.txt
pool_mode = transaction
default_pool_size = %[6]d
max_client_conn = %[7]d
client_tls_sslmode = allow
client_tls_cert_file = %[5]s/server.crt
client_tls_key_file = %[5]s/server.key
server_tls_sslmode = disable
%[8]s`, benchDatabase, loopback, r.pg.port, port, dir, poolSize, maxClients, buffers)); err != nil {
		return nil, err
	}
	proc, err := start(pgbouncer, filepath.Join(r.dir, filepath.Base(dir)+".log"), r.as, r.opts.pgbouncer, config)
	if err != nil {
		return nil, err
	}
	return &target{name: pgbouncer, host: loopback, port: port, user: benchRole, proc: proc}, nil
}

// defaultPgBouncer is the one that scripts/install-pgbouncer.sh has put below .cache, or else the system's.
func defaultPgBouncer() string {
	const newer = ".cache/pgbouncer/pgbouncer"
	if path, err := filepath.Abs(newer); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "/usr/sbin/pgbouncer"
}

// preparesByDefault says whether the PgBouncer that calls itself so has prepared statements in transaction mode without being
// told: since 1.24.
func preparesByDefault(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "PgBouncer %d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 1 || minor >= 24
}
