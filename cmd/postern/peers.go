// What the nodes of a cluster ask each other for their clients and operators: cancel requests, orders, sessions.

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
)

// nodes is what is needed of a *cluster.Cluster.
type nodes interface {
	Name() string
	Boot() string
	Nodes() []tenants.Node // rows of the store, this node's among them
	Key(purpose string) [32]byte
	Keys(purpose string) [][32]byte
	Handle(what string, max int64, f func(ctx context.Context, from string, body []byte) ([]byte, error))
	Call(ctx context.Context, node, what string, body []byte) ([]byte, error)
}

const (
	cancelKeys = "cancel" // their purpose
	// peersWithin bounds how long an operator waits for other nodes.
	peersWithin = 2 * time.Second
	maxQuestion = 64 << 10
)

// What is asked.
const (
	askClock  = "clock"
	askCancel = "cancel"
	askOrder  = "order"
)

// peers is the other nodes, for the gate and those who manage it.
type peers struct {
	nodes    nodes
	gate     func() *proxy.Gate // is there when somebody asks
	clock    cluster.Clock
	failures *failures
	answered answered
	log      *slog.Logger
}

var _ proxy.Cluster = (*peers)(nil)

// share gives the gate the means to tell others what they should know: the processes on the same store, and the nodes of a cluster.
func (p *process) share(o *proxy.Options, r tenants.Registry) {
	if s, ok := p.store.(*postgres.Store); ok {
		o.TellBan = s.TellBan
		if o.Console != nil {
			o.Console.Keep = keeper(r)
		}
	}
	if p.cluster != nil {
		p.peers = newPeers(p.cluster.Cluster, func() *proxy.Gate { return p.gate })
		o.Cluster = p.peers
		o.Streams = newStreams(p.cluster.Cluster, func() *proxy.Gate { return p.gate })
	}
}

// newPeers has this node answer others.
func newPeers(n nodes, gate func() *proxy.Gate) *peers {
	p := &peers{nodes: n, gate: gate, clock: cluster.NewClock(time.Now), failures: newFailures(), log: slog.New(slog.DiscardHandler)}
	n.Handle(askClock, maxQuestion, answering(func(context.Context, struct{}) (cluster.Reading, error) { return p.clock.Read(), nil }))
	n.Handle(askCancel, maxQuestion, answering(p.cancel))
	n.Handle(askOrder, maxQuestion, answering(func(_ context.Context, o proxy.Order) (int, error) {
		n, err := p.gate().Obey(o)
		return n, unlessGone(err)
	}))
	n.Handle(askFailures, maxFailures, answering(p.heard))
	n.Handle(askSessions, maxQuestion, answering(p.sessions))
	n.Handle(askEnd, maxQuestion, answering(p.end))
	n.Handle(askLockedOut, maxDocument, answering(p.lockedOut))
	n.Handle(askRefusals, maxQuestion, answering(p.refusals))
	n.Handle(askServers, maxQuestion, answering(p.servers))
	return p
}

// answering makes a handler of a function.
func answering[Q, A any](f func(ctx context.Context, q Q) (A, error)) func(ctx context.Context, from string, body []byte) ([]byte, error) {
	return func(ctx context.Context, _ string, body []byte) ([]byte, error) {
		var q Q
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, errors.New("the question cannot be read")
		}
		a, err := f(ctx, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	}
}

// askOne asks one node.
func askOne[A any](ctx context.Context, n nodes, node, what string, q any) (a A, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	answer, err := n.Call(ctx, node, what, body)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return a, fmt.Errorf("node %s: its answer cannot be read: %w", node, err)
	}
	return a, nil
}

// others are the rows of all other nodes that can be asked.
func (p *peers) others() []tenants.Node {
	return slices.DeleteFunc(slices.Clone(p.nodes.Nodes()), func(n tenants.Node) bool { return n.Boot == p.nodes.Boot() || !n.Address.IsValid() })
}

// askAll asks all other nodes at the same time, each what question says, and names those that do not answer in time. Where that says
// nothing nobody is asked.
func askAll[A any](ctx context.Context, p *peers, what string, question func(node string) any) (answers map[string]A, missing []string) {
	answers, failed := askEach[A](ctx, p, what, question)
	return answers, slices.Sorted(maps.Keys(failed))
}

// askEach does so, and says why those do not.
func askEach[A any](ctx context.Context, p *peers, what string, question func(node string) any) (answers map[string]A, failed map[string]error) {
	ctx, stop := context.WithTimeout(ctx, peersWithin)
	defer stop()
	var mu sync.Mutex
	var all sync.WaitGroup
	answers, failed = make(map[string]A), make(map[string]error)
	for _, n := range p.others() {
		q := question(n.Name)
		if q == nil {
			continue
		}
		all.Go(func() {
			a, err := askOne[A](ctx, p.nodes, n.Name, what, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[n.Name] = err
				return
			}
			answers[n.Name] = a
		})
	}
	all.Wait()
	return answers, failed
}

// same is the question for everyone.
func same(q any) func(string) any { return func(string) any { return q } }

// unlessGone is an error, unless it says that the tenant is not there: a node may not have heard of it yet, or not any more.
func unlessGone(err error) error {
	if errors.Is(err, proxy.ErrNoTenant) {
		return nil
	}
	return err
}

// CancelSecret implements proxy.Cluster.
func (p *peers) CancelSecret(pid uint32, long bool) []byte {
	noise := make([]byte, cluster.CancelNoise(long))
	_, _ = rand.Read(noise) // never fails
	return cluster.CancelSecret(p.nodes.Key(cancelKeys), p.nodes.Boot(), pid, noise)
}

// CancelOwners implements proxy.Cluster.
func (p *peers) CancelOwners(pid uint32, secret []byte) (owners []string) {
	keys := p.nodes.Keys(cancelKeys)
	for _, n := range p.others() {
		if cluster.CancelMade(keys, n.Boot, pid, secret) {
			owners = append(owners, n.Name)
		}
	}
	return owners
}

// Clock implements proxy.Cluster.
func (p *peers) Clock(ctx context.Context, node string) ([]byte, error) {
	return askOne[json.RawMessage](ctx, p.nodes, node, askClock, struct{}{})
}

// ForwardCancel implements proxy.Cluster.
func (p *peers) ForwardCancel(ctx context.Context, node string, c proxy.ForwardedCancel) (result string, err error) {
	return askOne[string](ctx, p.nodes, node, askCancel, c)
}

// cancel answers the node that a request came to.
func (p *peers) cancel(ctx context.Context, c proxy.ForwardedCancel) (result string, err error) {
	if c.Age, err = p.ageNow(c); err != nil {
		return "", err
	}
	return p.gate().Cancel(ctx, c), nil
}

// ageNow is how old a request is now that was as old as it says when this node's clock was read.
func (p *peers) ageNow(c proxy.ForwardedCancel) (time.Duration, error) {
	var read cluster.Reading
	if err := json.Unmarshal(c.Clock, &read); err != nil {
		return 0, errors.New("what this node's clock has read is missing")
	}
	return c.Age + p.clock.Since(read), nil
}

// Tell implements proxy.Cluster.
func (p *peers) Tell(ctx context.Context, o proxy.Order) (n int, silent []string) {
	answers, silent := askAll[int](ctx, p, askOrder, same(o))
	for _, k := range answers {
		n += k
	}
	return n, silent
}
