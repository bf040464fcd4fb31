// Cancel requests that meet another node than their session.

package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
)

// town is nodes that reach each other in this process, without a network.
type town struct {
	mu     sync.Mutex
	gates  map[string]*Gate
	made   map[string]string // by process id and secret: the node that has made it
	also   []string          // nodes that every key looks like one of
	frozen map[string]bool   // nodes whose clock cannot be read
	slow   map[string]bool   // nodes whose answers do not come
	asked  []string          // what was forwarded, and where
}

func newTown() *town {
	return &town{gates: make(map[string]*Gate), made: make(map[string]string), frozen: make(map[string]bool)}
}

// at is the town as one node sees it.
func (w *town) at(name string) Cluster { return &citizen{w, name} }

type citizen struct {
	town *town
	name string
}

func (c *citizen) CancelSecret(pid uint32, long bool) []byte {
	secret := newSecret(pid, long)
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	c.town.made[fmt.Sprint(pid, secret)] = c.name
	return secret
}

func (c *citizen) CancelOwners(pid uint32, secret []byte) []string {
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	list := slices.Clone(c.town.also)
	if of := c.town.made[fmt.Sprint(pid, secret)]; of != "" && of != c.name {
		list = append(list, of)
	}
	return list
}

var errFrozen = errors.New("it does not answer")

func (c *citizen) Clock(ctx context.Context, node string) ([]byte, error) {
	c.town.mu.Lock()
	frozen := c.town.frozen[node]
	c.town.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return nil, errFrozen
	}
	return []byte(`"noon"`), nil
}

func (c *citizen) ForwardCancel(ctx context.Context, node string, f ForwardedCancel) (string, error) {
	c.town.mu.Lock()
	g, slow := c.town.gates[node], c.town.slow[node]
	c.town.asked = append(c.town.asked, node+" at "+string(f.Clock))
	c.town.mu.Unlock()
	if slow {
		<-ctx.Done()
	}
	if g == nil {
		return "", errFrozen
	}
	return g.Cancel(ctx, f), nil
}

// others are the gates of all other nodes that are not frozen.
func (c *citizen) others() (all []*Gate) {
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	for name, g := range c.town.gates {
		if name != c.name && !c.town.frozen[name] {
			all = append(all, g)
		}
	}
	return all
}

func (c *citizen) Failed(f netrestrict.Failures) {
	for _, g := range c.others() {
		g.Heard(Failures{Logins: []netrestrict.Failures{f}})
	}
}

func (c *citizen) Guessed(from netip.Addr) {
	for _, g := range c.others() {
		g.Heard(Failures{Guesses: []netrestrict.Failures{{Address: from, Count: 1}}})
	}
}

func (c *citizen) Tell(_ context.Context, o Order) (n int, silent []string) {
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	for name, g := range c.town.gates {
		if name == c.name {
			continue
		}
		if c.town.frozen[name] {
			silent = append(silent, name)
			continue
		}
		k, err := g.Obey(o)
		if err != nil {
			silent = append(silent, name)
		}
		n += k
	}
	return n, silent
}

