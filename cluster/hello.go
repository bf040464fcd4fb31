// The hello: each node greets each other one once, so that who cannot work together is told at both sides before anybody needs it.

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

const hello = "hello"

// greeting is the answer: what should be the same on all nodes. Who does not know it does not look at it. Keys and protocols are judged before.
type greeting struct {
	MaxNodes int `json:"max_nodes"` // 0: it does not say
}

func (c *Cluster) answerHello(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(greeting{c.opts.MaxNodes})
}

// compare logs where a node that was greeted differs from this one.
func (c *Cluster) compare(node string, answer []byte) {
	var there greeting
	if json.Unmarshal(answer, &there) != nil || there.MaxNodes == 0 || there.MaxNodes == c.opts.MaxNodes {
		return
	}
	c.warnOf(node, "another node has another cluster.max_nodes: they divide limits by it, and must have the same", "node", node, "max_nodes", there.MaxNodes, "here", c.opts.MaxNodes)
}

// understands reports whether what the other side speaks and what we speak are neighbours.
func (c *Cluster) understands(h http.Header) bool { return c.speaks(protocolOf(h)) }

func (c *Cluster) speaks(theirs int) bool {
	return theirs > 0 && theirs >= c.protocol-1 && theirs <= c.protocol+1
}

// protocolOf is what the other side of a call speaks; 0: it does not say.
func protocolOf(h http.Header) int {
	theirs, err := strconv.Atoi(h.Get(headerProtocol))
	if err != nil {
		return 0
	}
	return theirs
}

// refusedProtocol logs that a node speaks something else.
func (c *Cluster) refusedProtocol(node string, theirs int) {
	c.warnOf(node, "another node is of a version that does not work together with this one: nothing is asked or answered", "node", node, "protocol", theirs, "here", c.protocol)
}

// greetings are the processes that were greeted.
type greetings struct {
	mu   sync.Mutex
	all  map[string]bool // by boot
	poke chan struct{}   // holds one if there are rows to look at
}

func newGreetings() *greetings {
	return &greetings{all: make(map[string]bool), poke: make(chan struct{}, 1)}
}

// keep forgets who has no row any more, and has the others looked at.
func (g *greetings) keep(all []tenants.Node) {
	boots := make(map[string]bool, len(all))
	for _, n := range all {
		boots[n.Boot] = true
	}
	g.mu.Lock()
	for boot := range g.all {
		if !boots[boot] {
			delete(g.all, boot)
		}
	}
	g.mu.Unlock()
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

func (g *greetings) done(boot string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[boot] = true
}

func (g *greetings) has(boot string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all[boot]
}

// greet greets who is new, until ctx ends. Who does not answer is greeted again, as long as the store hears of it.
func (c *Cluster) greet(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.greeted.poke:
		}
		var all sync.WaitGroup
		for _, n := range c.rows.list() {
			if n.Silent || c.greeted.has(n.Boot) {
				continue
			}
			if _, ok := c.callable(n.Name); !ok {
				continue
			}
			all.Go(func() {
				answer, err := c.Call(ctx, n.Name, hello, nil)
				c.compare(n.Name, answer)
				if err == nil || errors.Is(err, ErrProtocol) {
					c.greeted.done(n.Boot)
				}
			})
		}
		all.Wait()
		pause := time.NewTimer(joinEvery)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}
