// Putting in force what was read: tenant by tenant, as a difference, the good ones.

package postgres

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/postern/postern/tenants"
)

// batch puts rows in force as they come. Those that cannot be, because another tenant has their machine still, wait for the
// end.
type batch struct {
	store *Store
	later map[string]pending
}

type pending struct {
	tenant *tenants.Tenant
	mark   int64
}

func (s *Store) newBatch() *batch { return &batch{s, make(map[string]pending)} }

// take puts a row in force. A row that is bad is no error of the reading.
func (b *batch) take(r row) error {
	s := b.store
	delete(b.later, r.ID)
	if r.Document == nil {
		b.remove(r.ID)
		return nil
	}
	t, err := rowTenant(&s.rows, r, s.opts.Keys)
	if err != nil {
		s.refuse(r.ID, err)
		return nil
	}
	if problems := s.opts.Judge.judge(t); len(problems) > 0 {
		s.refuse(r.ID, problems)
		return nil
	}
	if err := s.opts.Directory.Put(t); err != nil {
		b.later[r.ID] = pending{t, r.Mark}
		return nil
	}
	s.accept(r.ID, r.Mark)
	return nil
}

func (b *batch) remove(id string) {
	b.store.opts.Directory.Remove(id)
	b.store.mirror.lacks(id)
	delete(b.store.bad, id)
}

func (s *Store) accept(id string, mark int64) {
	s.mirror.has(id, mark)
	delete(s.bad, id)
}

// refuse keeps what there was in force. The mark is not kept, so that the next comparison tries again.
func (s *Store) refuse(id string, err error) {
	if _, ok := s.mirror.marks[id]; ok {
		s.mirror.has(id, unread)
	}
	var taken *tenants.ConflictError
	now := refused{err.Error(), errors.As(err, &taken)}
	if s.bad[id] != now {
		s.bad[id] = now
		s.opts.Log.Error("a tenant of the store cannot be put in force, what was in force stays", "tenant", id, "error", err)
	}
}

// refused is why a tenant is not in force as the store has it.
type refused struct {
	why     string
	blocked bool // by another tenant, which may go
}

// unread is the mark of a tenant of which an older form is in force than the store has.
const unread = -1

// finish puts in force what had to wait.
func (b *batch) finish() {
	s := b.store
	for progress := true; progress && len(b.later) > 0; {
		progress = false
		for id, p := range b.later {
			if s.opts.Directory.Put(p.tenant) == nil {
				s.accept(id, p.mark)
				delete(b.later, id)
				progress = true
			}
		}
	}
	if len(b.later) == 0 {
		return
	}
	// Machines that go round in a circle: all at once, which looks at every tenant.
	merged := make(map[string]*tenants.Tenant)
	for _, t := range s.opts.Directory.All() {
		merged[t.ID] = t
	}
	for id, p := range b.later {
		merged[id] = p.tenant
	}
	err := s.opts.Directory.Replace(slices.SortedFunc(maps.Values(merged), byID))
	for id, p := range b.later {
		if err != nil {
			s.refuse(id, fmt.Errorf("its machine: %w", err))
		} else {
			s.accept(id, p.mark)
		}
	}
	clear(b.later)
}

// fromCache puts in force what the cache file has of tenants that are not known yet.
func (s *Store) fromCache() error {
	if s.opts.CacheFile == "" {
		return errors.New("there is no tenants.postgres.cache_file to start from")
	}
	b := s.newBatch()
	end, err := s.cache.read(func(r row) error {
		if _, known := s.mirror.marks[r.ID]; known {
			return nil
		}
		return b.take(r)
	})
	if err != nil {
		return fmt.Errorf("cache file: %w", err)
	}
	b.finish()
	s.mirror.reached(head{end.Epoch, end.Seen})
	s.mu.Lock()
	s.stats.LoadedAt = end.At
	s.mu.Unlock()
	s.opts.Log.Info("tenants loaded", "tenants", s.opts.Directory.Len(), "from", "cache file")
	return nil
}

// snapshot is what the cache file should have.
func (s *Store) snapshot() contents {
	return contents{all: s.opts.Directory.All(), marks: maps.Clone(s.mirror.marks),
		end: ending{Epoch: s.mirror.epoch, Seen: s.mirror.seen, At: s.Stats().LoadedAt}}
}
