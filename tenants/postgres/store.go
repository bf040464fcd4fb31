// The store as a process has it: opened once, followed until the process ends.

package postgres

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// Options say where a store is and whom it fills.
type Options struct {
	Conn      *pgx.ConnConfig // see [ReadDSN]
	Keys      *Keys
	KeyFile   string // that Keys were read from, and are read from again when it changes; "": they stay
	CacheFile string // keeps what is known over a restart; "": nothing does
	Node      string // the name of this process among those that follow the store
	Boot      string // tells it from others of the name, before and after it; "": one is made up
	Directory *tenants.Directory
	Judge     Judge
	// Settled returns once the changes that the directory has told of are in force: open sessions were judged. nil: they are at once.
	Settled func(context.Context) error
	// Here is what the store is told of this node beside that, again and again; nil: it is none of several.
	Here func() tenants.Here
	// ApplyBan is told of bans that other nodes have written to the store: see [Store.TellBan]. nil: bans are not shared.
	ApplyBan func(netrestrict.Ban)
	Log      *slog.Logger
}

const (
	openTimeout    = 10 * time.Second       // for the store to answer when the process starts
	heartbeat      = time.Second            // see Store.beat
	answerTimeout  = 5 * time.Second        // for that
	readTimeout    = 5 * time.Minute        // for reading all tenants, and for reading what is new
	compareEvery   = 3 * time.Minute        // all versions
	firstPause     = 100 * time.Millisecond // between two connections; doubles
	longestPause   = time.Second            // others take a node for silent that is back and has not said so
	longestOther   = 5 * time.Second        // of who has nothing to say that others wait for
	reloadPatience = 30 * time.Second       // of who asks for a comparison
	cacheEvery     = 30 * time.Second       // at most
)

// Store keeps a directory equal to what the database has. Its methods may be called by any number of goroutines.
type Store struct {
	opts   Options
	mirror *mirror // Watch's, and everything that it calls
	rows   document.Reader
	bad    map[string]refused // rows that are not in force, by id; Watch's
	cache  *cache
	node   *presence
	bans   *bans
	beat   time.Duration // the head is asked for as often, whatever was notified
	ended  chan struct{} // closed when Watch has

	reached atomic.Bool // it was, by this process

	mu    sync.Mutex // guards what follows; held briefly
	stats tenants.Stats
	away  error        // why the store is not followed right now; nil: it is
	asked []chan error // who waits for a comparison
}

// Open finds out whether the store is there. If it is, the directory is filling from now on, and Watch fills it. If it is not,
// what the cache file has is put in force; without one, Open fails.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{opts: o, mirror: newMirror(), beat: heartbeat, bad: make(map[string]refused), cache: newCache(o.CacheFile, o.Keys, o.Log), ended: make(chan struct{})}
	s.node = newPresence(&o, s.cache.needs)
	s.bans = newBans(&o)
	s.stats.LoadedAt = time.Now()
	err := s.probe(ctx)
	if err == nil {
		o.Directory.SetFilling(true)
		return s, nil
	}
	s.away = err
	if cacheErr := s.fromCache(); cacheErr != nil {
		return nil, errors.Join(err, cacheErr)
	}
	o.Log.Warn("the store of tenants is away: what was known last is in force", "error", err, "age", time.Since(s.Stats().LoadedAt).Round(time.Second).String())
	return s, nil
}

func (s *Store) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := connect(ctx, s.opts.Conn)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	s.reached.Store(true)
	if _, err := readHead(ctx, conn); err != nil {
		return err
	}
	tables := nodeTables
	if s.opts.Here != nil {
		tables = slices.Concat(nodeTables, clusterTables)
	}
	if err := checkRights(ctx, conn, tables); err != nil {
		return err
	}
	return checkKeys(ctx, conn, s.opts.Keys)
}

// Stats returns how the store is doing. LoadedAt is when it was last known that what is in force is what it has.
func (s *Store) Stats() tenants.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Degraded says in public words why what is in force may be old; nil: it is not.
func (s *Store) Degraded() error {
	if s.absent() {
		return errors.New("the store of tenants is away: what is known goes on")
	}
	return nil
}

// Ready says in public words why new clients go better to another node, or nil. Reading all tenants takes seconds, and many clients would
// be told to try again; an absence may last, and then what was read is better than nothing.
func (s *Store) Ready() error {
	if s.opts.Directory.Filling() && !s.absent() {
		return errors.New("not all tenants are read yet")
	}
	return nil
}

func (s *Store) absent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away != nil
}

var (
	errEnded  = errors.New("the store is not followed any more")
	errSilent = errors.New("the store of tenants does not answer")
)

// Announce has the store told soon how this node is: Options.Here says something new.
func (s *Store) Announce() { s.node.hurry() }

// ask has all versions compared.
func (s *Store) ask() (answer chan error) {
	answer = make(chan error, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, answer)
	return answer
}

// Reload has the key file read again and all versions compared, and says how that went.
func (s *Store) Reload() error {
	if err := s.reloadKeys(); err != nil {
		return err
	}
	answer := s.ask()
	timer := time.NewTimer(reloadPatience)
	defer timer.Stop()
	select {
	case err := <-answer:
		return err
	case <-s.ended:
		return errEnded
	case <-timer.C:
		return errSilent
	}
}

// questions takes who waits for a comparison.
func (s *Store) questions() []chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func answer(asked []chan error, err error) {
	for _, a := range asked {
		a <- err
	}
}

// compared counts a comparison, and is to be called when it is in force.
func (s *Store) compared(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats.LastOK = err == nil; err == nil {
		s.stats.OK++
	} else {
		s.stats.Failed++
	}
}

// confirmed says that what is in force is what the store has now; an error, why nobody knows.
func (s *Store) confirmed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away = err; err == nil {
		s.stats.LoadedAt, s.stats.Refused = time.Now(), len(s.bad)
	} else {
		s.stats.LastOK = false
	}
}
