// The scripted visit of the demo: what a careful visitor would try by hand, over real sockets.

package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/tenants"
)

// Bounds of one step of the visit.
const (
	stepLimit  = 30 * time.Second
	wakeLimit  = 2 * time.Minute // of one in which a machine is woken that was never awake: initdb runs
	sleepLimit = time.Minute     // of one in which a machine goes to sleep
)

// step is one of the visit. What it returns is told: a detail, or what is wrong.
type step struct {
	name  string
	limit time.Duration
	do    func(context.Context) (string, error)
}

// steps are in an order: strangers come first, while both machines sleep.
func (s *scene) steps() []step {
	return []step{
		{"both machines are asleep", stepLimit, s.visitAsleep},
		{"a client from " + refusedSource + " is refused", stepLimit, func(ctx context.Context) (string, error) {
			return wantRefusal(ctx, s.uri(s.refused, "acme"), "28000", refusedSource)
		}},
		{"tenants have lists of their own", stepLimit, func(ctx context.Context) (string, error) {
			return wantRefusal(ctx, s.uri(s.allowed, "globex"), "28000", allowedSource)
		}},
		{"a wrong password is refused", stepLimit, func(ctx context.Context) (string, error) {
			uri := strings.Replace(s.uri(s.listeners[listenerTransaction], "acme"), s.passwords["acme"], "wrong", 1)
			return wantRefusal(ctx, uri, "28P01", "password")
		}},
		{"who is refused wakes nobody", stepLimit, s.visitStillAsleep},
		{"a client from " + allowedSource + " is served after a wake", wakeLimit, s.visitAllowed},
		{"TLS, verified, with channel binding", stepLimit, s.visitTLS},
		{"a running query is cancelled", stepLimit, s.visitCancel},
		{"transaction mode keeps clients apart", stepLimit, s.visitTransactionMode},
		{"session mode keeps a client's settings", wakeLimit, s.visitSessionMode},
		{"acme restricts, and its owner sees who is refused", stepLimit, s.visitRestrict},
		{"acme sleeps, stopped, and its client never notices", sleepLimit, func(ctx context.Context) (string, error) {
			return s.visitSleep(ctx, "acme", tenants.SleepStop)
		}},
		{"globex sleeps, suspended, and neither does its", sleepLimit, func(ctx context.Context) (string, error) {
			return s.visitSleep(ctx, "globex", tenants.SleepSuspend)
		}},
		{"metrics tell what happened", stepLimit, s.visitMetrics},
	}
}

// visit goes through all steps, prints a line for each, and returns an error if one failed.
func (s *scene) visit(ctx context.Context, out io.Writer) error {
	steps := s.steps()
	failed := 0
	for _, step := range steps {
		detail, err := func() (string, error) {
			ctx, cancel := context.WithTimeout(ctx, step.limit)
			defer cancel()
			return step.do(ctx)
		}()
		if ctx.Err() != nil {
			return errors.New("the visit was interrupted")
		}
		result := "ok"
		if err != nil {
			failed++
			result, detail = "FAILED", err.Error()
		}
		fmt.Fprintf(out, "%-6s  %-50s  %s\n", result, step.name, detail)
	}
	if failed > 0 {
		return fmt.Errorf("%d of the visit's %d steps failed", failed, len(steps))
	}
	return nil
}

// visitor is a client of the gate.
type visitor struct{ *pgconn.PgConn }

// enter connects. Every host name is taken for this computer, where the gate is.
func enter(ctx context.Context, uri string) (visitor, error) {
	conf, err := pgconn.ParseConfig(uri)
	if err != nil {
		return visitor{}, err
	}
	conf.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	conn, err := pgconn.ConnectConfig(ctx, conf)
	return visitor{conn}, err
}

// leave closes the connection, also after ctx has ended.
func (v visitor) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = v.Close(ctx)
}

// ask returns the last value of a statement's answer as text, "" if there is none.
func (v visitor) ask(ctx context.Context, sql string) (string, error) {
	results, err := v.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	answer := ""
	for _, r := range results {
		for _, row := range r.Rows {
			answer = string(row[len(row)-1])
		}
	}
	return answer, nil
}

