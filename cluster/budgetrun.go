// The budget at work: accounts that are due are looked at, a few at a time; the store is asked whether it still knows this node.

package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	lookAtOnce    = 4
	tidyAtOnce    = 1               // of tenants that no client here waits for
	lookPatience  = 5 * time.Second // for the store to answer
	attendEvery   = 2 * time.Second
	surveyEvery   = 20 * time.Second       // in a store that has become another one what is missing is written again before it counts as settled
	compareAtOnce = 500                    // accounts, while claims wait
	hearPause     = 500 * time.Millisecond // between two connections that hear
	returnWithin  = lookPatience           // else others wait two minutes for it

	cutOffPatience = 2 * time.Second // for other nodes to answer
)

// Run does what has to be done until ctx ends; then it gives back what is not left in use, for which it takes returnWithin at most. The gate has ended
// before.
func (b *Budget) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { b.attend(ctx) })
	running.Go(func() { b.listen(ctx) })
	running.Go(func() { b.counter(ctx) })
	running.Go(func() { b.serve(ctx, &b.spare, b.pokeSpare, tidyAtOnce) })
	b.serve(ctx, &b.due, b.poke, lookAtOnce)
	running.Wait()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnWithin)
	defer cancel()
	if err := b.o.Ledger.Return(bound, b.o.Left()); err != nil {
		b.o.Log.Warn("the store was not told that this node needs no portions of limits any more: they are kept for it for a while", "error", err)
	}
}

