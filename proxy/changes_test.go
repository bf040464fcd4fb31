// Tests of what changed tenants mean for the gate: everything for one, nothing for the others, and no change is lost.

package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// withPassword makes a tenant whose one user has a password.
func withPassword(id string, size int, password string) *tenants.Tenant {
	t := tenants.New(id)
	t.Upstream.Host, t.Pool.Size, t.Pool.MaxServers = "127.0.0.1", size, size
	t.Users["app"] = &tenants.User{Name: "app", Password: tenants.NewSecret(password)}
	t.Complete()
	return t
}

func put(t testing.TB, g *Gate, conf *tenants.Tenant) {
	t.Helper()
	if err := g.opts.Directory.Put(conf); err != nil {
		t.Fatal(err)
	}
}

// startGate starts a gate of a directory, without listeners.
func startGate(t testing.TB, d *tenants.Directory) *Gate {
	t.Helper()
	g, err := New(Options{Directory: d, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Loops: 1,
		Limits: Limits{Clients: 1000, Handshakes: 10}, Session: tenants.Timeouts{QueryWait: new(time.Minute)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// confOf is what a tenant's loop goes by.
func confOf(t *tenant) (conf *tenants.Tenant) {
	t.call(func() { conf = t.conf })
	return conf
}

func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// derivedOf reports whether there is a verifier of the user app's password.
func derivedOf(g *Gate, id, password string) bool {
	g.derived.mu.Lock()
	defer g.derived.mu.Unlock()
	is, ok := g.derived.users[derivedKey{id, "app"}]
	return ok && is.password == tenants.NewSecret(password)
}

// TestChangeOfOneTenant: its loop goes by the new configuration, and no other tenant's has been asked to do anything.
func TestChangeOfOneTenant(t *testing.T) {
	g := newBench(t).gate
	put(t, g, withPassword("globex", 1, "secret"))
	put(t, g, withPassword("initech", 1, "one"))
	globex, initech := g.tenant("globex"), g.tenant("initech")
	soon(t, "verifiers of both", func() bool { return derivedOf(g, "globex", "secret") && derivedOf(g, "initech", "one") })

	mark := &tenants.Tenant{ID: "globex"} // whoever applies anything to globex takes this away
	globex.call(func() { globex.conf = mark })
	conf, _ := g.opts.Directory.Tenant("globex")
	kept := func() {
		t.Helper()
		u, _ := conf.User("app")
		_, _ = g.derived.of(conf, u, g.current, func() (scram.Verifier, error) {
			t.Error("globex's verifier was made again")
			return scram.Verifier{}, nil
		})
		if got := confOf(globex); got != mark {
			t.Errorf("globex was changed to %+v", got)
		}
	}
	for i := range 100 {
		want := withPassword("initech", 2+i, "one")
		put(t, g, want)
		if got := confOf(initech); got != want {
			t.Fatalf("initech goes by %+v", got)
		}
		if !derivedOf(g, "initech", "one") {
			t.Fatal("a user whose password is what it was has no verifier any more")
		}
	}
	kept()
	put(t, g, withPassword("initech", 1, "two"))
	soon(t, "the verifier of the new password, before anybody logs in", func() bool { return derivedOf(g, "initech", "two") })
	put(t, g, withPassword("hooli", 1, "three"))
	soon(t, "that of a new tenant", func() bool { return derivedOf(g, "hooli", "three") })
	g.opts.Directory.Remove("initech")
	if got := confOf(initech); got != nil || derivedOf(g, "initech", "two") {
		t.Errorf("a removed tenant goes by %+v", got)
	}
	kept()

	// A reload is no more than its difference.
	acme, _ := g.opts.Directory.Tenant("acme")
	if err := g.opts.Directory.Replace([]*tenants.Tenant{acme, withPassword("globex", 1, "secret"), withPassword("hooli", 2, "three")}); err != nil {
		t.Fatal(err)
	}
	kept()
}

// TestChangesArriveInOrder: many writers, and the loop ends with what the directory ends with.
func TestChangesArriveInOrder(t *testing.T) {
	g := newBench(t).gate
	put(t, g, withPassword("globex", 1, "x"))
	globex := g.tenant("globex")
	var seen []int
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 100 {
				put(t, g, withPassword("globex", 2+i*100+n, "x"))
				globex.post(func() {
					if t := globex.conf; t != nil {
						seen = append(seen, t.Pool.Size)
					}
				})
			}
		})
	}
	wg.Wait()
	want, _ := g.opts.Directory.Tenant("globex")
	if got := confOf(globex); got != want {
		t.Errorf("the loop goes by size %d, the directory by %d", got.Pool.Size, want.Pool.Size)
	}
	for i := range 4 { // of one writer none comes after a later one
		last := 0
		for _, size := range seen {
			if n := size - 2; n/100 == i {
				if n < last {
					t.Fatalf("writer %d: %d after %d", i, n, last)
				}
				last = n
			}
		}
	}
}

// TestChangeWhileTenantIsMade is not lost: whoever makes one waits for the gate's lock, and gets it before or after the change has
// looked for somebody to tell.
func TestChangeWhileTenantIsMade(t *testing.T) {
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	inForce := func() {}
	d.Subscribe(func([]tenants.Change) { inForce() }) // before the gate
	g := startGate(t, d)
	waits := func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for one := range bytes.SplitSeq(stacks, []byte("\n\n")) {
			if bytes.Contains(one, []byte("sync.Mutex.Lock")) && bytes.Contains(one, []byte("(*Gate).tenant(")) {
				return true
			}
		}
		return false
	}
	for i := range 60 {
		id := fmt.Sprintf("t%d", i)
		put(t, g, withPassword(id, 1, "x"))
		made := make(chan *tenant, 1)
		g.mu.Lock()
		go func() { made <- g.tenant(id) }()
		soon(t, "somebody who waits", waits)
		inForce = func() { // the change is in force, and nobody was told
			inForce = func() {}
			g.mu.Unlock()
		}
		if i%3 == 0 {
			d.Remove(id)
		} else {
			put(t, g, withPassword(id, 2, "x"))
		}
		want, _ := d.Tenant(id)
		if got := confOf(<-made); got != want {
			t.Fatalf("%s goes by %+v, want %+v", id, got, want)
		}
	}
}

