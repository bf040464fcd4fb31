// The console's commands: what they do to clients and servers, under load, and to nobody else.

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// TestConsolePauses a tenant under load: nobody has an error, nothing is served, and it ends with RESUME.
func TestConsolePauses(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	var served atomic.Int64
	stop := g.load(t, &served)
	c := g.console(t)
	for _, command := range []string{"PAUSE acme", "pause \"acme\";", "PAUSE"} {
		if got := tag(t, c, command); got != "PAUSE" {
			t.Errorf("%s: %s", command, got)
		}
		if n := row(t, show(t, c, "TENANTS"), "tenant", "acme")["servers"]; n != "0" {
			t.Errorf("%s returned while there were %s server connections", command, n)
		}
		watch := g.direct(t)
		harness.Eventually(t, harness.Patience, "their processes end", func() bool { return backends(t, watch) == "0" })
		// Who waits has counted the answer before, which may have taken its time.
		harness.Eventually(t, harness.Patience, "they wait", g.waiting(loadClients))
		before := served.Load()
		wantRow(t, row(t, show(t, c, "TENANTS"), "tenant", "acme"), map[string]string{"paused": "1", "servers": "0"})
		if n := served.Load(); n > before {
			t.Errorf("%s: %d were served", command, n-before)
		}
		resume := strings.NewReplacer("PAUSE", "RESUME", "pause", "resume").Replace(command)
		if got := tag(t, c, resume); got != "RESUME" {
			t.Errorf("%s: %s", resume, got)
		}
		harness.Eventually(t, harness.Patience, "they are served again", func() bool { return served.Load() > before+100 })
	}
	stop()
	if got := row(t, show(t, c, "STATS"), "database", "acme")["avg_xact_count"]; got == "0" {
		t.Error("no transactions per second")
	}

	// It takes as long as those inside a transaction.
	other := g.console(t)
	done := make(chan error, 1)
	begin := func(command string) {
		go func() {
			_, err := c.PgConn().Exec(context.Background(), command).ReadAll()
			done <- err
		}()
		harness.Eventually(t, harness.Patience, "it is paused", func() bool { return show(t, other, "TENANTS")[0]["paused"] == "1" })
	}
	for _, command := range []string{"PAUSE acme", "PAUSE"} {
		held := g.holders(t, 1)[0]
		begin(command)
		// The tenants are paused first, and then the process says that it is.
		want := map[bool]string{true: "yes", false: "no"}[command == "PAUSE"]
		harness.Eventually(t, harness.Patience, "paused altogether: "+want, func() bool { return row(t, show(t, other, "STATE"), "key", "paused")["value"] == want })
		select {
		case err := <-done:
			t.Errorf("%s was done while a transaction was open: %v", command, err)
		case <-time.After(300 * time.Millisecond):
		}
		held.want("C:COMMIT Z:I", 1, query("commit"))
		if err := <-done; err != nil {
			t.Error(err)
		}
		if command == "PAUSE" {
			refused(t, other, "pause", "55000", "already suspended/paused")
		}
		if got := tag(t, other, strings.Replace(command, "PAUSE", "RESUME", 1)); got != "RESUME" {
			t.Error(got)
		}
	}
	refused(t, other, "resume", "55000", "not paused/suspended")
	refused(t, other, "resume acme", "55000", "database acme is not paused")
	refused(t, other, "pause nobody", "3D000", "no such database: nobody")
	refused(t, other, "pause acme/app", "3D000", "no such database: acme/app")
	refused(t, other, "pause pgbouncer", "42809", "cannot pause admin db: pgbouncer")

	// Who leaves before all is released takes the PAUSE of everything back, whether he says so or not.
	held := g.holders(t, 1)[0]
	resumed := func() bool { return show(t, other, "TENANTS")[0]["paused"] == "0" }
	for name, leave := range map[string]func(*script){
		"says goodbye": func(s *script) { s.say(&pgproto3.Terminate{}) },
		"hangs up":     func(s *script) { s.conn.Close() },
		"has more to say and hangs up": func(s *script) {
			s.say(query("show version"), syncUp())
			s.conn.Close()
		},
	} {
		quitter := scriptAs(t, g.consoleDSN("private"))
		quitter.say(query("pause"))
		harness.Eventually(t, harness.Patience, "it is paused", func() bool { return !resumed() })
		leave(quitter)
		harness.Eventually(t, harness.Patience, "it is resumed for one who "+name, resumed)
	}

	// So does who cancels, and stays.
	begin("PAUSE")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Error(err)
	}
	wantState(t, <-done, "57014")
	if !resumed() {
		t.Error("it is paused after a cancel")
	}
	held.want("C:COMMIT Z:I", 1, query("commit"))
}

