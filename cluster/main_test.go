package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/postern/postern/tenants"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// patience is for what others do; the machine may be busy.
const patience = time.Minute

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}

// store is the rows of a store in memory.
type store struct {
	mu   sync.Mutex
	away bool
	rows map[string]tenants.Node
}

func newStore() *store { return &store{rows: make(map[string]tenants.Node)} }

func (s *store) put(n tenants.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[n.Name] = n
}

func (s *store) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, name)
}

func (s *store) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func (s *store) nodes(context.Context) ([]tenants.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, tenants.ErrAway
	}
	var all []tenants.Node
	for _, n := range s.rows {
		all = append(all, n)
	}
	return all, nil
}

// logged is a log to look into.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// taken is what was written since the last time.
func (l *logged) taken() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

func (l *logged) has(parts ...string) bool {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

func newKey() string {
	b := make([]byte, keyBytes)
	_, _ = rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// writeKeys replaces a key file in one step.
func writeKeys(t *testing.T, path string, keys ...string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(strings.Join(keys, "\n")+"\n"), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func keyFile(t *testing.T, keys ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cluster.key")
	writeKeys(t, path, keys...)
	return path
}

// node is a cluster that runs.
type node struct {
	*Cluster
	log   *logged
	store *store
	end   context.CancelCauseFunc
	ended chan struct{}
}

// quick makes gossip fast enough for tests.
func quick(c *memberlist.Config) {
	c.ProbeInterval, c.ProbeTimeout, c.GossipInterval = 100*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond
}

// open opens a cluster of one name on any ports.
func open(t *testing.T, name string, s *store, keys string, change ...func(*Options)) *node {
	t.Helper()
	n := &node{log: new(logged), store: s, ended: make(chan struct{})}
	o := Options{Name: name, Boot: rand.Text(), Region: "ams", Bind: "127.0.0.1:0", KeyFile: keys, MaxNodes: 8, Nodes: s.nodes,
		Log: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})), tune: quick}
	for _, c := range change {
		c(&o)
	}
	var err error
	if n.Cluster, err = Open(o); err != nil {
		t.Fatal(err)
	}
	return n
}

// announce writes the node's row.
func (n *node) announce() {
	n.store.put(tenants.Node{Name: n.opts.Name, Boot: n.opts.Boot, Seen: time.Now(), Here: n.Here()})
}

// run has it take part, with a row in the store.
func (n *node) run(t *testing.T) *node {
	t.Helper()
	ctx, end := context.WithCancelCause(context.Background())
	n.end = end
	n.announce()
	go func() {
		defer close(n.ended)
		n.Run(ctx)
	}()
	t.Cleanup(func() { n.stop(nil) })
	return n
}

func (n *node) stop(cause error) {
	n.end(cause)
	<-n.ended
}

// start opens and runs.
func start(t *testing.T, name string, s *store, keys string, change ...func(*Options)) *node {
	t.Helper()
	return open(t, name, s, keys, change...).run(t)
}

// sees reports whether a node sees another process in a state.
func (n *node) sees(other *node, want State) bool {
	for _, m := range n.Members() {
		if m.Boot == other.opts.Boot {
			return m.State == want
		}
	}
	return false
}

// together waits until all see each other.
func together(t *testing.T, all ...*node) {
	t.Helper()
	eventually(t, "all nodes see each other", func() bool {
		for _, a := range all {
			for _, b := range all {
				if !a.sees(b, Alive) {
					return false
				}
			}
		}
		return true
	})
}

// echo answers with who asked and what.
func echo(o *node) *node {
	o.Handle("echo", 1000, func(_ context.Context, from string, body []byte) ([]byte, error) {
		return []byte(from + ": " + string(body)), nil
	})
	return o
}

func (n *node) echoes(t *testing.T, other, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if got, err := n.Call(ctx, other, "echo", []byte("hi")); err != nil || string(got) != want {
		t.Errorf("%s asks %s: %q, %v", n.opts.Name, other, got, err)
	}
}
