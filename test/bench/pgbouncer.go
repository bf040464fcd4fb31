// PgBouncer as the benchmark runs it: its own defaults but for what both poolers are told alike.

package main

import (
	"fmt"
	"path/filepath"
)

// startPgBouncer starts a fresh PgBouncer. It holds the role's verifier, as Postern does, and logs in to the server
// with what it learned from the client's proof; with a plaintext password it would derive a verifier at each log-in.
func (r *rig) startPgBouncer() (*target, error) {
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
`, benchDatabase, loopback, r.pg.port, port, dir, poolSize, maxClients)); err != nil {
		return nil, err
	}
	proc, err := start(pgbouncer, filepath.Join(r.dir, filepath.Base(dir)+".log"), r.as, r.opts.pgbouncer, config)
	if err != nil {
		return nil, err
	}
	return &target{name: pgbouncer, host: loopback, port: port, user: benchRole, proc: proc}, nil
}