// wants asks, and returns an error if the answer is another one.
func (v visitor) wants(ctx context.Context, sql, want string) error {
	got, err := v.ask(ctx, sql)
	if err == nil && got != want {
		err = fmt.Errorf("answered %q, want %q", got, want)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// visitAllowed asks a tenant's server who it is, once its machine has woken.
func (s *scene) visitAllowed(ctx context.Context) (string, error) {
	v, err := enter(ctx, s.uri(s.allowed, "acme"))
	if err != nil {
		return "", err
	}
	defer v.leave(ctx)
	if err := v.wants(ctx, "show cluster_name", "acme"); err != nil {
		return "", err
	}
	version, err := v.ask(ctx, "show server_version")
	if err != nil {
		return "", err
	}
	m, err := s.machine(ctx, "acme")
	if err != nil {
		return "", err
	}
	if m.LastWake == nil || m.LastWake.Result != "ok" || m.LastWake.Reason != "client" {
		return "", fmt.Errorf("the API knows of no wake: %+v", m)
	}
	return fmt.Sprintf("acme's PostgreSQL %s answered; its machine woke up in %.2f s", version, m.LastWake.Seconds), nil
}

// wantRefusal tries to connect and wants an error of this SQLSTATE whose text contains a word.
func wantRefusal(ctx context.Context, uri, code, word string) (string, error) {
	v, err := enter(ctx, uri)
	if err == nil {
		v.leave(ctx)
		return "", errors.New("was let in")
	}
	var refusal *pgconn.PgError
	if !errors.As(err, &refusal) || refusal.Code != code || !strings.Contains(refusal.Message, word) {
		return "", fmt.Errorf("want SQLSTATE %s with %q, got: %w", code, word, err)
	}
	return refusal.Code + ": " + refusal.Message, nil
}

// visitTLS names the tenant by host name alone.
func (s *scene) visitTLS(ctx context.Context) (string, error) {
	v, err := enter(ctx, s.secureURI("acme"))
	if err != nil {
		return "", err
	}
	defer v.leave(ctx)
	conn, ok := v.Conn().(*tls.Conn)
	if !ok {
		return "", errors.New("the connection is in plaintext")
	}
	if err := v.wants(ctx, "show cluster_name", "acme"); err != nil {
		return "", err
	}
	return tls.VersionName(conn.ConnectionState().Version) + ", found by the host name acme." + tenantDomain, nil
}

// visitCancel cancels a query once the server says that it runs, and goes on with the same session.
func (s *scene) visitCancel(ctx context.Context) (string, error) {
	sleeper, err := enter(ctx, s.uri(s.allowed, "acme"))
	if err != nil {
		return "", err
	}
	defer sleeper.leave(ctx)
	watcher, err := enter(ctx, s.uri(s.listeners[listenerTransaction], "acme"))
	if err != nil {
		return "", err
	}
	defer watcher.leave(ctx)

	slept := make(chan error, 1)
	go func() {
		_, err := sleeper.ask(ctx, "select pg_sleep(60)")
		slept <- err
	}()
	cancelled := s.cancelWhenRunning(ctx, sleeper, watcher)
	if cancelled != nil {
		_ = sleeper.Conn().Close() // ends the query
	}
	err = <-slept
	if cancelled != nil {
		return "", cancelled
	}
	var ended *pgconn.PgError
	if !errors.As(err, &ended) || ended.Code != "57014" {
		return "", fmt.Errorf("want SQLSTATE 57014, got: %v", err) // which may be none
	}
	if err := sleeper.wants(ctx, "select 'still here'", "still here"); err != nil {
		return "", fmt.Errorf("the session did not go on: %w", err)
	}
	return ended.Code + ": " + ended.Message + "; the session goes on", nil
}

func (s *scene) cancelWhenRunning(ctx context.Context, sleeper, watcher visitor) error {
	err := until(ctx, func() (bool, error) {
		n, err := watcher.ask(ctx, "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(60)'")
		return n == "1", err
	})
	if err != nil {
		return fmt.Errorf("the query does not run: %w", err)
	}
	return sleeper.CancelRequest(ctx)
}

// until repeats a question until its answer is yes.
func until(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// visitTransactionMode has two clients take turns: each keeps the settings it
// came with, and neither sees what the other has set.
func (s *scene) visitTransactionMode(ctx context.Context) (string, error) {
	const rounds = 10
	names := []string{"one", "two"}
	servers := make(map[string]bool)
	var visitors []visitor
	for _, name := range names {
		v, err := enter(ctx, s.uri(s.listeners[listenerTransaction], "acme")+"&application_name="+name)
		if err != nil {
			return "", err
		}
		defer v.leave(ctx)
		visitors = append(visitors, v)
	}
	for range rounds {
		for i, v := range visitors {
			if err := v.wants(ctx, "show application_name", names[i]); err != nil {
				return "", err
			}
			server, err := v.ask(ctx, "select pg_backend_pid()")
			if err != nil {
				return "", err
			}
			servers[server] = true
		}
	}
	before, err := visitors[1].ask(ctx, "show work_mem")
	if err != nil {
		return "", err
	}
	if _, err := visitors[0].ask(ctx, "set work_mem = '3MB'"); err != nil {
		return "", err
	}
	if err := visitors[1].wants(ctx, "show work_mem", before); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d turns of 2 clients on %d server connection(s), each with its own settings", rounds, len(servers)), nil
}

// visitSessionMode sets something in one transaction and finds it in the next.
func (s *scene) visitSessionMode(ctx context.Context) (string, error) {
	v, err := enter(ctx, s.uri(s.listeners[listenerSession], "globex"))
	if err != nil {
		return "", err
	}
	defer v.leave(ctx)
	if _, err := v.ask(ctx, "set work_mem = '5MB'"); err != nil {
		return "", err
	}
	return "globex kept what it was set to", v.wants(ctx, "show work_mem", "5MB")
}