// TestChangeAfterTenantWasForgotten: one that was let go of while a change was on its way takes part in nothing any more, and the
// next one has the change.
func TestChangeAfterTenantWasForgotten(t *testing.T) {
	g := newBench(t).gate
	g.opts.Driver = func(*tenants.Tenant) (machines.Driver, error) { return nil, errors.New("none") }
	old := withPassword("globex", 1, "x")
	put(t, g, old)
	globex := g.tenant("globex")
	globex.lastUse.Store(0)

	entered, release := make(chan struct{}), make(chan struct{})
	globex.post(func() { close(entered); <-release })
	<-entered
	globex.loop.Post(func() { g.forgetTenant(globex) })
	now := withPassword("globex", 1, "x")
	now.Upstream, now.Machine = tenants.Upstream{}, &tenants.Machine{Provider: tenants.ProviderLocal, Name: "m"}
	now.Complete()
	put(t, g, now)
	close(release)

	if got := confOf(globex); got != old {
		t.Errorf("the one that was let go of goes by %+v", got)
	}
	globex.call(func() {
		if globex.machine.holder != nil {
			t.Error("it takes part in a machine")
		}
	})
	next := g.tenant("globex")
	if next == globex || confOf(next) != now {
		t.Errorf("the next one goes by %+v", confOf(next))
	}
	g.opts.Directory.Remove("globex") // parts from its machine
}

// TestMachinesThatAppearAreLookedAfter, although nobody connects.
func TestMachinesThatAppearAreLookedAfter(t *testing.T) {
	g := newBench(t).gate
	g.opts.Driver = func(*tenants.Tenant) (machines.Driver, error) { return nil, errors.New("none") }
	conf := tenants.New("globex")
	conf.Machine = &tenants.Machine{Provider: tenants.ProviderLocal, Name: "m"}
	conf.Complete()
	put(t, g, conf)
	soon(t, "its run-time side", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.tenants["globex"] != nil
	})
	g.opts.Directory.Remove("globex")
}

