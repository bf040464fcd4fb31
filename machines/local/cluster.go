// Making a cluster: its directory, initdb, its configuration.

package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/postern/postern/files"
)

// Limits of what is read, in bytes.
const (
	maxPassword = 4 << 10
	maxPIDFile  = 4 << 10
	maxPEM      = 4 << 20
	maxApplied  = 64 << 20
)

// Names inside a cluster's directory.
const (
	dataName     = "data"
	logName      = "postgres.log"
	passwordName = "superuser.password"
	settingsName = "postern.conf" // inside data
)

// A Cluster is one PostgreSQL cluster and its process. Its methods may be called from any goroutine.
type Cluster struct {
	opts     Options  // immutable
	as       *account // immutable
	password string   // of the superuser; immutable

	turn sync.Mutex // held through Start, Stop, Freeze and Thaw: one at a time

	mu     sync.Mutex // guards what follows; never held while waiting
	port   int        // of the last start; 0 before
	proc   *process   // nil before the first start
	frozen []member   // what Freeze has stopped and nobody has thawed
}

// Create returns the cluster in o.Dir, stopped. It runs initdb, or copies o.Template, when there is none yet, and writes the
// configuration from o in any case. The superuser gets a random password, kept in the directory for its owner alone.
func Create(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.fill(); err != nil {
		return nil, fmt.Errorf("local cluster: %w", err)
	}
	c := &Cluster{opts: o}
	if err := c.create(ctx); err != nil {
		return nil, fmt.Errorf("local cluster in %s: %w", o.Dir, err)
	}
	return c, nil
}

func (c *Cluster) create(ctx context.Context) error {
	var err error
	if c.as, err = findAccount(c.opts.User); err != nil {
		return err
	}
	// Folders above, if they are missing, are for others as well: the account must be able to pass through.
	if err := os.MkdirAll(filepath.Dir(c.opts.Dir), 0o711); err != nil {
		return err
	}
	if err := os.MkdirAll(c.opts.Dir, 0o700); err != nil {
		return err
	}
	if err := c.as.canReach(c.opts.Dir); err != nil {
		return err
	}
	if err := c.as.own(c.opts.Dir); err != nil {
		return err
	}
	_, err = os.Stat(c.path(dataName, "PG_VERSION"))
	switch {
	case err == nil:
		err = c.readPassword()
	case errors.Is(err, fs.ErrNotExist) && c.opts.Template != nil:
		err = c.copyTemplate(ctx)
	case errors.Is(err, fs.ErrNotExist):
		err = c.initdb(ctx)
	}
	if err != nil {
		return err
	}
	return c.configure()
}

func (c *Cluster) path(names ...string) string {
	return filepath.Join(append([]string{c.opts.Dir}, names...)...)
}

func (c *Cluster) readPassword() error {
	b, err := files.Read(c.path(passwordName), maxPassword)
	if err != nil {
		return fmt.Errorf("a cluster that was not made here: %w", err)
	}
	c.password = strings.TrimSpace(string(b))
	return nil
}

// initdb makes the data directory in a neighbour and renames it, so that one that was interrupted is not taken for a whole one.
func (c *Cluster) initdb(ctx context.Context) error {
	c.password = rand.Text()
	pwfile := c.path(passwordName)
	if err := os.WriteFile(pwfile, []byte(c.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := c.as.own(pwfile); err != nil { // initdb reads it
		return err
	}
	unfinished := c.path(dataName + ".new")
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	args := []string{"-D", unfinished, "-U", c.opts.Superuser, "--pwfile=" + pwfile, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"}
	if c.opts.Disposable {
		args = append(args, "--no-sync")
	}
	if err := c.tool(ctx, "initdb", args...); err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(unfinished, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "\ninclude '%s'\n", settingsName)
	if err := errors.Join(err, conf.Close()); err != nil {
		return err
	}
	return os.Rename(unfinished, c.path(dataName))
}

// copyTemplate copies with cp, which keeps owners and modes and is faster than a walk of ours.
func (c *Cluster) copyTemplate(ctx context.Context) error {
	t := c.opts.Template
	if t.Running() {
		return fmt.Errorf("the template is running")
	}
	if t.opts.Superuser != c.opts.Superuser {
		return fmt.Errorf("the template's superuser is another one")
	}
	c.password = t.password
	if err := os.WriteFile(c.path(passwordName), []byte(c.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := c.as.own(c.path(passwordName)); err != nil {
		return err
	}
	unfinished := c.path(dataName + ".new")
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "cp", "-Rp", t.path(dataName), unfinished).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copying the template: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(unfinished, c.path(dataName))
}

// tool runs one of PostgreSQL's programs to its end.
func (c *Cluster) tool(ctx context.Context, name string, args ...string) error {
	cmd := c.command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := runLocked(ctx, cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// command prepares one of PostgreSQL's programs in a bare environment: PGDATA and the like of ours are not meant for it.
func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.opts.BinDir, name), args...)
	cmd.Dir = c.opts.Dir
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=" + c.opts.BinDir + ":/usr/bin:/bin"}
	if c.opts.Library != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+c.opts.Library)
	}
	cmd.SysProcAttr = c.as.attributes()
	return cmd
}

// configure writes what Options say into the data directory.
func (c *Cluster) configure() error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"password_encryption":     "scram-sha-256",
		"log_line_prefix":         "%m [%p] %u@%d ",
	}
	if c.opts.Disposable {
		maps.Copy(settings, map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
	}
	if c.opts.CertFile != "" {
		for name, from := range map[string]string{"server.crt": c.opts.CertFile, "server.key": c.opts.KeyFile} {
			content, err := files.Read(from, maxPEM)
			if err != nil {
				return err
			}
			if err := c.write(name, string(content)); err != nil {
				return err
			}
		}
		maps.Copy(settings, map[string]string{"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"})
	}
	maps.Copy(settings, c.opts.Settings)
	var conf strings.Builder
	conf.WriteString("# Written by Postern at every start.\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(settings[name]))
	}
	if err := c.write(settingsName, conf.String()); err != nil {
		return err
	}
	// First of all the superuser, or a rule that denies everyone would lock us out.
	hba := fmt.Sprintf("host all \"%s\" 127.0.0.1/32 scram-sha-256\n%s\n", c.opts.Superuser, strings.Join(c.opts.HBA, "\n"))
	return c.write("pg_hba.conf", hba)
}

// write puts a file into the data directory, readable for the server alone.
func (c *Cluster) write(name, content string) error {
	path := c.path(dataName, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return c.as.own(path)
}

// Dir is the cluster's directory.
func (c *Cluster) Dir() string { return c.opts.Dir }

// LogPath is the file with the server's own log.
func (c *Cluster) LogPath() string { return c.path(logName) }

// String names the cluster by its directory.
func (c *Cluster) String() string { return "PostgreSQL in " + c.opts.Dir }

// Format keeps the password out of every verb.
func (c *Cluster) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue keeps the password out of logs.
func (c *Cluster) LogValue() slog.Value { return slog.StringValue(c.String()) }