// bench is a node of the town with a tenant and clients.
func (w *town) bench(t *testing.T, name string) *bench {
	b := newBench(t, func(o *Options) { o.Cluster = w.at(name) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates[name] = b.gate
	return b
}

// cancelled counts the cancel requests that the gate has met by what has come of them.
func (b *bench) cancelled() map[string]int {
	b.t.Helper()
	return counted(b.t, b.gate.opts.Registerer.(*prometheus.Registry), "postern_cancels_total")
}

// keyOf is what the nth client cancels with.
func (b *bench) keyOf(n int) (key cancelKey) {
	b.tenant.call(func() { key = b.tenant.clients[n].key })
	return key
}

// sent is a CancelRequest from an address. It returns when its connection would be closed.
func (b *bench) sent(key cancelKey, peer proxyproto.Peer) {
	h := &handshake{visitor: visitor{gate: b.gate, peer: peer}}
	h.cancel(append(binary.BigEndian.AppendUint32(nil, key.pid), key.secret...))
}

func fromAddress(text string) proxyproto.Peer {
	return proxyproto.Direct(netip.AddrPortFrom(netip.MustParseAddr(text), 5555))
}

func wantCounts(t *testing.T, got map[string]int, want map[string]int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("cancels: %v, want %v", got, want)
	}
}

// TestACancelFindsItsNode: one that came to b has a cancel what its client runs, and nothing else. Its connection is closed when the
// server has it, as if it had come to a.
func TestACancelFindsItsNode(t *testing.T) {
	for mode, name := range map[poolMode]string{sessionMode: "session", transactionMode: "transaction"} {
		t.Run(name, func(t *testing.T) {
			w := newTown()
			a, b := w.bench(t, "a"), w.bench(t, "b")
			server := a.server()
			conn := a.client(mode)
			on := a.cancels()
			say(t, conn, first)
			expect(t, server, first, "query")
			over := make(chan struct{})
			key := a.keyOf(0)
			go func() {
				defer close(over)
				b.sent(key, fromAddress("198.51.100.7"))
			}()
			request := on.next()
			select {
			case <-over:
				t.Error("over before the server has it")
			default:
			}
			request.Close()
			<-over
			wantCounts(t, a.cancelled(), map[string]int{"sent": 1})
			wantCounts(t, b.cancelled(), map[string]int{"forwarded": 1})
			say(t, server, pgwire.AppendReady(errCancelled.Append(nil), 'I'))
			expect(t, conn, pgwire.AppendReady(errCancelled.Append(nil), 'I'), "answer")
			b.sent(key, fromAddress("198.51.100.7")) // nothing runs any more
			wantCounts(t, a.cancelled(), map[string]int{"sent": 1, "idle": 1})
			on.none()
		})
	}
}

// TestAForwardedCancelIsJudgedByItsAddress, which the owner of the session lists when it refuses it.
func TestAForwardedCancelIsJudgedByItsAddress(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	a.begun(sessionMode)
	on := a.cancels()
	conf := a.restrict(netrestrict.Rule{Network: netip.MustParsePrefix("192.0.2.0/24")}, netrestrict.Rule{Endpoint: netrestrict.Endpoint{Provider: netrestrict.Azure, ID: "7"}})
	put(t, a.gate, conf)
	key := a.keyOf(0)
	b.sent(key, fromAddress("198.51.100.7"))
	wantCounts(t, a.cancelled(), map[string]int{"refused": 1})
	wantCounts(t, b.cancelled(), map[string]int{"forwarded": 1})
	if list, err := a.gate.Refusals("acme"); err != nil || len(list) != 1 || list[0].Address != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("refusals: %v, %v", list, err)
	}
	if list, err := b.gate.Refusals("acme"); err != nil || len(list) != 0 {
		t.Errorf("b has refused somebody: %v, %v", list, err)
	}
	b.sent(key, fromAddress("192.0.2.9"))
	through := fromAddress("198.51.100.7")
	through.AzureLink, through.AzureLinkSet = 7, true
	b.sent(key, through)
	wantCounts(t, a.cancelled(), map[string]int{"refused": 1, "idle": 2})
	on.none()
}

