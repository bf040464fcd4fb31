// What each command prints and ends with.

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

// memberlist does not wait for a probe that is under way when it ends; that ends by itself.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(suite{m}, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// suite has the servers that tests share end with them.
type suite struct{ m *testing.M }

func (s suite) Run() int { return harness.Main(s.m) }

// result is what a caller of the program sees.
type result struct {
	stdout, stderr string
	err            error
	code           int
}

// runCommand runs the program as main does, in this process.
func runCommand(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetArgs(append([]string{}, args...)) // never nil, for which cobra would take those of the test itself
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err := root.ExecuteContext(t.Context())
	return result{stdout.String(), stderr.String(), err, exitCode(err)}
}

// writeFiles writes files, by name, into a new folder and returns it.
func writeFiles(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// goodFiles is a configuration that serves on any free ports.
func goodFiles(t *testing.T) map[string]string {
	t.Helper()
	verifier, err := scram.NewVerifier("secret", scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair := harness.Certificates(t).Issue(t, "localhost")
	return map[string]string{
		"postern.yaml": `
listeners:
  - {name: transaction, address: "127.0.0.1:0", pool_mode: transaction}
  - {name: session, address: "127.0.0.1:0", pool_mode: session}
tls: {certificates: [{cert: server.crt, key: server.key}]}
auth: {mock_secret_file: mock.key}
admin: {address: "127.0.0.1:0", token_file: admin.token}
tenants: {file: tenants.yaml}
timeouts: {drain: 1s}
`,
		"tenants.yaml": `
tenants:
  - id: acme
    upstream: {host: 127.0.0.1, port: 1, tls: disable}
    users: [{name: app, verifier: "` + verifier.Encode() + `"}]
    allow_list: [127.0.0.0/8]
`,
		"mock.key":    strings.Repeat("k", 32),
		"admin.token": "a-token-of-some-length-for-the-tests\n",
		"server.crt":  read(t, pair.CertFile),
		"server.key":  read(t, pair.KeyFile),
	}
}

func TestExitCodes(t *testing.T) {
	dir := writeFiles(t, goodFiles(t))
	config := filepath.Join(dir, "postern.yaml")
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says string // in stdout, or in the error
	}{
		{name: "nothing", code: exitDone, says: "check-config"},
		{name: "help", args: []string{"serve", "--help"}, code: exitDone, says: "--config"},
		{name: "unknown command", args: []string{"sevre"}, code: exitUsage, says: `unknown command "sevre"`},
		{name: "unknown flag", args: []string{"version", "--loud"}, code: exitUsage, says: "--loud"},
		{name: "unknown flag of the root", args: []string{"--loud"}, code: exitUsage, says: "--loud"},
		{name: "flag without a value", args: []string{"serve", "--config"}, code: exitUsage, says: "--config"},
		{name: "argument where none is taken", args: []string{"version", "now"}, code: exitUsage, says: "now"},
		{name: "serve without a configuration", args: []string{"serve"}, code: exitUsage, says: "--config is required"},
		{name: "check-config without one", args: []string{"check-config"}, code: exitUsage, says: "--config is required"},
		{name: "serve with a missing one", args: []string{"serve", "--config", filepath.Join(dir, "none.yaml")}, code: exitFailed, says: "none.yaml"},
		{name: "flag from the environment", env: map[string]string{"POSTERN_CONFIG": config}, args: []string{"check-config"}, code: exitDone, says: "ok"},
		{name: "the command line wins", env: map[string]string{"POSTERN_CONFIG": "none.yaml"}, args: []string{"check-config", "--config", config}, code: exitDone, says: "ok"},
		{name: "bad value in the environment", env: map[string]string{"POSTERN_ONCE": "sometimes"}, args: []string{"demo"}, code: exitUsage, says: "POSTERN_ONCE"},
		{name: "nobody to ask", args: []string{"tenant", "list", "--api", "http://127.0.0.1:1"}, env: map[string]string{"POSTERN_TOKEN": "x"}, code: exitFailed, says: "refused"},
		{name: "no token", args: []string{"tenant", "list"}, code: exitUsage, says: "no token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			r := runCommand(t, "", c.args...)
			said := r.stdout
			if r.err != nil {
				said += r.err.Error()
			}
			if r.code != c.code || !strings.Contains(said, c.says) {
				t.Errorf("exit code %d, said %q; want %d and %q", r.code, said, c.code, c.says)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	r := runCommand(t, "", "version")
	fields := strings.Fields(r.stdout)
	if r.code != exitDone || len(fields) != 4 || fields[0] != "postern" || fields[1] == "" || fields[2] != runtime.Version() || fields[3] != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("exit code %d, said %q", r.code, r.stdout)
	}
}

// The verifier is of the password that was given, and the statement stores that very one.
func TestVerifier(t *testing.T) {
	for _, c := range []struct {
		name, stdin, password string
		args                  []string
		role                  string
	}{
		{name: "a line", stdin: "s3cret\n", password: "s3cret", role: `"app"`},
		{name: "no line end", stdin: "s3cret", password: "s3cret", role: `"app"`},
		{name: "only the first line, spaces kept", stdin: " two words \r\nmore\n", password: " two words ", role: `"app"`},
		{name: "another role", stdin: "pässword\n", password: "pässword", args: []string{"--user", `o"dd; role`}, role: `"o""dd; role"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runCommand(t, c.stdin, append([]string{"verifier"}, c.args...)...)
			if r.code != exitDone {
				t.Fatalf("exit code %d: %v", r.code, r.err)
			}
			lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
			if len(lines) != 2 {
				t.Fatalf("printed %q, want two lines", r.stdout)
			}
			got, err := scram.ParseVerifier(lines[0])
			if err != nil {
				t.Fatal(err)
			}
			want, err := scram.NewVerifier(c.password, got.Iterations, got.Salt)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Equal(want) {
				t.Error("the verifier is not this password's")
			}
			if want := "ALTER ROLE " + c.role + " PASSWORD '" + lines[0] + "';"; lines[1] != want {
				t.Errorf("printed %q, want %q", lines[1], want)
			}
			if strings.Contains(r.stdout+r.stderr, strings.TrimSpace(c.password)) {
				t.Error("the password was printed")
			}
		})
	}
	for _, stdin := range []string{"", "\n"} {
		if r := runCommand(t, stdin, "verifier"); r.code != exitFailed || r.stdout != "" {
			t.Errorf("input %q: exit code %d, printed %q", stdin, r.code, r.stdout)
		}
	}
}

func TestCheckConfigOK(t *testing.T) {
	dir := writeFiles(t, goodFiles(t))
	r := runCommand(t, "", "check-config", "--config", filepath.Join(dir, "postern.yaml"))
	if r.code != exitDone || !strings.HasSuffix(r.stdout, "postern.yaml: 2 listeners, 1 tenants: ok\n") {
		t.Errorf("exit code %d, said %q, error %v", r.code, r.stdout, r.err)
	}
}

// Every problem is told in one run, and none of them repeats a secret.
func TestCheckConfigProblems(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(map[string]string)
		want   []string // regular expressions
	}{
		{"in the configuration", func(f map[string]string) {
			f["postern.yaml"] += "limts: {clients: 5}\nlog: {level: loud}\nloops: -1\n"
		}, []string{"limts", `log\.level`, `loops`}},
		{"in the files that it names", func(f map[string]string) {
			f["tenants.yaml"] = strings.NewReplacer("127.0.0.0/8", "127.0.0.0/88", "SCRAM-SHA-256", "SCRAM-SHA-1", "port: 1,", "port: 70000,").Replace(f["tenants.yaml"])
			f["server.key"] = "not a key"
			f["mock.key"] = "short"
			f["admin.token"] = "\n"
		}, []string{`allow_list`, `verifier`, `port`, `tls\.certificates`, `mock_secret_file`, `token file`}},
		{"files that are not there", func(f map[string]string) {
			for _, name := range []string{"tenants.yaml", "server.crt", "mock.key", "admin.token"} {
				delete(f, name)
			}
		}, []string{`tenants\.yaml`, `server\.crt`, `mock\.key`, `admin\.token`}},
		{"in all files at once", func(f map[string]string) {
			f["postern.yaml"] = strings.Replace(f["postern.yaml"], "[{cert: server.crt, key: server.key}]",
				"[{cert: gone.crt, key: server.key}, {cert: server.crt}, {cert: lost.crt, key: server.key}]", 1) + "limts: {clients: 5}\nmachines: {fly: {api: 'ftp://x', token_file: fly.token}}\n"
			f["tenants.yaml"] = strings.Replace(f["tenants.yaml"], "port: 1,", "port: 70000,", 1)
			f["mock.key"] = "short"
			delete(f, "admin.token")
		}, []string{`limts.*line`, `certificates\[1\]\.key`, `machines\.fly\.api`, `gone\.crt`, `lost\.crt`, `mock_secret_file`, `fly\.token`, `admin\.token`, `tenants\.yaml:\ntenants\[0\]\.upstream\.port`}},
		{"of a store", func(f map[string]string) {
			f["postern.yaml"] = strings.Replace(f["postern.yaml"], "{file: tenants.yaml}", "{postgres: {dsn_file: dsn, key_file: key}}", 1) + "loops: -1\n"
			f["dsn"], f["admin.token"] = "postgres://u:not a key@[bad", "\n"
		}, []string{`loops`, `holds no connection string`, `key: .*store init`, `admin\.token has no token`}},
		{"of half a store", func(f map[string]string) {
			f["postern.yaml"] = strings.Replace(f["postern.yaml"], "{file: tenants.yaml}", "{postgres: {dsn_file: dsn}}", 1)
		}, []string{`postgres\.key_file: is missing`, `dsn: no such file`}},
		{"an allow_list behind a listener that others reach", func(f map[string]string) {
			f["postern.yaml"] = strings.Replace(f["postern.yaml"], "127.0.0.1:0", "0.0.0.0:0", 1)
		}, []string{`listeners\[0\]\.proxy_protocol`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			content := goodFiles(t)
			c.change(content)
			r := runCommand(t, "", "check-config", "--config", filepath.Join(writeFiles(t, content), "postern.yaml"))
			if r.code != exitFailed || r.stdout != "" {
				t.Fatalf("exit code %d, said %q", r.code, r.stdout)
			}
			for _, want := range c.want {
				if !regexp.MustCompile(want).MatchString(r.err.Error()) {
					t.Errorf("no %s in:\n%v", want, r.err)
				}
			}
			if strings.Contains(r.err.Error(), "open :") {
				t.Errorf("a file without a name is told:\n%v", r.err)
			}
			for _, secret := range []string{"not a key", "short\n"} {
				if strings.Contains(r.err.Error(), secret) {
					t.Errorf("a secret is told:\n%v", r.err)
				}
			}
		})
	}
}

// TestCheckConfigFilesThatAreNone: a pipe in the place of any file is told at once; opening it must not wait for anybody.
func TestCheckConfigFilesThatAreNone(t *testing.T) {
	for name := range goodFiles(t) {
		t.Run(name, func(t *testing.T) {
			all := goodFiles(t)
			delete(all, name)
			dir := writeFiles(t, all)
			path := filepath.Join(dir, name)
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			r := runCommand(t, "", "check-config", "--config", filepath.Join(dir, "postern.yaml"))
			if r.code != exitFailed || !strings.Contains(r.err.Error(), name+" is not a regular file") {
				t.Errorf("exit code %d, error %v", r.code, r.err)
			}
		})
	}
}

// output is a writer that others can wait on.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait returns when text was written n times.
func (o *output) wait(t *testing.T, text string, n int) {
	t.Helper()
	late := time.After(time.Minute)
	for strings.Count(o.String(), text) < n {
		select {
		case <-o.more:
		case <-late:
			t.Fatalf("no %q (%d times) in:\n%s", text, n, o)
		}
	}
}

// background runs the program until its end, which done tells.
type background struct {
	stdout, stderr *output
	done           chan error
}

func startCommand(ctx context.Context, args ...string) *background {
	b := &background{stdout: newOutput(), stderr: newOutput(), done: make(chan error, 1)}
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(b.stdout)
	root.SetErr(b.stderr)
	go func() { b.done <- root.ExecuteContext(ctx) }()
	return b
}

// end waits for the program's end and returns its exit code.
func (b *background) end(t *testing.T) int {
	t.Helper()
	select {
	case err := <-b.done:
		if err != nil {
			t.Logf("ended with: %v", err)
		}
		return exitCode(err)
	case <-time.After(time.Minute):
		t.Fatalf("did not end; log:\n%s", b.stderr)
		return 0
	}
}
