// Following the key file: a new key is taken over while the process runs.

package postgres

import (
	"context"

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
