// The demo, for real: with its servers, its gate and its clients.

package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// demoFolder is a folder that does not exist yet, below ones that the account of the servers may enter.
func demoFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "of", "the demo's")
}

// enterDemo connects until the end of the test. Every host name is taken for this computer, where the gate is.
func enterDemo(t *testing.T, uri string) (*pgconn.PgConn, error) {
	t.Helper()
	conf, err := pgconn.ParseConfig(uri)
	if err != nil {
		return nil, err
	}
	conf.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	conn, err := pgconn.ConnectConfig(t.Context(), conf)
	if err == nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(ctx)
		})
	}
	return conn, err
}

// ask returns the last value of a statement's answer as text, "" if there is none.
func ask(t *testing.T, conn *pgconn.PgConn, sql string) (answer string, err error) {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	for _, r := range results {
		for _, row := range r.Rows {
			answer = string(row[len(row)-1])
		}
	}
	return answer, err
}

func TestDemoOnce(t *testing.T) {
	r := runCommand(t, "", "demo", "--once")
	if r.code != exitDone {
		t.Fatalf("exit code %d: %v\n%s%s", r.code, r.err, r.stdout, r.stderr)
	}
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	for _, line := range lines[1:] {
		if !strings.HasPrefix(line, "ok ") {
			t.Errorf("said: %s", line)
		}
	}
	if len(lines) != 15 {
		t.Errorf("%d lines:\n%s", len(lines), r.stdout)
	}
	for _, want := range []string{`28000: address 198.51.100.9 is not allowed`, "28P01", "57014", "TLS 1.3", `postern_refusals_total{reason="address"} `,
		"its machine woke up in", "no process is left", "its processes are frozen", `postern_suspends_total{reason="idle",result="ok",tenant="acme"}`} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in:\n%s", want, r.stdout)
		}
	}
	wantNothingLeft(t, demoFolderOf(t, r.stdout))
}

// demoFolderOf is the folder that a demo has said it works in.
func demoFolderOf(t *testing.T, said string) string {
	t.Helper()
	first, _, _ := strings.Cut(said, "\n")
	_, folder, ok := strings.Cut(first, " in /")
	if !ok {
		t.Fatalf("no folder in %q", first)
	}
	return "/" + folder
}

// wantNothingLeft wants a temporary folder, and all processes that worked in it, to be gone.
func wantNothingLeft(t *testing.T, folder string) {
	t.Helper()
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it to be gone", folder, err)
	}
	wantNoProcess(t, folder)
}

// wantNoProcess wants no process to work in a folder.
func wantNoProcess(t *testing.T, folder string) {
	t.Helper()
	for _, p := range processesIn(t, folder) {
		t.Errorf("still runs: %s", p)
	}
}

