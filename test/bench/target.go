// The targets: where a cell's clients go, and how they log in there.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The targets, in the order of the table.
const (
	direct    = "direct"
	pgbouncer = "pgbouncer"
	postern   = "postern"
	against   = "against" // another Postern, given by -against
)

func allTargets() []string { return []string{direct, pgbouncer, postern} }

// readyWithin is how long a fresh process may take to serve its first query.
const readyWithin = 30 * time.Second

// A target is where a cell's clients go. Its process is nil for a direct connection.
type target struct {
	name    string
	host    string
	port    int
	user    string // as the clients spell it: Postern's carries the tenant
	proc    *process
	metrics string // URL of its Prometheus metrics; "" if it has none
}

// startTarget starts a fresh process and waits until it serves a query.
func (r *rig) startTarget(ctx context.Context, i instance) (t *target, err error) {
	switch i.target {
	case direct:
		t = &target{name: direct, host: loopback, port: r.pg.port, user: benchRole}
	case pgbouncer:
		t, err = r.startPgBouncer(i.wide)
	case postern:
		t, err = r.startPostern(postern, r.programs.postern, i.plain)
	case against:
		t, err = r.startPostern(against, r.programs.against, i.plain)
	}
	if err != nil {
		return nil, err
	}
	if err := r.waitReady(ctx, t); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// stop ends the target's own process; a pooler has no clients by then, so it does not wait for any. May be called on nil.
func (t *target) stop() {
	if t != nil {
		t.proc.stop(syscall.SIGTERM)
	}
}

// alive returns an error if the target's process has ended.
func (t *target) alive() error {
	if t.proc == nil {
		return nil
	}
	return t.proc.alive()
}

// waitReady logs in and asks for something until that works, the process ends, or readyWithin is over.
func (r *rig) waitReady(ctx context.Context, t *target) error {
	deadline := time.Now().Add(readyWithin)
	for {
		conn, err := r.connect(ctx, t, false)
		if err == nil {
			conn.Close(ctx)
			return nil
		}
		if err := t.alive(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not serve: %w%s", t.name, err, t.logTail())
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// logTail returns the end of the target's log for an error message.
func (t *target) logTail() string {
	if t.proc == nil {
		return ""
	}
	return "\nthe end of its log:\n" + tail(t.proc.log, 20)
}

// connect logs in to t as an ordinary client and runs one query.
func (r *rig) connect(ctx context.Context, t *target, tls bool) (*pgconn.PgConn, error) {
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s password=%s sslmode=%s connect_timeout=20",
		t.host, t.port, t.user, benchDatabase, r.password, sslMode(tls)))
	if err != nil {
		return nil, errors.New("connection string") // the cause may quote the password
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := ask(ctx, conn); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// ask runs a query that any healthy connection answers.
func ask(ctx context.Context, conn *pgconn.PgConn) error {
	_, err := conn.Exec(ctx, "select 1").ReadAll()
	return err
}

func sslMode(tls bool) string {
	if tls {
		return "require"
	}
	return "disable"
}

// clientEnv is the environment of a pgbench that speaks TLS or does not.
func (r *rig) clientEnv(tls bool) []string {
	return append(os.Environ(), "PGPASSWORD="+r.password, "PGSSLMODE="+sslMode(tls), "PGGSSENCMODE=disable")
}
