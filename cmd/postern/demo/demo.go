// A run of the demo: what it starts, in which order, and how all of it ends.

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/postern/postern/machines"
)

// Where the demo's clients pretend to come from: documentation addresses (RFC 5737), one inside acme's allow_list.
const (
	allowedSource = "203.0.113.7"
	refusedSource = "198.51.100.9"
)

// tenantDomain is below which a host name names a tenant. The name can never exist (RFC 6761).
const tenantDomain = "db.postern.test"

// Ports that the demo takes if they are free; else it takes any.
const (
	portTransaction = 6543
	portProxied     = 6544
	portAllowed     = 6545
	portRefused     = 6546
	portSession     = 6432
	portAdmin       = 9187
)

// How long a machine stays awake unused: for people who watch, and for a script.
const (
	suspendAfterPlay  = 10 * time.Second
	suspendAfterVisit = 2 * time.Second
)

// Options are what a demo is made from.
type Options struct {
	Dir  string // keeps machines and files; "": a temporary folder, removed at the end
	Once bool   // a scripted visit instead of waiting for people
	Out  io.Writer
	Log  *slog.Logger
	// Serve has the gate of a configuration file served until ctx ends or SIGINT or SIGTERM comes. It calls started once every
	// address answers; started does not wait for what Serve does next.
	Serve func(ctx context.Context, config string, started func(Gate)) error
}

// Gate is a gate that serves.
type Gate struct {
	Listeners map[string]string // addresses, host:port, by name
	Admin     string            // address of the admin HTTP server
	Machine   func(tenant string) (machines.View, error)
}

// Run returns when it was interrupted or the visit is over, and everything it started has ended.
func Run(ctx context.Context, o Options) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	interrupted, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	folder, remove, err := openFolder(o.Dir)
	if err != nil {
		return err
	}
	defer remove()
	fmt.Fprintf(o.Out, "Starting the gate, with all that belongs to it in %s\n", folder)
	suspendAfter := suspendAfterPlay
	if o.Once {
		suspendAfter = suspendAfterVisit
	}
	sc, err := writeFiles(folder, suspendAfter)
	if err != nil {
		return err
	}
	if interrupted.Err() != nil {
		return errors.New("interrupted")
	}

	var side sync.WaitGroup // the relays, and the visitor or who tells of the machines
	defer side.Wait()
	defer end()
	relays, err := newRelays(sc)
	if err != nil {
		return err
	}
	defer func() {
		for _, r := range relays {
			r.ln.Close() // where serve did not come to it
		}
	}()
	var failed error
	err = o.Serve(ctx, sc.config, func(g Gate) {
		if interrupted.Err() != nil {
			failed = errors.New("interrupted")
			end()
			return
		}
		sc.listeners, sc.admin = g.Listeners, g.Admin
		for _, r := range relays {
			side.Go(func() { r.serve(ctx, sc.listeners[listenerProxied], o.Log) })
		}
		if !o.Once {
			sc.tell(o.Out)
			side.Go(func() { tellMachines(ctx, g.Machine, o.Out) })
			return
		}
		side.Go(func() {
			failed = sc.visit(interrupted, o.Out)
			if interrupted.Err() == nil {
				end()
			} // else the gate knows, too
		})
	})
	end()
	side.Wait()
	if err == nil {
		err = failed
	}
	return err
}

// newRelays binds the two senders of PROXY headers and notes where they listen.
func newRelays(sc *scene) ([]*relay, error) {
	allowed, err := newRelay(loopback(portAllowed), allowedSource)
	if err != nil {
		return nil, err
	}
	refused, err := newRelay(loopback(portRefused), refusedSource)
	if err != nil {
		allowed.ln.Close()
		return nil, err
	}
	sc.allowed, sc.refused = allowed.ln.Addr().String(), refused.ln.Addr().String()
	return []*relay{allowed, refused}, nil
}

// loopback is the address of a port on this computer alone: the given one, or
// port 0 (any) if somebody has it.
func loopback(port int) string {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	ln, err := net.Listen("tcp4", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	ln.Close()
	return address
}
