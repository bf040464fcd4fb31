// The demo, for real: with its servers, its gate and its clients.

package main

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/proxy/proxyproto"
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
	if len(lines) != 14 {
		t.Errorf("%d lines:\n%s", len(lines), r.stdout)
	}
	for _, want := range []string{`28000: address 198.51.100.9 is not allowed`, "28P01", "57014", "TLS 1.3", `postern_refusals_total{reason="address"} 2`,
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
		var held visitor
		for i, want := range []string{"acme", "globex", "acme", "acme", "acme", "", ""} {
			// hostaddr is libpq's, and enter's clients find every host on this computer.
			uri := strings.TrimSuffix(uris[i][1], "&hostaddr=127.0.0.1")
			v, err := enter(t.Context(), uri)
			if want == "" {
				if err == nil || !strings.Contains(err.Error(), "SQLSTATE 28000") {
					t.Errorf("%s: %v, want a refusal", uri, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", uri, err)
			}
			defer v.leave(t.Context())
			if err := v.wants(t.Context(), "show cluster_name", want); err != nil {
				t.Errorf("%s: %v", uri, err)
			}
			held = v
		}
		if answer, err := held.ask(t.Context(), sql); err != nil || answer == "" {
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

// Steps that fail say so, all of them, and the visit fails.
func TestVisitFails(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	ln.Close()
	sc := &scene{allowed: closed, refused: closed, admin: closed, ca: "none.crt", passwords: map[string]string{"acme": "a", "globex": "b"},
		listeners: map[string]string{listenerTransaction: closed, listenerSession: closed}}
	out := newOutput()
	if err := sc.visit(t.Context(), out); err == nil || !strings.Contains(err.Error(), "13 of the visit's 13 steps failed") {
		t.Errorf("got %v", err)
	}
	if n := strings.Count(out.String(), "FAILED "); n != 13 {
		t.Errorf("%d failures told:\n%s", n, out)
	}
}

// A relay's target learns the source from the header, and bytes and ends pass in both directions.
func TestRelay(t *testing.T) {
	target, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	r, err := newRelay("127.0.0.1:0", "203.0.113.7")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var side sync.WaitGroup
	side.Go(func() { r.serve(ctx, target.Addr().String(), slog.New(slog.DiscardHandler)) })

	client, err := net.DialTimeout("tcp4", r.ln.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	if _, err := client.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	_ = client.(*net.TCPConn).CloseWrite()

	server, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(server)
	peer, err := proxyproto.Read(in, netip.MustParseAddrPort(server.RemoteAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := peer.Client.Addr().String(); got != "203.0.113.7" {
		t.Errorf("the client is %s", got)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the client's end was not passed on")
	}
	_, _ = server.Write([]byte("bye\n"))
	server.Close()
	if line, err := bufio.NewReader(client).ReadString('\n'); err != nil || line != "bye\n" {
		t.Errorf("read %q, %v", line, err)
	}

	// The end of the context ends everything, open connections too.
	open, err := net.DialTimeout("tcp4", r.ln.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	last, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	cancel()
	side.Wait()
}

func TestRelayNeedsAnAddress(t *testing.T) {
	if _, err := newRelay("127.0.0.1:0", "not an address"); err == nil {
		t.Error("made a relay without a source")
	}
}
