// The key file: followed while the process runs, and edited when the key of the store changes.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/postern/postern/files"
)

// watchKeys has the key file read again when it changes.
func (s *Store) watchKeys(ctx context.Context) {
	if s.opts.KeyFile == "" {
		return
	}
	files.Watch{What: "key file", Paths: func() []string { return []string{s.opts.KeyFile} }, Log: s.opts.Log, Changed: s.reloadKeys}.Run(ctx)
}

// reloadKeys takes over the key file. One that cannot be used changes nothing.
func (s *Store) reloadKeys() error {
	if s.opts.KeyFile == "" {
		return nil
	}
	changed, err := s.opts.Keys.Reread(s.opts.KeyFile)
	if err != nil {
		s.opts.Log.Error("the key file of the store is not taken over: the keys of before stay", "error", err)
		return err
	}
	if changed {
		s.opts.Log.Info("the key file of the store was read again", "keys", s.opts.Keys.IDs())
		_ = s.ask() // for rows that another key opens
	}
	return nil
}

// addKey writes a new key into a key file, behind the first one: it opens, and does not seal yet.
func addKey(path, id string) error {
	return editKeyFile(path, func(lines []string) []string {
		return slices.Insert(lines, firstKeyLine(lines)+1, newKeyLine(id))
	})
}

// putKeyFirst has a key of the file seal from now on.
func putKeyFirst(path, id string) error {
	return editKeyFile(path, func(lines []string) []string {
		at := slices.IndexFunc(lines, func(line string) bool { return keyOfLine(line) == id })
		line := lines[at]
		lines = slices.Delete(lines, at, at+1)
		return slices.Insert(lines, firstKeyLine(lines), line)
	})
}

// keyOfLine is the id of the key that stands there; "": none does.
func keyOfLine(line string) string {
	if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
		return fields[0]
	}
	return ""
}

func firstKeyLine(lines []string) int {
	return slices.IndexFunc(lines, func(line string) bool { return keyOfLine(line) != "" })
}

// editKeyFile replaces a key file in one step by one that belongs to the same account and is as private.
func editKeyFile(path string, edit func(lines []string) []string) (err error) {
	text, err := files.Read(path, maxKeyFile)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	out := strings.Join(edit(strings.Split(strings.TrimRight(string(text), "\n"), "\n")), "\n") + "\n"
	if _, err := parseKeys([]byte(out)); err != nil {
		return fmt.Errorf("BUG: the key file would be bad: %w", err)
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("key file: %w", err)
		}
	}()
	if is, ok := info.Sys().(*syscall.Stat_t); ok && int(is.Uid) != os.Geteuid() {
		if err := f.Chown(int(is.Uid), int(is.Gid)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	_, err = f.WriteString(out)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
