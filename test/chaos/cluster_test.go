// Nodes of a cluster are killed, frozen and cut off under clients who keep books: whoever is not at the node that it happens to notices nothing.

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

const (
	staying  = 4 // clients of each node that stay
	churning = 3 // clients that connect anew for each transaction, to any node

	minutes    = 150 * time.Second // after which portions of a node that is not heard of are handed on, and some
	mayNotDial = 20 * time.Second  // who finds that it has lost portions opens nothing for 15 s
)

// trouble is what happens to a node.
type trouble struct {
	name string
	// clients says which errors its own clients, and who is at any node, may see of it.
	clients []string
	lasts   time.Duration
	taken   bool          // others get what it had
	floor   int           // but for that
	after   time.Duration // for so long its clients may be refused when it is over
	// begin begins it, and returns what ends it.
	begin func(f *fleet, node int) (end func())
}

// troubles are what can happen where the nodes stand.
func (f *fleet) troubles() (every []trouble) {
	killed := trouble{name: "killed", clients: []string{"network", "57P01", "57P03"}, lasts: 2 * time.Second, begin: kill}
	cuts, lost := f.place.cuts()
	cutOff := func(c cut) trouble {
		return trouble{name: c.name, lasts: 4 * time.Second, begin: func(f *fleet, node int) func() { return c.cut(f.t, node) }}
	}
	for _, c := range cuts {
		every = append(every, cutOff(c))
	}
	if !harness.Long() {
		return []trouble{cutOff(lost), killed}
	}
	every = append(every, killed,
		// Who comes to it alone finds that the balancer has no node for him.
		trouble{name: "frozen", clients: []string{"network"}, lasts: 3 * time.Second, begin: freeze},
		trouble{name: "frozen until it is silent", clients: []string{"network"}, lasts: 8 * time.Second, begin: freeze})
	// What a killed node had is nobody's for two minutes: of many in a row the others would have nothing left. So there are minutes between two.
	r := rand.New(rand.NewPCG(1, 1))
	shuffled := func() []trouble {
		r.Shuffle(len(every), func(i, j int) { every[i], every[j] = every[j], every[i] })
		return slices.Clone(every)
	}
	list := append(shuffled(),
		// Its clients give up, or have waited longer than query_wait when it thaws.
		trouble{name: "frozen for minutes", clients: []string{"network", "57P01", "57P03", "53300"}, lasts: minutes, after: mayNotDial, begin: freeze},
		trouble{name: "gone for minutes", clients: killed.clients, lasts: minutes, taken: true, begin: kill})
	if !lost.all { // else nobody can say how many servers a node has that does not answer
		// A minute after it is lost, a node has no more than its floor: who waits there, waits for long.
		away := cutOff(lost)
		away.name, away.clients, away.lasts, away.after = away.name+", for minutes", []string{"network", "53300", "57P03"}, minutes, mayNotDial
		away.taken, away.floor = true, 1
		list = append(list, away)
	}
	return append(list, shuffled()...)
}

func kill(f *fleet, node int) func() {
	f.gates[node].Signal(f.t, syscall.SIGKILL)
	f.gates[node].Wait(f.t)
	return func() { f.start(node) }
}

func freeze(f *fleet, node int) func() {
	f.gates[node].Freeze(f.t)
	thaw := sync.OnceFunc(func() { _ = syscall.Kill(f.gates[node].PID(), syscall.SIGCONT) })
	f.t.Cleanup(thaw) // or nothing could end it
	return thaw
}

// storm is the load while there is trouble, and what of it is explained.
type storm struct {
	*fleet
	books *ledger
	turn  int // how often the busiest node was asked for

	mu        sync.Mutex // guards what follows
	node      int        // that there is trouble with
	codes     []string
	cancelled int // queries
}

// nodeOf is the node whose client it is; -1: any.
func nodeOf(tag string) int {
	var n int
	if _, err := fmt.Sscanf(tag, "c%d", &n); err != nil {
		return -1
	}
	return n % nodes
}

func (s *storm) explained(tag, _ string, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := nodeOf(tag)
	return (at < 0 || at == s.node) && oneOf(s.codes...)(err)
}

func (s *storm) explain(node int, codes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.codes = node, codes
}

