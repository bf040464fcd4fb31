// The PostgreSQL behind every target: a throw-away cluster with pgbench's tables in memory.

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/postern/postern/machines/local"
)

// A postgres is the running cluster.
type postgres struct {
	cluster  *local.Cluster
	port     int
	version  string
	verifier string // of benchRole, as PostgreSQL stores it: what both poolers are given
}

// startPostgres makes the cluster, starts it and fills it.
func (r *rig) startPostgres(ctx context.Context) error {
	fmt.Fprintln(r.progress, "making a PostgreSQL cluster, scale", r.opts.scale)
	if err := r.cert.write(r.dir, account{}); err != nil {
		return err
	}
	cluster, err := local.Create(ctx, local.Options{
		Dir:        filepath.Join(r.dir, "postgres"),
		CertFile:   filepath.Join(r.dir, "server.crt"),
		KeyFile:    filepath.Join(r.dir, "server.key"),
		Disposable: true, // durability is not what is measured, and the disk's moods are nobody's merit
		Settings: map[string]string{
			"max_connections": strconv.Itoa(serverSlots), "shared_buffers": "512MB",
			// Nothing of its own between the rounds.
			"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "8GB",
		},
	})
	if err != nil {
		return err
	}
	if err := cluster.Start(ctx); err != nil {
		return err
	}
	r.pg = &postgres{cluster: cluster, port: cluster.Port()}
	return r.fill(ctx)
}

// fill makes the role, its database and pgbench's tables, and loads those into shared buffers.
func (r *rig) fill(ctx context.Context) error {
	admin, err := r.pg.cluster.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	r.pg.version = admin.PgConn().ParameterStatus("server_version")
	// The password is rand.Text: letters and digits, nothing to quote.
	for _, sql := range []string{
		fmt.Sprintf("create role %s login password '%s'", benchRole, r.password),
		fmt.Sprintf("create database %s owner %s", benchDatabase, benchRole),
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := admin.QueryRow(ctx, "select rolpassword from pg_authid where rolname = $1", benchRole).Scan(&r.pg.verifier); err != nil {
		return err
	}
	if _, err := run(ctx, r.clientEnv(false), r.programs.pgbench, "-i", "-q", "-s", strconv.Itoa(r.opts.scale),
		"-h", loopback, "-p", strconv.Itoa(r.pg.port), "-U", benchRole, benchDatabase); err != nil {
		return err
	}
	err = r.pg.cluster.Exec(ctx, benchDatabase, `create extension pg_prewarm;
		select pg_prewarm('pgbench_accounts'), pg_prewarm('pgbench_accounts_pkey')`)
	if err != nil { // a build without the contrib modules; the warm-up cells load most of it then
		fmt.Fprintln(r.progress, "tables are not prewarmed:", err)
	}
	return ctx.Err()
}

// stopPostgres takes the cluster down without a last checkpoint, which nobody would read.
func (r *rig) stopPostgres() {
	if r.pg != nil {
		if err := r.pg.cluster.Stop(context.Background(), local.Immediate); err != nil {
			fmt.Fprintln(r.progress, "bench:", err)
		}
	}
}
