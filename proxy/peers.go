// What a gate asks of the other nodes of its cluster, and what it does when they ask.

package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/postern/postern/netrestrict"
)

// Cluster is how a gate reaches the other nodes that stand behind its clients' address. Safe for concurrent use. No call goes on after
// its context has ended.
type Cluster interface {
	// CancelSecret makes the secret of a new cancel key, unlike those before it, by which every node finds this one.
	CancelSecret(pid uint32, long bool) []byte
	// CancelOwners names the nodes that may have made a key, but for this one. It asks nobody.
	CancelOwners(pid uint32, secret []byte) []string
	// Clock reads a node's clock, for ForwardedCancel.
	Clock(ctx context.Context, node string) ([]byte, error)
	// ForwardCancel has a node call Gate.Cancel, and says what that has said.
	ForwardCancel(ctx context.Context, node string, c ForwardedCancel) (result string, err error)
	// Failed has all other nodes count logins that have failed, and Guessed that a cancel key was wrong: see Gate.Heard. That is soon,
	// and they return at once.
	Failed(f netrestrict.Failures)
	Guessed(from netip.Addr)
	// Tell has all other nodes call Gate.Obey, adds up what they say, and names those that do not answer in time.
	Tell(ctx context.Context, o Order) (n int, silent []string)
}

// ForwardedCancel is a CancelRequest that another node was sent.
type ForwardedCancel struct {
	PID    uint32
	Secret []byte
	Who    netrestrict.Who // has sent it
	// Age is how old it was when the clock of the node that deals with it read Clock, or a moment before that. Gate.Cancel is told
	// how old it is now.
	Age   time.Duration
	Clock []byte
}

const (
	// maxCancelAge is when a request that was forwarded is dropped: by then its client may have been told that its query has
	// ended, and have asked for another.
	maxCancelAge = 2 * time.Second
	// maxForwards bounds the requests that are new and on their way to one node, which may be frozen, and maxClientForwards
	// those of one client. Whether older ones are answered is for the node to say.
	maxForwards       = 16
	maxClientForwards = maxForwards / 4
)

// forwards counts the requests on their way to other nodes. Safe for concurrent use.
type forwards struct {
	mu sync.Mutex
	to map[forwardsTo]int
}

// forwardsTo are the requests to a node; without an address: of all clients.
type forwardsTo struct {
	node string
	from netip.Prefix
}

// enter returns how to leave, which may be done twice; nil: there is no room.
func (f *forwards) enter(node string, from netip.Addr) (leave func()) {
	all, own := forwardsTo{node: node}, forwardsTo{node, netrestrict.Subscriber(from)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.to[all] >= maxForwards || f.to[own] >= maxClientForwards {
		return nil
	}
	if f.to == nil {
		f.to = make(map[forwardsTo]int)
	}
	f.to[all]++
	f.to[own]++
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, k := range []forwardsTo{all, own} {
			if f.to[k]--; f.to[k] == 0 {
				delete(f.to, k)
			}
		}
	})
}

// forward has the node that has made its key deal with a request, and says what has come of it here.
func (g *Gate) forward(r cancelRequest) (result string) {
	result = cancelUnknown
	if g.opts.Cluster == nil {
		return result
	}
	for _, node := range g.opts.Cluster.CancelOwners(r.pid, r.secret) {
		leave := g.forwards.enter(node, r.who.Address)
		if leave == nil {
			result = "limit"
			continue
		}
		// A tenant's server may keep the node's answer back. That is its own clients' time.
		tooOld := time.AfterFunc(time.Until(r.came.Add(maxCancelAge)), leave)
		theirs, err := g.forwardTo(node, r)
		tooOld.Stop()
		leave()
		switch {
		case err != nil:
			g.limited.log(g.log, slog.LevelWarn, logKey{cause: "cancel:" + node}, "cancel request not forwarded", "node", node, "error", err)
			result = "lost"
		case theirs != cancelUnknown:
			return "forwarded"
		}
	}
	return result
}

// forwardTo returns when the node has answered, or will not do any more what it was asked.
func (g *Gate) forwardTo(node string, r cancelRequest) (result string, err error) {
	tooOld := r.came.Add(maxCancelAge)
	ctx, stop := context.WithDeadline(g.ctx, tooOld)
	defer stop()
	// Its clock comes first: a request that has lain before a frozen node looks new to it otherwise.
	clock, err := g.opts.Cluster.Clock(ctx, node)
	if err != nil {
		return "", err
	}
	f := ForwardedCancel{PID: r.pid, Secret: r.secret, Who: r.who, Clock: clock, Age: time.Since(r.came)}
	ctx, stopAsking := context.WithDeadline(g.ctx, tooOld.Add(g.opts.Timeouts.ServerConnect))
	defer stopAsking()
	result, err = g.opts.Cluster.ForwardCancel(ctx, node, f)
	if err == nil {
		return result, nil
	}
	rest := time.NewTimer(time.Until(tooOld))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-g.ctx.Done():
	}
	return "", err
}

// Cancel deals with a CancelRequest that another node was sent, as if it had come here, until ctx ends: its sender has gone. It says
// what has come of it, in the words of postern_cancels_total. It is never forwarded again.
func (g *Gate) Cancel(ctx context.Context, f ForwardedCancel) (result string) {
	began := time.Now()
	return g.cancel(cancelRequest{pid: f.PID, secret: f.Secret, who: f.Who, came: began.Add(-f.Age), dropped: func() bool {
		return ctx.Err() != nil || f.Age+time.Since(began) > maxCancelAge
	}})
}

// Order is something that one node wants done on all others.
type Order struct {
	Do     Deed
	Tenant string // "": all
	Client uint64 `json:",omitempty"` // of DoKillClient
}

// Deed is what an order is for.
type Deed string

// The deeds. What Gate.Obey counts stands behind each.
const (
	DoKill       Deed = "kill"        // end all sessions and server connections: 1
	DoPause      Deed = "pause"       // hold all tenants until DoResume, or the end of the process: 1, or 0 if they are held already
	DoResume     Deed = "resume"      // hold a tenant, or all, no longer: 1, or 0 if nothing was held
	DoLeave      Deed = "leave"       // nothing: the paused tenants that still have servers
	DoReconnect  Deed = "reconnect"   // have server connections replaced: 1
	DoClose      Deed = "close"       // nothing: the tenants that still have servers which are to be replaced
	DoKillClient Deed = "kill_client" // end one client: 1, or 0 if it is not here
)

// errNoDeed is for orders of a node that knows more.
var errNoDeed = errors.New("this node does not know the order")

// Obey carries out another node's order, and counts what has come of it.
func (g *Gate) Obey(o Order) (n int, err error) {
	switch o.Do {
	case DoKill:
		return 1, g.withTenant(o.Tenant, (*tenant).kill)
	case DoPause:
		return g.holdAll(), nil
	case DoResume:
		if o.Tenant == "" {
			return g.unholdAll(), nil
		}
		return g.unhold(o.Tenant), nil
	case DoLeave:
		return g.busy(o.Tenant, (*tenant).leaving), nil
	case DoReconnect:
		g.reconnect(o.Tenant)
		return 1, nil
	case DoClose:
		return g.busy(o.Tenant, (*tenant).closing), nil
	case DoKillClient:
		return g.killClient(o.Client), nil
	}
	return 0, errNoDeed
}