// processesIn lists the processes, by command line, that name the folder in it or work there.
func processesIn(t *testing.T, folder string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range all {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if strings.Contains(string(line), folder) || strings.HasPrefix(cwd, folder) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// A demo in a folder of one's own serves until it is interrupted, leaves nothing running, and finds its data again.
func TestDemoUntilInterrupted(t *testing.T) {
	dir := demoFolder(t)
	for run, sql := range []string{"create table kept (x int); select 'made'", "select 'found' from (select count(*) from kept) t"} {
		b := startCommand(t.Context(), "demo", "--dir", dir)
		b.stdout.wait(t, "Press Ctrl-C", 1)
		uris := regexp.MustCompile(`psql '(.*)'`).FindAllStringSubmatch(b.stdout.String(), -1)
		if len(uris) != 7 {
			t.Fatalf("%d lines to paste in:\n%s", len(uris), b.stdout)
		}
		var held *pgconn.PgConn
		for i, want := range []string{"acme", "globex", "acme", "acme", "acme", "", ""} {
			// hostaddr is libpq's, and enterDemo finds every host on this computer.
			uri := strings.TrimSuffix(uris[i][1], "&hostaddr=127.0.0.1")
			conn, err := enterDemo(t, uri)
			if want == "" {
				if err == nil || !strings.Contains(err.Error(), "SQLSTATE 28000") {
					t.Errorf("%s: %v, want a refusal", uri, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", uri, err)
			}
			if got, err := ask(t, conn, "show cluster_name"); err != nil || got != want {
				t.Errorf("%s: %q, %v", uri, got, err)
			}
			held = conn
		}
		if answer, err := ask(t, held, sql); err != nil || answer == "" {
			t.Errorf("run %d: %q, %v", run, answer, err)
		}
		for _, tenant := range []string{"acme", "globex"} {
			b.stdout.wait(t, tenant+" woke up in ", 1)
		}
		if n := len(processesIn(t, dir)); n == 0 {
			t.Error("no server is seen to run")
		}

		signalSelf(t, syscall.SIGINT)
		if code := b.end(t); code != exitDone {
			t.Errorf("exit code %d", code)
		}
		wantNoProcess(t, dir)
	}
	if r := runCommand(t, "", "check-config", "--config", filepath.Join(dir, "postern.yaml")); r.code != exitDone {
		t.Errorf("what the demo wrote is not good: %v", r.err)
	}
}

func read(t *testing.T, names ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(names...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDemoInterruptedWhileStarting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"demo"}, {"demo", "--once"}} {
		b := startCommand(ctx, args...)
		if code := b.end(t); code != exitFailed {
			t.Errorf("%v: exit code %d", args, code)
		}
		if said := b.stdout.String(); strings.Count(said, "\n") != 1 {
			t.Errorf("%v: it went on: %s", args, said)
		}
		wantNothingLeft(t, demoFolderOf(t, b.stdout.String()))
	}
}

func TestDemoSparesOtherFolders(t *testing.T) {
	dir := writeFiles(t, map[string]string{"postern.yaml": "mine"})
	r := runCommand(t, "", "demo", "--once", "--dir", dir)
	if r.code != exitFailed || !strings.Contains(r.err.Error(), dir) {
		t.Errorf("exit code %d, error %v", r.code, r.err)
	}
	if got := read(t, dir, "postern.yaml"); got != "mine" {
		t.Errorf("postern.yaml is now %q", got)
	}
}

// A demo that is told to end, and to hurry, while a machine is made for a client tells the client and leaves nothing.
func TestDemoInterruptedWhileWaking(t *testing.T) {
	late := make(chan os.Signal, 1)
	signal.Notify(late, syscall.SIGINT) // the second one would end the test if the demo were over by then
	defer signal.Stop(late)
	b := startCommand(t.Context(), "demo")
	b.stdout.wait(t, "Press Ctrl-C", 1)
	folder := demoFolderOf(t, b.stdout.String())
	uri := regexp.MustCompile(`psql '(.*)'`).FindStringSubmatch(b.stdout.String())[1]
	told := make(chan error, 1)
	go func() {
		_, err := enterDemo(t, uri)
		told <- err
	}()
	harness.Eventually(t, time.Minute, "initdb", func() bool {
		return strings.Contains(strings.Join(processesIn(t, folder), "\n"), "initdb")
	})
	signalSelf(t, syscall.SIGINT)
	address := regexp.MustCompile(`@(\S*)/`).FindStringSubmatch(uri)[1]
	harness.Eventually(t, time.Minute, "a drain: the first one has arrived", func() bool {
		conn, err := net.Dial("tcp4", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	signalSelf(t, syscall.SIGINT)
	if err := <-told; err == nil || !strings.Contains(err.Error(), "57P01") {
		t.Errorf("the client was told: %v", err)
	}
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	wantNothingLeft(t, folder)
}

// A demo that is interrupted while a machine is frozen leaves nothing, either.
func TestDemoInterruptedWhileFrozen(t *testing.T) {
	b := startCommand(t.Context(), "demo")
	b.stdout.wait(t, "Press Ctrl-C", 1)
	said := b.stdout.String()
	folder := demoFolderOf(t, said)
	uri := regexp.MustCompile(`psql '(.*app\.globex.*)'`).FindStringSubmatch(said)[1]
	conn, err := enterDemo(t, uri)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, conn, "show cluster_name"); err != nil || got != "globex" {
		t.Fatalf("%q, %v", got, err)
	}
	api := regexp.MustCompile(`(http://\S*)/acme/machine`).FindStringSubmatch(said)[1]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+"/globex/machine/suspend", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+regexp.MustCompile(`Bearer (\w+)`).FindStringSubmatch(said)[1])
	harness.Eventually(t, time.Minute, "a suspend", func() bool { // its connection may be cleaned up yet
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusAccepted
	})
	b.stdout.wait(t, "globex went to sleep (operator)", 1)
	if n := len(processesIn(t, folder)); n == 0 {
		t.Fatal("its processes are gone")
	}
	signalSelf(t, syscall.SIGINT)
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	wantNothingLeft(t, folder)
}
