// Serving, reloading and ending, as signals and files ask for it.

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/file"
)

// signalSelf must only be called while serve or demo waits for signals: they would end the test otherwise.
func signalSelf(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

func TestServeAnswersSignals(t *testing.T) {
	dir := writeFiles(t, goodFiles(t))
	b := startCommand(t.Context(), "serve", "--config", filepath.Join(dir, "postern.yaml"))
	b.stderr.wait(t, `"msg":"listening"`, 2)

	signalSelf(t, syscall.SIGHUP)
	b.stderr.wait(t, `"msg":"tenants loaded"`, 3) // at first, when it is watched, and now
	b.stderr.wait(t, `"msg":"certificates reloaded"`, 2)

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
	dir := writeFiles(t, goodFiles(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := startCommand(ctx, "serve", "--config", filepath.Join(dir, "postern.yaml"))
	b.stderr.wait(t, `"msg":"listening"`, 2)

	b.stderr.wait(t, `"msg":"certificates reloaded"`, 1) // from here on they are watched
	b.stderr.wait(t, `"msg":"tenants loaded"`, 2)
	for name, said := range map[string]string{"server.crt": `"msg":"certificates reloaded"`, "tenants.yaml": `"msg":"tenants loaded"`} {
		before := strings.Count(b.stderr.String(), said)
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(read(t, path)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.stderr.wait(t, said, before+1)
	}

	cancel()
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// built is a process of good files that does not run yet, what it says, and the log it says it to.
func built(t *testing.T) (*process, *output, *slog.Logger) {
	t.Helper()
	dir := writeFiles(t, goodFiles(t))
	conf, err := configs.Load(filepath.Join(dir, "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	said := newOutput()
	log := slog.New(slog.NewJSONHandler(said, nil))
	p, err := build(conf, log, func() uint64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	return p, said, log
}

// TestSignalsWhileAFileHangs: one load of the tenants never returns. SIGHUPs do no harm, however many, and SIGTERM ends.
func TestSignalsWhileAFileHangs(t *testing.T) {
	p, said, log := built(t)
	hung, released := make(chan struct{}, 10), make(chan struct{})
	defer close(released)
	first := true
	store, err := file.Open(p.directory, func() (*file.Snapshot, error) {
		if !first {
			hung <- struct{}{}
			<-released
		}
		first = false
		return &file.Snapshot{LoadedAt: time.Now()}, nil
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	p.store = fileStore{store, p.conf.Tenants.File}
	ended := make(chan error, 1)
	go func() { ended <- p.run(t.Context(), log, func() {}) }()
	said.wait(t, `"msg":"listening"`, 2)
	<-hung
	for range 20 {
		signalSelf(t, syscall.SIGHUP)
	}
	asked := make(chan error, 1)
	go func() { asked <- p.reload() }()
	signalSelf(t, syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("SIGTERM ends nothing; log:\n%s", said)
	}
	if err := <-asked; !errors.Is(err, errEnding) {
		t.Errorf("the console's RELOAD says %v", err)
	}
}

// TestSighupWhileStarting is kept until there is something to reload. It used to end the process, as it ends one that does
// not ask for it.
func TestSighupWhileStarting(t *testing.T) {
	p, said, log := built(t)
	signalSelf(t, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, log, func() {}) }()
	said.wait(t, `"msg":"tenants loaded"`, 3) // by build, when they are watched, and by the signal
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// notRead is a store that has not read all tenants yet.
type notRead struct{ tenantStore }

func (notRead) Ready() error { return errors.New("not all tenants are read yet") }

// TestNotReadyBeforeAllIsRead: a balancer is told, whatever the gate says.
func TestNotReadyBeforeAllIsRead(t *testing.T) {
	p, _, log := built(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := p.run(ctx, log, func() {
		defer cancel()
		if err := p.ready(); err != nil {
			t.Error(err)
		}
		p := process{gate: p.gate, store: notRead{p.store}}
		if err := p.ready(); err == nil || err.Error() != "not all tenants are read yet" {
			t.Errorf("says %v", err)
		}
	})
	if err != nil {
		t.Error(err)
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
	dir := writeFiles(t, content)
	b := startCommand(t.Context(), "serve", "--config", filepath.Join(dir, "postern.yaml"))
	b.stderr.wait(t, `"msg":"admin HTTP"`, 1)
	_, after, _ := strings.Cut(b.stderr.String(), `"msg":"admin HTTP","address":"`)
	taken, _, _ := strings.Cut(after, `"`)
	b.stderr.wait(t, `"msg":"listening"`, 2)

	content["postern.yaml"] = strings.Replace(content["postern.yaml"], "127.0.0.1:0", taken, 1)
	r := runCommand(t, "", "serve", "--config", filepath.Join(writeFiles(t, content), "postern.yaml"))
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

// TestThrottleOfTheConfiguration: what the file says reaches the gate, and its defaults are the throttle's own.
func TestThrottleOfTheConfiguration(t *testing.T) {
	conf := configs.Default()
	options := func() netrestrict.ThrottleConfig {
		return gateOptions(&conf, nil, nil, nil, nil, nil).Throttle
	}
	want := netrestrict.ThrottleConfig{TenantFailures: netrestrict.DefaultTenantFailures, AddressFailures: netrestrict.DefaultAddressFailures,
		Window: netrestrict.DefaultWindow, Block: netrestrict.DefaultBlock}
	if got := options(); got != want {
		t.Errorf("the defaults are %+v, the throttle's own %+v", got, want)
	}
	conf.Auth.Throttle = configs.Throttle{TenantFailures: 1, AddressFailures: 2, Window: 3, Block: 4}
	if got, want := options(), (netrestrict.ThrottleConfig{TenantFailures: 1, AddressFailures: 2, Window: 3, Block: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestWithoutToken: who starts an admin API without operators is told who can use it.
func TestWithoutToken(t *testing.T) {
	store := configs.TenantsPostgres{DSNFile: "dsn", KeyFile: "key"}
	for _, c := range []struct {
		admin   configs.Admin
		tenants configs.Tenants
		says    string
	}{
		{configs.Admin{TokenFile: "token"}, configs.Tenants{Postgres: store}, ""},
		{configs.Admin{}, configs.Tenants{Postgres: store}, "only who has a token of the store can change tenants"},
		{configs.Admin{MetricsPublic: true}, configs.Tenants{Postgres: store}, "only who has a token of the store can change tenants"},
		{configs.Admin{}, configs.Tenants{File: "tenants.yaml"}, "nobody can ask the API"},
		{configs.Admin{MetricsPublic: true}, configs.Tenants{File: "tenants.yaml"}, ""},
	} {
		var said strings.Builder
		warnWithoutToken(&configs.Config{Admin: c.admin, Tenants: c.tenants}, slog.New(slog.NewTextHandler(&said, nil)))
		if lines := strings.Count(said.String(), "level=WARN"); !strings.Contains(said.String(), c.says) || (c.says == "") != (lines == 0) || lines > 1 {
			t.Errorf("%+v: says %q", c, said.String())
		}
	}
	content := goodFiles(t)
	content["postern.yaml"] = strings.Replace(content["postern.yaml"], ", token_file: admin.token", "", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := startCommand(ctx, "serve", "--config", filepath.Join(writeFiles(t, content), "postern.yaml"))
	b.stderr.wait(t, "nobody can ask the API", 1)
	b.stderr.wait(t, `"msg":"listening"`, 2)
	cancel()
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}