// serve has accounts of a list worked at when they are due, so many at once.
func (b *Budget) serve(ctx context.Context, list *dueList, poke <-chan struct{}, atOnce int) {
	slots := make(chan struct{}, atOnce)
	var working sync.WaitGroup
	defer working.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		a, at := b.take(list)
		if a == nil {
			var until <-chan time.Time
			if !at.IsZero() {
				timer.Reset(time.Until(at))
				until = timer.C
			}
			select {
			case <-ctx.Done():
				return
			case <-until:
			case <-poke:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		working.Go(func() {
			b.work(ctx, a)
			<-slots
		})
	}
}

// take takes an account of a list that is due, or says when the next one is.
func (b *Budget) take(list *dueList) (*account, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, at := list.take(b.now())
	if a != nil {
		a.busy = true
	}
	return a, at
}

// work does what is due for an account.
func (b *Budget) work(ctx context.Context, a *account) {
	due := func(at time.Time) bool { return !at.IsZero() && !at.After(b.now()) }
	b.with(a, func(now time.Time) { a.act(now, b.me) })
	b.mu.Lock()
	b.request(a)
	look := due(a.lookAt(b.now()))
	b.mu.Unlock()
	if look {
		b.look(ctx, a)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.busy = false
	b.schedule(a, b.now())
}

// with changes an account that this goroutine is at, and tells the gate what has changed for it.
func (b *Budget) with(a *account, change func(now time.Time)) {
	b.mu.Lock()
	change(b.now())
	tell := a.news || a.resend
	a.news, a.resend = false, false
	number, grants := a.number, a.grants()
	b.mu.Unlock()
	if tell {
		b.o.Granted(a.tenant, number, grants)
	}
}

// look looks into the store.
func (b *Budget) look(ctx context.Context, a *account) {
	bound, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	b.mu.Lock()
	away, gap := b.away, b.trust.gap(b.now())
	b.mu.Unlock()
	switch {
	case gap: // what is known may be wrong
		b.with(a, func(now time.Time) { a.retryAt = now.Add(lookEvery) })
		return
	case away:
		b.with(a, a.fail)
		return
	}
	err := b.o.Ledger.Portions(bound, a.tenant, func(s tenants.Portions) tenants.PortionsChange {
		for i := range s.All {
			s.All[i].Lapsed = s.All[i].Lapsed && !b.o.Alive(s.All[i].Node, s.All[i].Boot)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return a.look(s, b.now(), b.me)
	})
	b.with(a, func(now time.Time) {
		switch {
		case err == nil:
			a.commit(now)
		case ctx.Err() == nil:
			b.away = true // until attend has asked
			a.fail(now)
			wake(b.wide)
		}
	})
	if err == nil {
		b.complain(a)
	}
}

// listen hears what others say, until ctx ends.
func (b *Budget) listen(ctx context.Context) {
	for told := false; ; {
		err := b.o.Ledger.Hear(ctx, func() { told = false; wake(b.wide) }, b.hear)
		if ctx.Err() != nil {
			return
		}
		if !told {
			b.o.Log.Warn("this node does not hear from others that they want servers: it looks by itself, less often", "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(hearPause):
		}
	}
}

// attend finds out whether the store still knows this node, until ctx ends.
func (b *Budget) attend(ctx context.Context) {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	var surveyed time.Time
	for wide := true; ctx.Err() == nil; {
		asked := b.now()
		if b.ask(ctx, asked, wide || asked.Sub(surveyed) >= surveyEvery) {
			surveyed, wide = asked, false
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-b.wide:
			wide = true
		}
	}
}

// ask asks the store, and compares all accounts with it if that is wanted or has to be; then it returns true. What was found out is as old as
// the question: this process may have stood still since.
func (b *Budget) ask(ctx context.Context, asked time.Time, wide bool) (surveyed bool) {
	bound, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	b.mu.Lock()
	gap := b.trust.gap(asked) || b.trust.unknown(asked)
	b.mu.Unlock()
	age, err := b.o.Ledger.Unheard(bound)
	lost, away := false, err != nil && !errors.Is(err, tenants.ErrUnannounced)
	if err == nil && age < unheard && (wide || gap) {
		var mine map[string][]tenants.Portion
		var look []string
		if mine, look, err = b.o.Ledger.Survey(bound); err == nil {
			lost = b.compare(asked, gap, mine, look) && gap
			surveyed = true
		}
		away = err != nil
	}
	cut := away && b.cutOff(ctx, asked)
	if ctx.Err() != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &b.trust
	if b.away = away; !away {
		t.mute = nil
	}
	switch {
	case err == nil && age < unheard:
		t.at, t.heard = asked, asked.Add(-age)
		if lost {
			t.until = asked.Add(lostPause)
		}
	case away: // who can ask it, if anybody, sees that this node lives
		stood := !t.at.IsZero() && t.gap(asked) && t.unknown(asked) // they may have handed its portions on, and see it again
		if cut || stood {
			b.cut(asked)
		}
		if t.at = asked; stood {
			t.until = asked.Add(lostPause)
		}
	case t.unknown(asked): // others may think that this node is gone
		b.cut(asked)
	}
	return surveyed
}

// cutOff reports whether the store has not heard of this node for long, and others may think that it is gone.
func (b *Budget) cutOff(ctx context.Context, asked time.Time) bool {
	b.mu.Lock()
	unknown := b.trust.unknown(asked)
	b.mu.Unlock()
	if !unknown {
		return false
	}
	bound, cancel := context.WithTimeout(ctx, cutOffPatience)
	defer cancel()
	unseen, mute := b.o.CutOff(bound)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trust.cutOff(asked, unseen, mute)
}

// compare compares all accounts with the rows of the store, and reports whether this node has lost some. After a gap they may be others',
// else they are only missing, and are written again.
func (b *Budget) compare(asked time.Time, gap bool, mine map[string][]tenants.Portion, look []string) (lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, done := b.now(), 0
	for tenant, a := range b.accounts {
		if done++; done%compareAtOnce == 0 { // event loops wait for the lock
			b.mu.Unlock()
			b.mu.Lock()
		}
		if a.busy || !a.lookedAt.Before(asked) {
			continue
		}
		servers := func(scope string) int {
			i := slices.IndexFunc(mine[tenant], func(row tenants.Portion) bool { return row.Scope == scope })
			if i < 0 {
				return 0
			}
			return mine[tenant][i].Servers
		}
		if a.differs(servers) {
			lost = true
			if a.noted = true; gap {
				a.lose(servers, now, asked.Add(lostPause))
			}
			b.schedule(a, now)
		}
	}
	note := func(tenant string) {
		a := b.accounts[tenant]
		if a == nil {
			a = b.open(tenant)
		}
		a.noted = true
		b.schedule(a, now)
	}
	for tenant := range mine {
		if b.accounts[tenant] == nil {
			note(tenant)
		}
	}
	for _, tenant := range look {
		note(tenant)
	}
	return lost
}

// cut leaves floors alone.
func (b *Budget) cut(now time.Time) {
	for _, a := range b.accounts {
		floor := a.floor()
		a.cut(now, func(string) int { return floor })
		b.schedule(a, now)
	}
}
