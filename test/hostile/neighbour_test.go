// Rule R2: what somebody else notices, by comparison with a session that does not go through the gate.

package hostile

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// rhythm is how often the neighbour asks.
const rhythm = 20 * time.Millisecond

// slower is how much later than Postgres itself the gate may answer. The catalogue's rule is 50 ms for all but the slowest
// hundredth. The machines that run tests are busy with other things: there, two sessions that nobody disturbs differ by
// more than that in the slowest hundredth of a hundred answers, which is one answer, and not in that of a thousand. So a
// group is judged by what it has enough of: its median, its slowest tenth, and whether an answer did not come at all, as
// when a loop is blocked or a lock is held. The slowest hundredth is that of groups which last long, and of all together.
// On a busy computer each of the gate's few steps has to wait as Postgres's own do, and every answer takes a multiple of
// what it takes past the gate; on a quiet one that multiple is nothing beside the limit.
var slower = []struct {
	what  string
	rank  func(sorted []time.Duration) time.Duration
	least int // answers to go by
	times int // what Postgres takes, and
	limit time.Duration
}{
	{"median", percentile(50), 50, 5, 10 * time.Millisecond},
	{"90th percentile", percentile(90), 100, 3, 50 * time.Millisecond},
	{"99th percentile", percentile(99), 400, 3, 50 * time.Millisecond},
	{"slowest", percentile(100), 1, 3, time.Second},
}

// percentile picks the time within which so many of a hundred answers came.
func percentile(n int) func(sorted []time.Duration) time.Duration {
	return func(sorted []time.Duration) time.Duration { return sorted[(len(sorted)*n+99)/100-1] }
}

// answers are how long answers took, through the gate and past it.
type answers struct{ gated, control []time.Duration }

// judge names the first rule that the gate broke, or nothing.
func (a answers) judge() string {
	slices.Sort(a.gated)
	slices.Sort(a.control)
	for _, rule := range slower {
		if n := min(len(a.gated), len(a.control)); n < rule.least {
			continue
		}
		if through, past := rule.rank(a.gated), rule.rank(a.control); through > past*time.Duration(rule.times)+rule.limit {
			return fmt.Sprintf("R2: %s answer to the neighbour after %v, past the gate after %v (%d answers)", rule.what, through, past, len(a.gated))
		}
	}
	return ""
}

// together collects the answers of all groups of a run.
type together struct {
	mu  sync.Mutex
	all answers
}

func (s *together) add(a answers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.gated = append(s.all.gated, a.gated...)
	s.all.control = append(s.all.control, a.control...)
}

// everybody is filled by the groups, in whatever order they end, and judged by TestMain when there are no more.
var everybody together

// neighbour is the session of a second tenant that asks all the while, and its control: a session with the same server,
// without the gate, that asks the same at the same time. The gate answers for no more than the difference.
type neighbour struct{ gated, control *asker }

func (g *gate) neighbour(t *testing.T) *neighbour {
	t.Helper()
	control := dialTo(t, harness.Postgres(t).Addr())
	control.send(startup(v30, "user", harness.App, "database", "postgres"))
	control.prove(&scramClient{password: canaryRight})
	control.until('Z')
	gated := g.login(t, "globex", g.freshClient())
	gated.selectOne() // its server connection is there now
	return &neighbour{ask(gated), ask(control)}
}

// judge ends both sessions and compares them.
func (n *neighbour) judge(t *testing.T) {
	t.Helper()
	gated, err := n.gated.end()
	if err != nil {
		t.Errorf("R2: the neighbour: %v", err)
	}
	control, err := n.control.end()
	if err != nil {
		t.Errorf("R2: the neighbour's control: %v", err)
	}
	both := answers{gated, control}
	everybody.add(both)
	if why := both.judge(); why != "" {
		t.Error(why)
	}
}

// asker is a session that asks, and how long each answer took.
type asker struct {
	p    *peer
	stop chan struct{}
	done chan error
	took []time.Duration // the goroutine's until done
}

func ask(p *peer) *asker {
	a := &asker{p: p, stop: make(chan struct{}), done: make(chan error, 1)}
	go func() { a.done <- a.run() }()
	return a
}

func (a *asker) end() ([]time.Duration, error) {
	close(a.stop)
	err := <-a.done
	a.p.Close()
	if len(a.took) == 0 {
		return []time.Duration{0}, errors.Join(err, errors.New("never got an answer"))
	}
	return a.took, err
}

func (a *asker) run() error {
	tick := time.NewTicker(rhythm)
	defer tick.Stop()
	for {
		began := time.Now()
		a.p.send(query("select 1"))
		for _, want := range []byte("TDCZ") {
			kind, body, err := a.p.message()
			if err != nil || kind != want {
				return fmt.Errorf("question %d: message %q %q, %v; want %q", len(a.took), kind, body, err, want)
			}
		}
		a.took = append(a.took, time.Since(began))
		select {
		case <-a.stop:
			return nil
		case <-tick.C:
		}
	}
}
