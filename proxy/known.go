// What servers have reported about themselves, kept so that clients of a sleeping machine can be greeted, also by the next process.

package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/postern/postern/files"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
)

const (
	// maxKnown bounds the entries of the file; the rest is learned again.
	maxKnown = 20_000
	// maxKnownSets bounds those of one pool: sets of parameters that its clients start with.
	maxKnownSets = 16
	// maxKnownSet bounds one set, in bytes: a tenant's server may report anything.
	maxKnownSet = 8 << 10
	// maxKnownFile bounds what is read, in bytes.
	maxKnownFile = 256 << 20
	// knownPause is between two writes of the file.
	knownPause = time.Second
)

// Known remembers the ParameterStatus messages of servers on machines, by
// tenant, login and the parameters that a client starts with. There is nothing
// secret in it. Safe for concurrent use.
type Known struct {
	path string
	log  *slog.Logger
	lane *files.Lane

	mu    sync.Mutex
	all   map[knownPool][]knownSet
	count int
	dirty bool
}

type knownPool struct{ tenant, machine, user, database string }

type knownSet struct {
	Params []pgwire.Param `json:"params,omitempty"` // what the client asked for, without its own name and address
	Status []pgwire.Param `json:"status"`           // what the server reported then
}

// knownEntry is one line of the file.
type knownEntry struct {
	Tenant   string `json:"tenant"`
	Machine  string `json:"machine"`
	User     string `json:"user"`
	Database string `json:"database"`
	knownSet
}

// OpenKnown reads the file, if there is one; with no path what is known lives
// as long as the process. What cannot be read is learned
// again: a broken file is an error for the log, not for the process.
func OpenKnown(path string, log *slog.Logger) *Known {
	k := &Known{path: path, log: log, lane: files.NewLane(), all: make(map[knownPool][]knownSet)}
	if path == "" {
		return k
	}
	if err := k.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("what was known of sleeping machines is lost, and is learned again", "file", path, "error", err)
	}
	return k
}

func (k *Known) read() error {
	data, err := k.lane.Read(k.path, maxKnownFile)
	if err != nil {
		return err
	}
	var entries []knownEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		return err
	}
	for _, e := range entries {
		k.put(knownPool{e.Tenant, e.Machine, e.User, e.Database}, e.knownSet)
	}
	k.dirty = false
	return nil
}

// sets returns what is known of a pool.
func (k *Known) sets(p knownPool) []knownSet {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]knownSet(nil), k.all[p]...)
}

func sameParams(a, b []pgwire.Param) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// size is how much the set takes, about.
func (s *knownSet) size() (n int) {
	for _, list := range [...][]pgwire.Param{s.Params, s.Status} {
		for _, p := range list {
			n += len(p.Name) + len(p.Value)
		}
	}
	return n
}

// put remembers a set, in the place of an equal one, unless it is too large.
func (k *Known) put(p knownPool, s knownSet) {
	if s.size() > maxKnownSet {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, have := range k.all[p] {
		if sameParams(have.Params, s.Params) {
			if !sameParams(have.Status, s.Status) {
				k.all[p][i], k.dirty = s, true
			}
			return
		}
	}
	if k.count >= maxKnown || len(k.all[p]) >= maxKnownSets {
		return
	}
	k.all[p] = append(k.all[p], s)
	k.count++
	k.dirty = true
}

// forget drops what is known of a pool.
func (k *Known) forget(p knownPool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if sets, ok := k.all[p]; ok {
		k.count -= len(sets)
		delete(k.all, p)
		k.dirty = true
	}
}

// run writes the file, some time after something was learned, until ctx ends.
func (k *Known) run(ctx context.Context) {
	tick := time.NewTicker(knownPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.save()
			return
		case <-tick.C:
			k.save()
		}
	}
}

// save writes the file beside the old one and renames it.
func (k *Known) save() {
	k.mu.Lock()
	if !k.dirty || k.path == "" {
		k.mu.Unlock()
		return
	}
	k.dirty = false
	entries := make([]knownEntry, 0, k.count)
	for p, sets := range k.all {
		for _, s := range sets {
			entries = append(entries, knownEntry{p.tenant, p.machine, p.user, p.database, s})
		}
	}
	k.mu.Unlock()
	_, err := files.Do(k.lane, "writing "+k.path, func() (struct{}, error) { return struct{}{}, k.write(entries) })
	if err != nil {
		k.log.Warn("what is known of sleeping machines was not written", "file", k.path, "error", err)
	}
}

func (k *Known) write(entries []knownEntry) error {
	data, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(k.path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(k.path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(k.path+".new", k.path)
}

// known is the pool's name among what is known; false: nothing is kept for it,
// because its server does not sleep.
func (p *serverPool) known() (knownPool, bool) {
	t := p.tenant
	if t.gate.opts.Known == nil || t.conf == nil || t.conf.Machine == nil {
		return knownPool{}, false
	}
	return knownPool{t.id, t.conf.Machine.Key(), p.key.user, p.key.database}, true
}

// recall takes over what an earlier login has shown.
func (p *serverPool) recall() {
	name, ok := p.known()
	if !ok {
		return
	}
	for _, s := range p.tenant.gate.opts.Known.sets(name) {
		p.sets.Learn(p.sets.Intern(s.Params), p.reports.Intern(s.Status))
	}
}

// learn notes what a server shows to a client with a set of parameters. If it
// was something else before, all that is known is learned again.
func (p *serverPool) learn(set *params.Set, shown *params.Reports) {
	if p.sets.Learn(set, shown) {
		p.forgetKnown()
	}
	p.remember(set.Base())
}

// remember keeps what a base set is told for the time when the server sleeps.
func (p *serverPool) remember(set *params.Set) {
	if name, ok := p.known(); ok {
		p.tenant.gate.opts.Known.put(name, knownSet{Params: set.List(), Status: set.Told().List()})
	}
}

// forget drops what is known of the pool.
func (p *serverPool) forget() {
	p.sets.Forget()
	p.forgetKnown()
}

// forgetKnown drops what is kept of it for the time when the server sleeps.
func (p *serverPool) forgetKnown() {
	if name, ok := p.known(); ok {
		p.tenant.gate.opts.Known.forget(name)
	}
}
