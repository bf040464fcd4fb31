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
	if len(lines) != 10 {
		t.Errorf("%d lines:\n%s", len(lines), r.stdout)
	}
	for _, want := range []string{`28000: address 198.51.100.9 is not allowed`, "28P01", "57014", "TLS 1.3", `postern_refusals_total{reason="address"} 2`} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in:\n%s", want, r.stdout)
		}
	}
	folder := strings.TrimSuffix(strings.TrimPrefix(lines[0], "Starting two PostgreSQL servers in "), " ...")
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it to be gone", folder, err)
	}
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
		ports := regexp.MustCompile(`port: (\d+)`).FindAllStringSubmatch(read(t, dir, "tenants.yaml"), -1)
		if len(ports) != 2 {
			t.Fatalf("%d servers in tenants.yaml", len(ports))
		}

		signalSelf(t, syscall.SIGINT)
		if code := b.end(t); code != exitDone {
			t.Errorf("exit code %d", code)
		}
		for _, port := range ports {
			if conn, err := net.Dial("tcp4", "127.0.0.1:"+port[1]); err == nil {
				conn.Close()
				t.Errorf("the server at port %s still runs", port[1])
			}
		}
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
	defer cancel()
	dir := demoFolder(t)
	b := startCommand(ctx, "demo", "--dir", dir)
	b.stdout.wait(t, "Starting", 1)
	cancel()
	if code := b.end(t); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(b.stdout.String(), "Press Ctrl-C") {
		t.Error("it went on")
	}
}

func TestDemoSparesOtherFolders(t *testing.T) {
	dir := files(t, map[string]string{"postern.yaml": "mine"})
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
	if err := sc.visit(t.Context(), out); err == nil || !strings.Contains(err.Error(), "9 of the visit's 9 steps failed") {
		t.Errorf("got %v", err)
	}
	if n := strings.Count(out.String(), "FAILED "); n != 9 {
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

	client, err := net.DialTimeout("tcp4", r.ln.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := client.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	_ = client.(*net.TCPConn).CloseWrite()

	server, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetDeadline(time.Now().Add(10 * time.Second))
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
	open, err := net.DialTimeout("tcp4", r.ln.Addr().String(), 5*time.Second)
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