// newStorm begins the load; the function that is returned ends it, and looks into the books.
func newStorm(f *fleet) (s *storm, end func()) {
	direct := f.direct(f.upstream, f.database)
	s = &storm{fleet: f}
	s.books = newLedger(f.t, direct, func(ctx context.Context, tag string) (*pgx.Conn, error) {
		port := f.front.transaction
		if node := nodeOf(tag); node >= 0 {
			port = f.front.one[node]
		}
		return f.connect(ctx, port, "acme", tag)
	})
	s.books.think, s.books.apart, s.books.expects = 5*time.Millisecond, true, s.explained
	ctx, stop := context.WithCancel(f.t.Context())
	var others sync.WaitGroup
	wait, churned := s.books.work(ctx, staying*nodes), s.books.churn(ctx, churning)
	for i, port := range []int{f.front.transaction, f.front.session} {
		others.Go(func() { s.cancels(ctx, port, rand.New(rand.NewPCG(uint64(i), 12))) })
	}
	for i := range nodes {
		others.Go(func() { s.visit(ctx, i) })
	}
	others.Go(func() { s.portions(ctx) })
	return s, func() {
		stop()
		wait()
		churned()
		others.Wait()
		s.books.check(f.t, direct)
	}
}

// goOn waits until every client of some nodes has got on.
func (s *storm) goOn(what string, which func(node int) bool) {
	s.t.Helper()
	start := time.Now()
	harness.Eventually(s.t, harness.Patience, what, s.books.allSince(start, func(tag string) bool { return which(nodeOf(tag)) }))
}

// suffer has a trouble come and go.
func (s *storm) suffer(x trouble, node int) {
	s.t.Helper()
	s.t.Logf("node %s is %s", nodeName(node), x.name)
	s.explain(node, x.clients)
	end := x.begin(s.fleet, node)
	over := time.Now().Add(x.lasts)
	s.goOn("clients of other nodes get on while one is "+x.name, func(at int) bool { return at >= 0 && at != node })
	if x.taken {
		s.takenFrom(node, x.floor)
	}
	pause(s.t.Context(), time.Until(over))
	end()
	s.agree("after one was " + x.name)
	s.goOn("all get on after one was "+x.name, func(int) bool { return true })
	pause(s.t.Context(), x.after)
	s.explain(-1, nil)
}

// takenFrom waits until a node, and those that had its name before, have no more of the limit than its floor.
func (s *storm) takenFrom(node, floor int) {
	s.t.Helper()
	start := time.Now()
	conn := s.direct(s.store, s.stored)
	harness.Eventually(s.t, 10*harness.Patience, "others have what it had", func() bool {
		return text(s.t, conn, fmt.Sprintf(`select coalesce(sum(servers), 0) <= %d from postern.portions where tenant = 'acme' and scope = ''
			and boot not in (select boot from postern.nodes where name <> '%s')`, floor, nodeName(node))) == "t"
	})
	s.t.Logf("others have what node %s had, but for %d, after %v", nodeName(node), floor, time.Since(start).Round(time.Second))
}

// busiest is the node with the most servers, another one each time if it can be.
func (s *storm) busiest() (node int) {
	most := -1.0
	s.turn++
	for i := range nodes {
		i, g := (i+s.turn)%nodes, s.gates[(i+s.turn)%nodes]
		if n := g.Metric(s.t, "postern_server_portion", map[string]string{"tenant": "acme"}); n > most {
			node, most = i, n
		}
	}
	return node
}

// other takes note of an error of a client without books.
func (s *storm) other(tag, what string, err error) {
	if err != nil && !s.explained(tag, what, err) {
		s.t.Errorf("%s, %s: %v", tag, what, err)
	}
}