// TestServersWanted: the sum is kept by difference, and stays a sum.
func TestServersWanted(t *testing.T) {
	g := newBench(t).gate
	d := g.opts.Directory
	check := func() {
		t.Helper()
		want := int64(0)
		for _, conf := range d.All() {
			want += int64(conf.Pool.MaxServers)
		}
		if got := g.serversWanted.Load(); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	check()
	put(t, g, withPassword("globex", 5, "x"))
	put(t, g, withPassword("globex", 9, "x"))
	put(t, g, withPassword("globex", 9, "y"))
	check()
	if err := d.Replace([]*tenants.Tenant{withPassword("globex", 3, "x"), withPassword("hooli", 4, "x")}); err != nil {
		t.Fatal(err)
	}
	check()
	d.Remove("globex")
	check()
}

// TestDerivedVerifiersOfThePast: a login that began before a change is judged by what it found, and leaves nothing behind.
func TestDerivedVerifiersOfThePast(t *testing.T) {
	var d derivedVerifiers
	conf := withPassword("a", 1, "old")
	u := conf.Users["app"]
	made := 0
	derive := func() (scram.Verifier, error) { made++; return scram.Verifier{Iterations: made}, nil }
	is := func(b bool) func(*tenants.Tenant) bool { return func(*tenants.Tenant) bool { return b } }
	of := func(current bool) int {
		v, err := d.of(conf, u, is(current), derive)
		if err != nil {
			t.Fatal(err)
		}
		return v.Iterations
	}
	if of(false) != 1 || of(false) != 2 || len(d.users) != 0 || len(d.roundsOf(conf, is(false), func() knownRounds { return knownRounds{{7, 1}} })) != 1 || len(d.rounds) != 0 {
		t.Errorf("what is over was remembered: %d users, %d rounds", len(d.users), len(d.rounds))
	}
	if of(true) != 3 || of(true) != 3 || of(false) != 3 {
		t.Error("what is current was not remembered")
	}
	_ = d.roundsOf(conf, is(true), func() knownRounds { return nil })
	d.amend(tenants.Change{Old: conf, New: withPassword("a", 1, "new")})
	if len(d.users) != 0 || len(d.rounds) != 0 {
		t.Errorf("left behind: %d users, %d rounds", len(d.users), len(d.rounds))
	}
}

func TestBacklog(t *testing.T) {
	var b backlog
	ctx, cancel := context.WithCancel(t.Context())
	b.add("a")
	b.add("b")
	b.add("a")
	var done []string
	worked, ended := make(chan string), make(chan struct{})
	go func() {
		defer close(ended)
		b.work(ctx, func(id string) {
			if done = append(done, id); len(done) == 2 {
				b.add(id) // while it is its turn
			}
			worked <- id
		})
	}()
	for range 3 {
		<-worked
	}
	b.add("c") // to one that waits, or is about to
	<-worked
	cancel()
	<-ended
	if want := []string{"a", "b", "b", "c"}; !slices.Equal(done, want) {
		t.Errorf("done %v, want %v", done, want)
	}
}

// BenchmarkChange is one tenant's change among a hundred thousand, a thousand of which are in use, until its loop goes by it.
func BenchmarkChange(b *testing.B) {
	all := make([]*tenants.Tenant, 100_000)
	verifier, err := scram.NewVerifier("secret", scram.DefaultIterations, nil)
	if err != nil {
		b.Fatal(err)
	}
	conf := func(i, size int) *tenants.Tenant {
		t := withPassword(fmt.Sprintf("t%d", i), size, "")
		t.Users["app"].Verifier = tenants.NewSecret(verifier.Encode())
		return t
	}
	for i := range all {
		all[i] = conf(i, 1)
	}
	d, err := tenants.NewDirectory(all...)
	if err != nil {
		b.Fatal(err)
	}
	g := startGate(b, d)
	for i := range 1000 {
		g.tenant(all[i].ID)
	}
	t := g.tenant("t0")
	i := 0
	for b.Loop() {
		i++
		want := conf(0, 1+i%2)
		if err := d.Put(want); err != nil || confOf(t) != want {
			b.Fatal(err)
		}
	}
}

// TestSettled: who asks whether a change is in force waits for a loop that is busy, as long as he likes.
func TestSettled(t *testing.T) {
	t.Parallel()
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	g := startGate(t, d)
	put(t, g, withPassword("acme", 5, "pw"))
	acme := g.tenant("acme")
	busy, freed := make(chan struct{}), make(chan struct{})
	g.loops[0].Post(func() { close(busy); <-freed })
	<-busy
	put(t, g, withPassword("acme", 6, "pw"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Settled(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("while the loop is busy: %v", err)
	}
	done := make(chan int, 1)
	go func() {
		if err := g.Settled(t.Context()); err != nil {
			t.Error(err)
		}
		done <- acme.conf.Pool.Size // without asking the loop, which has nothing else to do
	}()
	close(freed)
	if size := <-done; size != 6 {
		t.Errorf("settled, and the loop goes by a pool of %d", size)
	}
	g.Close()
	if err := g.Settled(t.Context()); !errors.Is(err, ErrGateClosed) {
		t.Errorf("of a closed gate: %v", err)
	}
}