const loadClients = 8

// load runs transactions of clients until stop, which waits for them. A client's error fails the test.
func (g *gate) load(t *testing.T, served *atomic.Int64) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, loadClients)
	for range loadClients {
		conn := g.connect(t, "transaction")
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				if _, err := conn.PgConn().Exec(context.Background(), "begin; select pg_sleep(0.001); commit").ReadAll(); err != nil {
					t.Errorf("a client: %v", err)
					return
				}
				served.Add(1)
			}
		}()
	}
	harness.Eventually(t, harness.Patience, "they are served", func() bool { return served.Load() > 0 })
	return func() {
		cancel()
		for range loadClients {
			<-done
		}
	}
}

// TestConsoleKills a tenant's clients and servers, whatever they do, and holds those who come next.
func TestConsoleKills(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	resting, inside, running, session := g.script(t, "transaction"), g.holders(t, 1)[0], g.script(t, "transaction"), g.script(t, "session")
	running.say(query("select pg_sleep(60)"))
	watch := g.direct(t)
	harness.Eventually(t, harness.Patience, "it runs", func() bool {
		return value(t, watch, "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()") == "1"
	})
	c := g.console(t)
	if got := tag(t, c, "KILL acme"); got != "KILL" {
		t.Error(got)
	}
	for name, s := range map[string]*script{"resting": resting, "inside": inside, "running": running, "session": session} {
		if got, _ := s.tryHear(1); !strings.Contains(got, "57P01") {
			t.Errorf("%s was told %q", name, got)
		}
	}
	if servers := show(t, c, "SERVERS"); len(servers) != 0 {
		t.Errorf("%d servers are left", len(servers))
	}
	harness.Eventually(t, harness.Patience, "the server has none left", func() bool { return backends(t, watch) == "0" })
	// Who comes next is held: with its query, or, if the empty pool has been forgotten, before it is greeted.
	late := make(chan string, 1)
	go func() {
		s, err := hijack(t.Context(), g.dsn("transaction"))
		if err != nil {
			late <- err.Error()
			return
		}
		defer s.conn.Close()
		got, err := s.try(1, query("select 'late'"))
		late <- fmt.Sprint(got, err)
	}()
	harness.Eventually(t, harness.Patience, "who comes next is held", g.waiting(1))
	if got := tag(t, c, "RESUME acme"); got != "RESUME" {
		t.Error(got)
	}
	if got := <-late; got != "T D:late C:SELECT_1 Z:I<nil>" {
		t.Error(got)
	}
	refused(t, c, "kill", "42601", "a database is required")

	// One client, and not its neighbour.
	victim, neighbour := g.connect(t, "transaction", "application_name=victim"), g.script(t, "transaction")
	id := row(t, show(t, c, "CLIENTS"), "application_name", "victim")["id"]
	if got := tag(t, c, "KILL_CLIENT "+id); got != "KILL_CLIENT" {
		t.Error(got)
	}
	_, err := tryValue(t.Context(), victim, "select 1")
	wantState(t, err, "57P01")
	neighbour.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	refused(t, c, "kill_client "+id, "22023", "client not found")
	refused(t, c, "kill_client x", "22023", "invalid client id")
}

