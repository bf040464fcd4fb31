// The demo command: the gate over two local machines that sleep, to try out or to be visited by script.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern/postern/configs"
)

// Where the demo's clients pretend to come from: documentation addresses (RFC 5737), one inside acme's allow_list.
const (
	allowedSource = "203.0.113.7"
	refusedSource = "198.51.100.9"
)

// demoDomain is below which a host name names a tenant. The name can never exist (RFC 6761).
const demoDomain = "db.postern.test"

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

func newDemo() *cobra.Command {
	var once bool
	var dir string
	cmd := &cobra.Command{Use: "demo", Short: "Try it out: the gate in front of two local PostgreSQL machines that sleep", Args: cobra.NoArgs,
		Long: "demo makes two tenants, acme and globex, each on a PostgreSQL machine of its own, which sleeps while nobody needs it.\n" +
			"It serves them on loopback addresses and prints lines to paste into another terminal. It needs PostgreSQL's server\n" +
			"programs (initdb, postgres).",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), dir, once, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}}
	cmd.Flags().BoolVar(&once, "once", false, "make a scripted visit instead of waiting for you; exit code 1 if something is not as it should be")
	cmd.Flags().StringVar(&dir, "dir", "", "keep machines and files in this folder (default: a temporary one, removed at the end)")
	return cmd
}

// runDemo returns when it was interrupted or the visit is over, and everything it started has ended.
func runDemo(ctx context.Context, dir string, once bool, stdout, stderr io.Writer) (err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	interrupted, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer survivePipes()()
	lines := newAsyncWriter(stderr)
	defer lines.flush()
	log := newLogger(configs.Log{Level: "warn", Format: configs.LogText}, lines)

	folder, remove, err := openDemoFolder(dir)
	if err != nil {
		return err
	}
	defer remove()
	fmt.Fprintf(stdout, "Starting the gate, with all that belongs to it in %s\n", folder)
	suspendAfter := suspendAfterPlay
	if once {
		suspendAfter = suspendAfterVisit
	}
	sc, err := writeDemoFiles(folder, suspendAfter)
	if err != nil {
		return err
	}
	if interrupted.Err() != nil {
		return errors.New("interrupted")
	}
	conf, err := configs.Load(sc.config)
	if err != nil {
		return err
	}
	p, err := build(conf, log, lines.lost.Load)
	if err != nil {
		return err
	}
	sc.admin = p.adminLn.Addr().String()

	var side sync.WaitGroup // the relays, and the visitor or who tells of the machines
	defer side.Wait()
	defer end()
	relays, err := newDemoRelays(sc)
	if err != nil {
		return err
	}
	defer func() {
		for _, r := range relays {
			r.ln.Close() // where serve did not come to it
		}
	}()
	var failed error
	err = p.run(ctx, log, func() {
		if interrupted.Err() != nil {
			failed = errors.New("interrupted")
			end()
			return
		}
		for i, a := range p.gate.Addrs() {
			sc.listeners[conf.Listeners[i].Name] = a.String()
		}
		for _, r := range relays {
			side.Go(func() { r.serve(ctx, sc.listeners[listenerProxied], log) })
		}
		if !once {
			sc.tell(stdout)
			side.Go(func() { tellMachines(ctx, p.gate.Machine, stdout) })
			return
		}
		side.Go(func() {
			failed = sc.visit(interrupted, stdout)
			if interrupted.Err() == nil {
				end()
			} // else run knows, too
		})
	})
	end()
	side.Wait()
	if err == nil {
		err = failed
	}
	return err
}

// newDemoRelays binds the two senders of PROXY headers and notes where they listen.
func newDemoRelays(sc *scene) ([]*relay, error) {
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
