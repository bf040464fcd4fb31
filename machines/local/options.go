// What a cluster is made of, and where its programs and its account come from.

package local

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Options say how a cluster is made and run. Dir alone is required.
type Options struct {
	Dir       string            // holds all that belongs to the cluster; made if absent
	Port      int               // TCP port on 127.0.0.1; 0: a free one, which may change from start to start
	BinDir    string            // with initdb and postgres; "": the newest of /usr/lib/postgresql/*/bin, then PATH
	Library   string            // LD_LIBRARY_PATH for the programs; "": none
	User      string            // OS account to run as when this process is root; "": postgres, else nobody
	Superuser string            // role that owns the cluster; "": postgres
	Settings  map[string]string // for postgresql.conf, over the defaults of this package
	HBA       []string          // lines of pg_hba.conf after the superuser's own; nil: SCRAM for everyone
	CertFile  string            // PEM certificate for TLS, copied; "": no TLS
	KeyFile   string            // PEM key of CertFile, copied

	// Disposable gives up durability for speed (no fsync): for data that dies with the test.
	Disposable bool
	// Template is a stopped cluster of the same version and superuser to copy instead of running initdb.
	Template *Cluster
	// Log gets one line per start and stop; nil: none. The server's own log is the file at Cluster.LogPath.
	Log *slog.Logger
}

// fill replaces what was left out by its default.
func (o *Options) fill() error {
	if o.Dir == "" {
		return errNoDir
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	o.Superuser = o.superuser()
	if o.HBA == nil {
		o.HBA = []string{"local all all scram-sha-256", "host all all all scram-sha-256"}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return fmt.Errorf("a certificate and its key come together")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.BinDir == "" {
		o.BinDir, err = findPrograms()
		return err
	}
	if _, err := os.Stat(filepath.Join(o.BinDir, "postgres")); err != nil {
		return fmt.Errorf("%w: %w", errNoPrograms, err)
	}
	return nil
}

func (o *Options) superuser() string {
	if o.Superuser == "" {
		return "postgres"
	}
	return o.Superuser
}

var errNoDir = errors.New("a cluster needs a directory")

// What no try again mends, but only somebody at this computer.
var (
	errNoPrograms = errors.New("no PostgreSQL server programs")
	errNoAccount  = errors.New("PostgreSQL does not run as root")
	errNoWay      = errors.New("the account that runs PostgreSQL may not pass")
)

// findPrograms returns the directory of the newest PostgreSQL server programs: where Debian and Ubuntu put them, which is
// not in PATH, then PATH.
func findPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	best, dir := -1, ""
	for _, initdb := range found {
		bin := filepath.Dir(initdb)
		major, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		if err == nil && major > best { // not as text: "9" is older than "15"
			best, dir = major, bin
		}
	}
	if dir != "" {
		return dir, nil
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("%w: neither /usr/lib/postgresql/*/bin/initdb nor initdb in PATH", errNoPrograms)
	}
	return filepath.Dir(initdb), nil
}

// An account is who runs the programs of a cluster: nil means the account of this process.
type account struct{ uid, gid int }

// findAccount picks the account. Whoever is not root can only be himself, and whoever is must be somebody else.
func findAccount(name string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	names := []string{name}
	if name == "" {
		names = []string{"postgres", "nobody"}
	}
	for _, n := range names {
		u, err := user.Lookup(n)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", n, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", n, err)
		}
		if uid == 0 {
			return nil, fmt.Errorf("%w, which %s is", errNoAccount, n)
		}
		return &account{uid, gid}, nil
	}
	return nil, fmt.Errorf("%w, and there is no account %s", errNoAccount, strings.Join(names, " or "))
}

// own gives paths to the account.
func (a *account) own(paths ...string) error {
	if a == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Lchown(path, a.uid, a.gid); err != nil {
			return err
		}
	}
	return nil
}

// canReach tells whether the account may pass through every directory above path: without it postgres fails with a bare
// "Permission denied" that names something else.
func (a *account) canReach(path string) error {
	if a == nil {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no owner known", dir)
		}
		pass := info.Mode().Perm()&0o001 != 0
		switch {
		case int(st.Uid) == a.uid:
			pass = info.Mode().Perm()&0o100 != 0
		case int(st.Gid) == a.gid:
			pass = info.Mode().Perm()&0o010 != 0
		}
		if !pass {
			return fmt.Errorf("%w: uid %d cannot enter %s: use another directory, or chmod o+x it", errNoWay, a.uid, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// attributes are how a child process is started: as the account, in a process group of its own so that a Ctrl-C at the
// terminal reaches this process alone, which then stops the server in order.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	dieWithParent(attr)
	return attr
}
