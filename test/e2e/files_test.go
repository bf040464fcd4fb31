// Files that are none, and folders that are never quiet: what is read while the gate runs.

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// TestTenantsFileThatIsNone puts what hangs or never ends in the place of the tenants file. It is a failed load like any
// other, and both signals go on working.
func TestTenantsFileThatIsNone(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	conn := g.connect(t, "transaction")
	path := filepath.Join(g.Dir, "tenants.yaml")
	for name, put := range map[string]func(string) error{
		"a pipe":   func(at string) error { return syscall.Mkfifo(at, 0o600) },
		"a folder": func(at string) error { return os.Mkdir(at, 0o700) },
		"a device": func(at string) error { return os.Symlink("/dev/zero", at) },
		"a socket": func(at string) error {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
			if err == nil {
				t.Cleanup(func() { ln.Close() })
			}
			return err
		},
	} {
		failed := g.reloads("tenants", "failed")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, harness.Patience, name+" is noticed", func() bool { return g.reloads("tenants", "failed") > failed })
		if ok := g.metric("postern_directory_last_reload_success"); ok != 0 {
			t.Errorf("%s: the success gauge is %v", name, ok)
		}
		failed = g.reloads("tenants", "failed")
		g.Signal(t, syscall.SIGHUP)
		harness.Eventually(t, harness.Patience, "SIGHUP tries again", func() bool { return g.reloads("tenants", "failed") > failed })
	}
	harness.Eventually(t, harness.Patience, "the log says why", func() bool {
		return g.logged("tenants not loaded, what was loaded before stays") > 0 && g.Log().Contains("tenants.yaml is not a regular file")
	})
	if v := value(t, conn, "select 1"); v != "1" {
		t.Error(v)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	g.reload(g.tenant)

	becomePipe(t, path)
	g.readsAndStops(t)
}

// becomePipe has a pipe stand in the place of a file.
func becomePipe(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// readsAndStops has the gate read its files, one of which is a pipe, and end: neither waits for that.
func (g *gate) readsAndStops(t *testing.T) {
	t.Helper()
	g.Signal(t, syscall.SIGHUP)
	if code := g.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestOtherFilesThatAreNone: a certificate and the admin's tokens.
func TestOtherFilesThatAreNone(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	first, failed := g.shownSerial(t), g.reloads("tls", "failed")
	becomePipe(t, g.pair.KeyFile)
	harness.Eventually(t, harness.Patience, "the pair is noticed", func() bool { return g.reloads("tls", "failed") > failed })
	if serial := g.shownSerial(t); serial != first {
		t.Errorf("certificate %s, was %s", serial, first)
	}
	g.renewPair(t)
	harness.Eventually(t, harness.Patience, "the new pair is used", func() bool { return g.shownSerial(t) != first })

	becomePipe(t, filepath.Join(g.Dir, "admin.token"))
	if status, answer := g.Admin(t, "GET", "/metrics", nil); status != 503 {
		t.Errorf("status %d: %s", status, answer)
	}
	g.readsAndStops(t)
}

// renewPair replaces the certificate and its key.
func (g *gate) renewPair(t *testing.T) {
	t.Helper()
	second := g.ca.Issue(t, "localhost")
	replace(t, g.pair.CertFile, second.CertFile)
	replace(t, g.pair.KeyFile, second.KeyFile)
}

// TestCertificatesInABusyFolder: something in it changes all the time.
func TestCertificatesInABusyFolder(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	first := g.shownSerial(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() {
		close(stop)
		<-stopped
	}()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			if err := os.WriteFile(filepath.Join(filepath.Dir(g.pair.CertFile), "busy.log"), fmt.Append(nil, n), 0o600); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	g.renewPair(t)
	harness.Eventually(t, harness.Patience, "the new pair is used", func() bool { return g.shownSerial(t) != first })
}

// TestChangedConfigurationIsTold: the process's own file needs a restart, and the log says for what.
func TestChangedConfigurationIsTold(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	path := filepath.Join(g.Dir, "postern.yaml")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g.Write(t, "postern.yaml", append(before, "limits: {clients: 7}\nio_uring: \"off\"\n"...))
	harness.Eventually(t, harness.Patience, "it is said by itself", func() bool {
		return g.logged("the configuration has changed: what runs stays as it is until a restart", "keys", "[limits.clients io_uring]") > 0
	})
	g.Write(t, "postern.yaml", append(before, "limits: {clients: many}\n"...))
	harness.Eventually(t, harness.Patience, "so is that it cannot be read", func() bool {
		return g.logged("the configuration has changed and cannot be used: what runs stays as it is") > 0
	})
	said := g.logged("the configuration has changed and cannot be used: what runs stays as it is")
	g.Signal(t, syscall.SIGHUP)
	harness.Eventually(t, harness.Patience, "SIGHUP says it again", func() bool {
		return g.logged("the configuration has changed and cannot be used: what runs stays as it is") > said
	})
	if v := value(t, g.connect(t, "transaction"), "select 1"); v != "1" {
		t.Error(v)
	}
}