// TestOldCancelsAreDropped, and those whose senders have gone, when their turn has come.
func TestOldCancelsAreDropped(t *testing.T) {
	w := newTown()
	a := w.bench(t, "a")
	server := a.server()
	conn := a.client(sessionMode)
	on := a.cancels()
	say(t, conn, first)
	expect(t, server, first, "query")
	key := a.keyOf(0)
	f := ForwardedCancel{PID: key.pid, Secret: key.secret, Who: netrestrict.Who{Address: netip.MustParseAddr("192.0.2.9")}}
	old := f
	old.Age = maxCancelAge + time.Millisecond
	if got := a.gate.Cancel(t.Context(), old); got != "late" {
		t.Errorf("one that is too old: %q", got)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if got := a.gate.Cancel(gone, f); got != "late" {
		t.Errorf("one whose sender has gone: %q", got)
	}
	// It may become so while it waits for the loop.
	waits, leave := context.WithCancel(t.Context())
	busy, free, result := make(chan struct{}), make(chan struct{}), make(chan string)
	go a.tenant.call(func() { close(busy); <-free })
	<-busy
	go func() { result <- a.gate.Cancel(waits, f) }()
	leave()
	close(free)
	if got := <-result; got != "late" {
		t.Errorf("one whose sender goes: %q", got)
	}
	on.none()
	go func() { result <- a.gate.Cancel(t.Context(), f) }()
	on.next().Close()
	if got := <-result; got != "sent" {
		t.Errorf("a new one: %q", got)
	}

	r := a.replica()
	key = a.gate.keys.add(r, a.tenant, true, 0)
	old.PID, old.Secret = key.pid, key.secret
	if got := a.gate.Cancel(t.Context(), old); got != "late" {
		t.Errorf("one for a replication session that is too old: %q", got)
	}
	old.Age = 0
	if got := a.gate.Cancel(t.Context(), old); got != "idle" {
		t.Errorf("a new one for a replication session without a server: %q", got)
	}
}

// TestAForwardedCancelStaysWhereItIs: a node that does not have the session asks no other.
func TestAForwardedCancelStaysWhereItIs(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	a.begun(sessionMode)
	key := a.keyOf(0)
	f := ForwardedCancel{PID: key.pid, Secret: key.secret, Who: netrestrict.Who{Address: netip.MustParseAddr("192.0.2.9")}}
	if got := b.gate.Cancel(t.Context(), f); got != cancelUnknown {
		t.Errorf("it is %q", got)
	}
	if len(w.asked) > 0 || len(a.cancelled()) > 0 || len(b.cancelled()) > 0 {
		t.Errorf("asked %v, counted %v and %v", w.asked, a.cancelled(), b.cancelled())
	}
}

// TestGuessesAreForwardedSilently to the nodes that they look like ones of, until their address is silenced here. The owner counts none.
func TestGuessesAreForwardedSilently(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	w.also = []string{"a"}
	limit := guessLimit().AddressFailures
	for i := range limit + 5 {
		b.sent(cancelKey{uint32(i), []byte("????")}, fromAddress("198.51.100.7"))
	}
	wantCounts(t, b.cancelled(), map[string]int{"unknown": limit, "limit": 5})
	wantCounts(t, a.cancelled(), nil)
	a.sent(cancelKey{1, []byte("????")}, fromAddress("198.51.100.7")) // who is silenced there is here
	wantCounts(t, a.cancelled(), map[string]int{"limit": 1})
	if len(w.asked) != limit {
		t.Errorf("%d were forwarded", len(w.asked))
	}
	w.also = nil
	b.sent(cancelKey{1, []byte("????")}, fromAddress("198.51.100.8"))
	if len(w.asked) != limit {
		t.Error("one that looks like nobody's was forwarded")
	}
}

// TestConsolesAreCancelledFromAnywhere, too.
func TestConsolesAreCancelledFromAnywhere(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	s := &consoleSession{gate: a.gate, interrupt: make(chan struct{}, 1)}
	s.key = newCancelKey(false, a.gate.keys.secret, a.gate.consoles.has)
	a.gate.consoles.sessions[s.key.pid] = s
	b.sent(s.key, fromAddress("198.51.100.7"))
	wantCounts(t, a.cancelled(), map[string]int{"sent": 1})
	if len(s.interrupt) != 1 {
		t.Error("it has not heard of it")
	}
	<-s.interrupt
	old := ForwardedCancel{PID: s.key.pid, Secret: s.key.secret, Age: maxCancelAge + time.Millisecond}
	if got := a.gate.Cancel(t.Context(), old); got != "late" || len(s.interrupt) != 0 {
		t.Errorf("one that is too old: %q", got)
	}
}

// lone is a gate of the town's without loops, for time that a test makes.
func (w *town) lone(ctx context.Context, name string) *Gate {
	return &Gate{opts: Options{Cluster: w.at(name), Timeouts: Timeouts{ServerConnect: 10 * time.Second}}, log: slog.New(slog.DiscardHandler), limited: newLimitedLog(), ctx: ctx}
}

// TestAFrozenNodeCostsItsBound: two seconds in which it is not heard of, and nothing is sent there. A request that was sent and not
// answered is over when it cannot hit any more.
func TestAFrozenNodeCostsItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		w.frozen["a"], w.also = true, []string{"a"}
		g := w.lone(t.Context(), "b")
		began := time.Now()
		r := cancelRequest{pid: 1, secret: []byte("abcd"), came: began.Add(-time.Second / 2)}
		if got := g.forward(r); got != "lost" || time.Since(began) != maxCancelAge-time.Second/2 || len(w.asked) > 0 {
			t.Errorf("%q after %v, asked %v", got, time.Since(began), w.asked)
		}
		w.frozen["a"] = false // and the rest of it is not there
		began = time.Now()
		r.came = began
		if got := g.forward(r); got != "lost" || time.Since(began) != maxCancelAge || len(w.asked) != 1 {
			t.Errorf("%q after %v, asked %v", got, time.Since(began), w.asked)
		}
		if len(g.forwards.to) > 0 {
			t.Errorf("slots are taken: %v", g.forwards.to)
		}
	})
}