// TestConsoleReconnects: RECONNECT replaces servers without an error, WAIT_CLOSE waits for those in use.
func TestConsoleReconnects(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	var served atomic.Int64
	stop := g.load(t, &served)
	defer stop()
	c := g.console(t)
	for _, command := range []string{"RECONNECT acme", "RECONNECT"} {
		held := g.holders(t, 1)[0]
		before := make(map[string]bool)
		for _, s := range show(t, c, "SERVERS") {
			before[s["remote_pid"]] = true
		}
		delete(before, "0") // one that is being dialed
		if got := tag(t, c, command); got != "RECONNECT" {
			t.Error(got)
		}
		done := make(chan error, 1)
		go func() {
			_, err := c.PgConn().Exec(context.Background(), "WAIT_CLOSE"+strings.TrimPrefix(command, "RECONNECT")).ReadAll()
			done <- err
		}()
		select {
		case err := <-done:
			t.Errorf("WAIT_CLOSE was done while a transaction was open: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		held.want("C:COMMIT Z:I", 1, query("commit"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, s := range show(t, c, "SERVERS") {
			if before[s["remote_pid"]] {
				t.Errorf("%s: server %s is still there", command, s["remote_pid"])
			}
		}
	}
}

// TestConsoleDisables a tenant's logins, and nothing that is open; strangers learn nothing of it.
func TestConsoleDisables(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	open := g.script(t, "transaction")
	c := g.console(t)
	if got := tag(t, c, "DISABLE acme"); got != "DISABLE" {
		t.Error(got)
	}
	for _, listener := range []string{"session", "transaction"} {
		_, err := connectBriefly(g, listener)
		wantState(t, err, "55000")
		_, err = connectBriefly(g, listener, "password=wrong")
		wantState(t, err, "28P01")
	}
	open.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	wantRow(t, show(t, c, "DATABASES")[0], map[string]string{"disabled": "1", "paused": "0"})
	if got := tag(t, c, "ENABLE acme"); got != "ENABLE" {
		t.Error(got)
	}
	_ = g.script(t, "transaction")
}

// TestConsoleReloadsAndShutsDown as SIGHUP and SIGTERM do.
func TestConsoleReloadsAndShutsDown(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	c := g.console(t)
	before := g.reloads("tenants", "ok")
	if got := tag(t, c, "RELOAD"); got != "RELOAD" {
		t.Error(got)
	}
	if now := g.reloads("tenants", "ok"); now <= before {
		t.Errorf("%v reloads before, %v after", before, now)
	}
	g.Write(t, "tenants.yaml", []byte("tenants: 7\n"))
	refused(t, c, "reload", "F0000", "RELOAD failed")

	resting, inside := g.script(t, "transaction"), g.holders(t, 1)[0]
	refused(t, c, "shutdown wait_for_clients", "0A000", "not available")
	if got := tag(t, c, "SHUTDOWN"); got != "SHUTDOWN" {
		t.Error(got)
	}
	if got, _ := resting.tryHear(1); !strings.Contains(got, "57P01") {
		t.Errorf("a resting client was told %q", got)
	}
	if got := value(t, c, "show version"); got == "" { // it goes last
		t.Error("no version")
	}
	inside.want("C:COMMIT Z:I", 1, query("commit"))
	if code := g.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	_, err := c.PgConn().Exec(t.Context(), "show version").ReadAll()
	wantState(t, err, "57P01")
}

// TestConsoleWakesNobody: whatever is shown or done, a machine that sleeps is not woken.
func TestConsoleWakesNobody(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, nil, func(_, file harness.Map) {
		for key, value := range withConsole(t) {
			file[key] = value
		}
	})
	c := g.console(t)
	for _, what := range strings.Fields("CONFIG DATABASES POOLS CLIENTS SERVERS SOCKETS ACTIVE_SOCKETS LISTS USERS STATS TOTALS MEM STATE TENANTS PINS") {
		_ = show(t, c, what)
	}
	wantRow(t, show(t, c, "TENANTS")[0], map[string]string{"machine": "asleep"})
	for _, command := range strings.Split("PAUSE acme/RESUME acme/PAUSE/RESUME/RECONNECT/RECONNECT acme/KILL acme/RESUME acme/DISABLE acme/ENABLE acme/WAIT_CLOSE/RELOAD", "/") {
		_ = tag(t, c, command)
	}
	if n := g.wakes(); n != 0 {
		t.Errorf("%v wakes", n)
	}
	g.awaitMachine(t, "asleep")
}