// cancels has a client's queries cancelled at odd moments, by way of any node: what is asked after that is never hit.
func (s *storm) cancels(ctx context.Context, port int, r *rand.Rand) {
	patient := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		conn, err := s.fleet.connect(patient, port, "acme", "cancelling")
		if err != nil {
			s.other("cancelling", "connecting", err)
			pause(ctx, 50*time.Millisecond)
			continue
		}
		for range 20 {
			sent := make(chan struct{})
			timer := time.AfterFunc(time.Duration(r.IntN(20))*time.Millisecond, func() { defer close(sent); _ = conn.PgConn().CancelRequest(patient) })
			_, err := conn.PgConn().Exec(patient, "select pg_sleep(0.01)").ReadAll()
			if !timer.Stop() {
				<-sent
			}
			if state(err) == "57014" {
				s.mu.Lock()
				s.cancelled++
				s.mu.Unlock()
			} else {
				s.other("cancelling", "a query that was cancelled", err)
			}
			if conn.IsClosed() {
				break
			}
			_, err = conn.PgConn().Exec(patient, "select pg_sleep(0.005)").ReadAll()
			s.other("cancelling", "the query after it", err)
		}
		goodbye(conn)
	}
}

// visit has a client of a node come to the machine now and then, less often than a machine may be woken. It may be refused if the node has not heard from the store, however short
// that was: who does not use a machine must not begin to without asking.
func (s *storm) visit(ctx context.Context, node int) {
	r := rand.New(rand.NewPCG(uint64(node), 5))
	tag := fmt.Sprintf("c%d-visitor", node)
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			pause(ctx, time.Duration(r.IntN(20000))*time.Millisecond)
		}
		log := s.log(node)
		unasked := func() int { return strings.Count(log.String(), "nobody can be asked about other processes") }
		before := unasked()
		conn, err := s.fleet.connect(context.WithoutCancel(ctx), s.front.one[node], "sleepy", tag)
		if err == nil {
			_, err = tryText(context.WithoutCancel(ctx), conn, "select pg_sleep(0.3)")
			goodbye(conn)
		}
		for until := time.Now().Add(5 * time.Second); state(err) == "57P03" && unasked() == before && time.Now().Before(until); {
			pause(context.WithoutCancel(ctx), 50*time.Millisecond) // a line of the log may be later than what a client is told
		}
		if state(err) != "57P03" || unasked() == before {
			s.other(tag, "at the machine", err)
		}
	}
}

// portions never are more than the limit.
func (s *storm) portions(ctx context.Context) {
	conn, err := s.store.Connect(context.WithoutCancel(ctx), s.stored)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer goodbye(conn)
	for ctx.Err() == nil {
		over, err := tryText(context.WithoutCancel(ctx), conn, fmt.Sprintf(`select string_agg(node || ' ' || servers, ', ') from postern.portions
			where tenant = 'acme' and scope in (select scope from postern.portions where tenant = 'acme' group by scope having sum(servers) > %d)`, limit))
		if err != nil || over != "" {
			s.t.Errorf("portions of more than there is: %s %v", over, err)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// TestNodesInTrouble: nodes are killed, frozen, cut off from each other and from the store, the busiest one each time.
func TestNodesInTrouble(t *testing.T) {
	t.Parallel()
	eachPlace(t, func(t *testing.T, p place) {
		f := newFleet(t, p)
		s, end := newStorm(f)
		s.goOn("all get on at first", func(int) bool { return true })
		for _, x := range f.troubles() {
			s.suffer(x, s.busiest())
		}
		end()
		s.judge()
	})
}

// judge looks at the machine, and whether anything was tried at all.
func (s *storm) judge() {
	s.t.Helper()
	starts, calls := s.machine.Starts(), s.api.Count(fakefly.Start, "1")
	suspends := s.api.Count(fakefly.Suspend, "1")
	s.t.Logf("the machine was started %d times by %d calls, and put to sleep %d times; %d queries were cancelled", starts, calls, suspends, s.cancelled)
	if calls != starts {
		s.t.Errorf("%d calls have started the machine %d times", calls, starts)
	}
	if s.vm.inUse > 0 {
		s.t.Errorf("the machine was put to sleep %d times while a query ran", s.vm.inUse)
	}
	if starts == 0 || s.cancelled == 0 {
		s.t.Error("nothing was tried")
	}
	var refused []string
	for i, g := range s.gates {
		if g.Log().Contains("too many connections for role") {
			refused = append(refused, nodeName(i))
		}
	}
	if len(refused) > 0 {
		s.t.Errorf("logins were one too many: %s", strings.Join(refused, ", "))
	}
}
