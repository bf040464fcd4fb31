// Real clusters: made, started, stopped, killed, copied.

package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder makes a directory that the account of the server may reach, which t.TempDir's is not under root.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func create(t *testing.T, o Options) *Cluster {
	t.Helper()
	o.Disposable = true
	c, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background(), Immediate); err != nil {
			t.Error(err)
		}
	})
	return c
}

func start(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func setting(t *testing.T, c *Cluster, name string) string {
	t.Helper()
	conn, err := c.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value string
	if err := conn.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestClusterLivesOnOverStopsAndCrashes(t *testing.T) {
	dir := filepath.Join(folder(t), "it's a \\ cluster")
	c := create(t, Options{Dir: dir, Settings: map[string]string{"search_path": `"it's", public`}})
	if c.Running() || c.PID() != 0 {
		t.Fatal("runs before it was started")
	}
	start(t, c)
	start(t, c) // nothing to do
	if got := setting(t, c, "search_path"); got != `"it's", public` {
		t.Errorf("search_path = %q", got)
	}
	if err := c.Exec(t.Context(), "postgres", "create table public.kept (n int); insert into public.kept values (7)"); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), Fast); err != nil { // nothing to do
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", c.Addr()); err == nil {
		conn.Close()
		t.Fatal("something listens after Stop")
	}

	// The same directory, as after a restart of this process.
	again := create(t, Options{Dir: dir})
	start(t, again)
	if err := syscall.Kill(again.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-again.proc.done
	if again.PID() != 0 {
		t.Error("a pid after the end")
	}
	start(t, again)
	var n int
	conn, err := again.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "select n from public.kept").Scan(&n); err != nil || n != 7 {
		t.Errorf("kept %d, %v", n, err)
	}
	if err := c.Stop(t.Context(), Fast); err != nil {
		t.Error(err)
	}
}

func TestTheSuperuserAloneGetsInPastAnHBAThatRejects(t *testing.T) {
	c := create(t, Options{Dir: folder(t), Superuser: "boss", HBA: []string{"host all all all reject"}})
	start(t, c)
	if err := c.Exec(t.Context(), "postgres", "create role other login password 'x'"); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if user := conn.Config().User; user != "boss" {
		t.Errorf("connected as %s", user)
	}
	other := &Cluster{opts: c.opts, port: c.Port()}
	other.opts.Superuser, other.password = "other", "x"
	if err := other.Exec(t.Context(), "postgres", "select 1"); err == nil || !strings.Contains(err.Error(), "pg_hba.conf rejects") {
		t.Errorf("other: %v", err)
	}
	other.opts.Superuser, other.password = "boss", "wrong"
	if err := other.Exec(t.Context(), "postgres", "select 1"); err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("boss with a wrong password: %v", err)
	}
}

func TestTemplateIsCopied(t *testing.T) {
	dir := folder(t)
	template := create(t, Options{Dir: filepath.Join(dir, "template")})
	start(t, template)
	if _, err := Create(t.Context(), Options{Dir: filepath.Join(dir, "early"), Template: template}); err == nil {
		t.Error("copied a running cluster")
	}
	if err := template.Exec(t.Context(), "postgres", "create role app"); err != nil {
		t.Fatal(err)
	}
	if err := template.Stop(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		c := create(t, Options{Dir: filepath.Join(dir, name), Template: template})
		start(t, c)
		if err := c.Exec(t.Context(), "postgres", "drop role app"); err != nil { // there in each copy
			t.Error(err)
		}
	}
}

func TestStartFailsWithTheServersWordsAndLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := folder(t)
	template := create(t, Options{Dir: filepath.Join(dir, "template")})
	for name, tt := range map[string]struct {
		o    Options
		says string
	}{
		"taken port":  {Options{Port: taken.Addr().(*net.TCPAddr).Port}, "Address already in use"},
		"bad setting": {Options{Settings: map[string]string{"work_mem": "many"}}, `invalid value for parameter "work_mem"`},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Dir, tt.o.Template = filepath.Join(dir, name), template
			c := create(t, tt.o)
			err := c.Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Start: %v", err)
			}
			if c.Running() {
				t.Error("a process is left")
			}
		})
	}
}

func TestStopEscalates(t *testing.T) {
	c := create(t, Options{Dir: folder(t)})
	start(t, c)
	// A stopped process can act on no signal but the last.
	if err := syscall.Kill(c.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Stop(ctx, Fast); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop: %v", err)
	}
	if c.Running() {
		t.Error("still runs")
	}
	start(t, c)
}

func TestThePasswordIsInNoOutput(t *testing.T) {
	c := &Cluster{opts: Options{Dir: "/d"}, password: "hunter2"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s: %s", verb, got)
		}
	}
	if got := c.LogValue().String(); strings.Contains(got, "hunter2") {
		t.Error(got)
	}
}
