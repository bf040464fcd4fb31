// Serving, reloading and ending, as signals and files ask for it.

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/tenants"
)

// signalSelf must only be called while serve or demo waits for signals: they would end the test otherwise.
func signalSelf(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

func TestServeAnswersSignals(t *testing.T) {
	dir := files(t, goodFiles(t))
	b := startCommand(t.Context(), "serve", "--config", filepath.Join(dir, "postern.yaml"))
	b.stderr.wait(t, `"msg":"listening"`, 2)

	signalSelf(t, syscall.SIGHUP)
	b.stderr.wait(t, `"msg":"tenants loaded"`, 2)
	b.stderr.wait(t, `"msg":"certificates reloaded"`, 1)

	// A file that cannot be used changes nothing and ends nothing.
	if err := os.WriteFile(filepath.Join(dir, "tenants.yaml"), []byte("tenants: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signalSelf(t, syscall.SIGHUP)
	b.stderr.wait(t, `"msg":"tenants not loaded`, 1)

	signalSelf(t, syscall.SIGTERM)
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	log := b.stderr.String()
	if !strings.HasSuffix(strings.TrimSpace(log), `"msg":"stopped"}`) {
		t.Errorf("the log does not end with the end:\n%s", log)
	}
	for _, secret := range []string{"a-token-of-some-length-for-the-tests", strings.Repeat("k", 32), "SCRAM-SHA-256$"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func TestServeNoticesFiles(t *testing.T) {
	dir := files(t, goodFiles(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := startCommand(ctx, "serve", "--config", filepath.Join(dir, "postern.yaml"))
	b.stderr.wait(t, `"msg":"listening"`, 2)

	// The watches may not be there yet, so it is done again until it was noticed.
	path, stop := filepath.Join(dir, "server.crt"), make(chan struct{})
	content := read(t, path)
	var toucher sync.WaitGroup
	toucher.Go(func() {
		for range pulse(stop) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	defer toucher.Wait()
	defer close(stop)
	b.stderr.wait(t, `"msg":"certificates reloaded"`, 1)
	b.stderr.wait(t, `"msg":"tenants loaded"`, 2) // in the same folder, and therefore read again, too

	cancel()
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestStatementLimitsAgree compares the defaults that are written in two places, because configs knows nothing of proxy.
func TestStatementLimitsAgree(t *testing.T) {
	got := gateLimits(configs.Default().Limits)
	if got.Statements != (link.Limits{}).OrDefault() || got.ServerStatements != link.DefaultLimit {
		t.Errorf("%+v", got)
	}
}

func TestServeNeedsItsAddress(t *testing.T) {
	content := goodFiles(t)
	dir := files(t, content)
	b := startCommand(t.Context(), "serve", "--config", filepath.Join(dir, "postern.yaml"))
	b.stderr.wait(t, `"msg":"admin HTTP"`, 1)
	_, after, _ := strings.Cut(b.stderr.String(), `"msg":"admin HTTP","address":"`)
	taken, _, _ := strings.Cut(after, `"`)
	b.stderr.wait(t, `"msg":"listening"`, 2)

	content["postern.yaml"] = strings.Replace(content["postern.yaml"], "127.0.0.1:0", taken, 1)
	r := runCommand(t, "", "serve", "--config", filepath.Join(files(t, content), "postern.yaml"))
	if r.code != exitFailed || !strings.Contains(r.err.Error(), "listener transaction") || !strings.Contains(r.err.Error(), taken) {
		t.Errorf("exit code %d, error %v", r.code, r.err)
	}

	signalSelf(t, syscall.SIGINT)
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestTimeoutsReachTheGate: none of a listener's and of the process's is lost on the way.
func TestTimeoutsReachTheGate(t *testing.T) {
	d := func(n time.Duration) *time.Duration { return &n }
	conf := &configs.Config{Timeouts: configs.Timeouts{Query: 1, Transaction: 2, IdleTransaction: 3, ClientIdle: 4, QueryWait: 5, ServerIdle: 6, ServerLifetime: 7},
		Listeners: []configs.Listener{{Address: "127.0.0.1:0",
			Timeouts: configs.ListenerTimeouts{Query: d(11), Transaction: d(12), IdleTransaction: d(13), ClientIdle: d(14), QueryWait: d(15)}}}}
	o := gateOptions(conf, nil, nil, nil, nil, nil)
	if diff := cmp.Diff(tenants.Timeouts{Query: d(1), Transaction: d(2), IdleTransaction: d(3), ClientIdle: d(4), QueryWait: d(5), ServerIdle: d(6), ServerLifetime: d(7)}, o.Session); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(tenants.Timeouts{Query: d(11), Transaction: d(12), IdleTransaction: d(13), ClientIdle: d(14), QueryWait: d(15)}, o.Listeners[0].Timeouts); diff != "" {
		t.Error(diff)
	}
}