// TestAFrozenNodeTakesNoOthersSlots, and not all of its own callers' time.
func TestAFrozenNodeTakesNoOthersSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		w.frozen["a"], w.also = true, []string{"a"}
		g := w.lone(t.Context(), "c")
		results := make(chan string, 2*maxForwards)
		for i := range maxForwards {
			go func() { results <- g.forward(requestOf(i)) }()
		}
		synctest.Wait()
		began := time.Now()
		if got := g.forward(requestOf(maxForwards)); got != "limit" || time.Since(began) != 0 {
			t.Errorf("one too many: %q after %v", got, time.Since(began))
		}
		w.also = []string{"b"}
		w.frozen["b"] = true
		go func() { results <- g.forward(requestOf(0)) }()
		for range maxForwards + 1 {
			if got := <-results; got != "lost" {
				t.Errorf("%q", got)
			}
		}
	})
}

// requestOf is a new request of the nth client.
func requestOf(n int) cancelRequest {
	return cancelRequest{came: time.Now(), who: netrestrict.Who{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})}}
}

// TestOneClientTakesNotAllSlots, and none for longer than a request is new, however long the node's answer takes. The client's
// connection stays until then.
func TestOneClientTakesNotAllSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		w.also, w.slow = []string{"a"}, map[string]bool{"a": true}
		g := w.lone(t.Context(), "b")
		var open sync.WaitGroup
		var over atomic.Int32
		send := func(n int) {
			open.Go(func() { g.forward(requestOf(n)); over.Add(1) })
			synctest.Wait()
		}
		for range maxClientForwards + 3 {
			send(1)
		}
		if got := over.Load(); got != 3 || len(w.asked) != maxClientForwards {
			t.Errorf("%d of one client's are over, %d were asked for", got, len(w.asked))
		}
		for n := range maxForwards {
			send(2 + n)
		}
		if got := over.Load(); got != 3+maxClientForwards || len(w.asked) != maxForwards {
			t.Errorf("%d of all are over, %d were asked for", got, len(w.asked))
		}
		time.Sleep(maxCancelAge + time.Millisecond) // as the slots are given back in the very moment
		send(1)
		if got := over.Load(); got != 3+maxClientForwards || len(w.asked) != maxForwards+1 {
			t.Errorf("two seconds later %d are over, %d were asked for", got, len(w.asked))
		}
		open.Wait()
		if len(g.forwards.to) > 0 {
			t.Errorf("slots are taken: %v", g.forwards.to)
		}
	})
}
