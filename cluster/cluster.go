// The cluster as a process has it: opened once, run until the process ends.

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/postern/postern/files"
	"github.com/postern/postern/tenants"
)

// Cluster is this node among others. Its methods may be called by any number of goroutines.
type Cluster struct {
	opts     Options
	protocol int
	log      *slog.Logger
	keys     *Keys
	own      tls.Certificate
	print    string // fingerprint of own
	gossip   *transport
	nodes    *net.TCPListener
	rows     *rows
	members  *members
	lines    limiter
	doubts   *doubts
	crowd    int // nodes, when there were too many by the rows that were read last; 0: there were not. Of who reads them
	leaving  atomic.Bool

	handlers map[string]handler // by what is asked; of before Run
	callers  *callers
	peers    *peers
	greeted  *greetings
	counts   *counts
	streams  *streams

	serveStream func(ctx context.Context, s *Stream) // of before Run; nil: none is let in

	mu   sync.Mutex
	list *memberlist.Memberlist // while it runs
}

// Open binds both ports and makes the node's certificate. Nothing runs yet, and nobody is told.
func Open(o Options) (*Cluster, error) {
	if !nodeName.MatchString(o.Name) || !nodeName.MatchString(o.Boot) || o.Region != "" && !nodeName.MatchString(o.Region) {
		return nil, errors.New("cluster: names of nodes, boots and regions are letters, digits and any of . : _ -, 64 at most")
	}
	c := &Cluster{opts: o, protocol: Protocol, log: o.Log, members: newMembers(gossipName(o.Name, o.Boot), o.Log), rows: newRows(o.Nodes, o.Log), handlers: make(map[string]handler),
		counts: newCounts(), streams: newStreams(), doubts: newDoubts()}
	if o.protocol != 0 {
		c.protocol = o.protocol
	}
	if c.opts.lookup == nil {
		c.opts.lookup = lookup
	}
	c.callers, c.peers, c.greeted = newCallers(), newPeers(c), newGreetings()
	c.rows.changed, c.rows.tried = c.took, func() { c.doubts.judge(time.Now()) }
	c.Handle(hello, 0, c.answerHello)
	c.Handle(leaving, 0, c.hearLeaving)
	var err error
	if c.keys, err = ReadKeys(o.KeyFile); err != nil {
		return nil, err
	}
	if c.own, err = makeCertificate(); err != nil {
		return nil, fmt.Errorf("cluster: the certificate of this node: %w", err)
	}
	c.print = fingerprint(c.own.Leaf)
	if err := c.bind(); err != nil {
		return nil, err
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(collector{c}); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// bindTries is how often a free pair of ports is looked for, where any will do.
const bindTries = 200

func (c *Cluster) bind() error {
	host, port, err := splitBind(c.opts.Bind)
	if err != nil {
		return err
	}
	family := ""
	if addr, err := netip.ParseAddr(host); err == nil {
		family = "6"
		if addr.Is4() {
			family = "4"
		}
	}
	for try := 1; ; try++ {
		err = c.bindPair(host, port, family)
		if taken := errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, errLastPort); !taken || port != 0 || try == bindTries {
			return err
		}
	}
}

var errLastPort = errors.New("cluster.bind: no port is left for other nodes' calls")

func splitBind(bind string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(bind)
	if err != nil {
		return "", 0, fmt.Errorf("cluster.bind: %w", err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 65535 {
		return "", 0, errors.New("cluster.bind: the port must be a number below 65535: the next one is needed, too")
	}
	return host, uint16(n), nil
}

func (c *Cluster) bindPair(host string, port uint16, family string) (err error) {
	var bound []interface{ Close() error }
	defer func() {
		if err != nil {
			for _, b := range bound {
				_ = b.Close()
			}
		}
	}()
	var conf net.ListenConfig
	conf.SetMultipathTCP(false)
	at := func(port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	tcp, err := conf.Listen(context.Background(), "tcp"+family, at(port))
	if err != nil {
		return fmt.Errorf("cluster.bind: %w", err)
	}
	bound = append(bound, tcp)
	where := tcp.Addr().(*net.TCPAddr).AddrPort()
	udp, err := conf.ListenPacket(context.Background(), "udp"+family, at(where.Port()))
	if err != nil {
		return fmt.Errorf("cluster.bind: %w", err)
	}
	bound = append(bound, udp)
	if where.Port() == 65535 {
		return errLastPort
	}
	nodes, err := conf.Listen(context.Background(), "tcp"+family, at(where.Port()+1))
	if err != nil {
		return fmt.Errorf("cluster.bind: the port for other nodes' calls, which is the next one: %w", err)
	}
	bound = append(bound, nodes)
	told := c.opts.Advertise
	if !told.Addr().IsValid() {
		told = netip.AddrPortFrom(where.Addr(), told.Port())
	}
	if told.Port() == 0 {
		told = netip.AddrPortFrom(told.Addr(), where.Port())
	}
	told = netip.AddrPortFrom(told.Addr().Unmap(), told.Port())
	if told.Addr().IsUnspecified() || told.Port() == 65535 {
		return errors.New("cluster.advertise: others must be told one address at which they reach this node")
	}
	c.nodes = nodes.(*net.TCPListener)
	c.gossip = newTransport(tcp.(*net.TCPListener), udp.(*net.UDPConn), told, c.keys.ring, c.warn)
	c.gossip.known = c.rows.at
	return nil
}

// Close frees the ports of a cluster that was not run.
func (c *Cluster) Close() error { return errors.Join(c.gossip.Shutdown(), c.nodes.Close()) }

// Here is what the store is told of this node.
func (c *Cluster) Here() tenants.Here {
	at := c.gossip.advertise
	return tenants.Here{Address: netip.AddrPortFrom(at.Addr(), at.Port()+1), Gossip: at, Fingerprint: c.print, Region: c.opts.Region,
		Protocol: c.protocol, Leaving: c.leaving.Load()}
}

// Boot is the boot of this process.
func (c *Cluster) Boot() string { return c.opts.Boot }

// Name is the name of this node: that of its row, which is another than it was opened with if another process had that already.
func (c *Cluster) Name() string {
	if row, ok := c.rows.booted(c.opts.Boot); ok {
		return row.Name
	}
	return c.opts.Name
}

// Nodes are the rows of the store as they were read last, this node's among them. The result is shared and must not be changed.
func (c *Cluster) Nodes() []tenants.Node { return c.rows.list() }

// Run takes part until ctx ends, then says goodbye. It returns when everything that it started has ended, but for what memberlist is in
// the middle of, which ends within a second.
func (c *Cluster) Run(ctx context.Context) {
	running, end := context.WithCancel(context.WithoutCancel(ctx)) // calls are answered until the goodbye is said
	var all sync.WaitGroup
	defer c.peers.close()
	defer all.Wait()
	defer end()
	all.Go(func() { c.rows.run(running) })
	all.Go(func() { c.serve(running) })
	all.Go(func() {
		files.Watch{What: "key file of the cluster", Paths: func() []string { return []string{c.opts.KeyFile} }, Log: c.log, Changed: c.ReloadKeys}.Run(running)
	})
	all.Go(func() { c.greet(running) })

	c.gossip.start()
	list, err := memberlist.Create(c.gossipConfig())
	if err != nil {
		c.log.Error("there is no gossip: other nodes are only known from the store", "error", err)
		defer func() { _ = c.gossip.Shutdown() }()
		<-ctx.Done()
		return
	}
	c.setList(list)
	all.Go(func() { c.join(running, list) })
	c.log.Info("cluster", "node", c.opts.Name, "gossip", c.gossip.advertise.String(), "nodes", c.Here().Address.String(), "region", c.opts.Region,
		"first_key", c.keys.now.Load().digest())
	<-ctx.Done()
	c.setList(nil)
	if context.Cause(ctx) != errNoGoodbye {
		if err := list.Leave(goodbyeWait); err != nil {
			c.log.Debug("the gossip was not told that this node has ended", "error", err)
		}
	}
	if err := list.Shutdown(); err != nil {
		c.log.Debug("the gossip has not ended in order", "error", err)
	}
}

// errNoGoodbye ends a cluster as a crash would, in tests.
var errNoGoodbye = errors.New("no goodbye")

func (c *Cluster) setList(l *memberlist.Memberlist) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = l
}

// Leave says at once that this node drains: it serves those that it has, and takes no more.
func (c *Cluster) Leave(ctx context.Context) {
	if c.leaving.Swap(true) {
		return
	}
	if c.opts.Announce != nil {
		c.opts.Announce()
	}
	var told sync.WaitGroup
	defer told.Wait()
	told.Go(func() { c.leave(ctx) })
	c.mu.Lock()
	list := c.list
	c.mu.Unlock()
	if list == nil {
		return
	}
	within := goodbyeWait
	if deadline, ok := ctx.Deadline(); ok {
		within = max(min(within, time.Until(deadline)), time.Millisecond) // 0 would be for ever
	}
	if err := list.UpdateNode(within); err != nil {
		c.log.Debug("the gossip was not told that this node drains", "error", err)
	}
}

// took looks at rows that were just read.
func (c *Cluster) took(all []tenants.Node) {
	c.peers.keep(all)
	c.streams.keep(all)
	c.greeted.keep(all)
	alive := 0
	for _, n := range all {
		if n.Address.IsValid() && !n.Silent {
			alive++
		}
	}
	crowd := 0
	if c.opts.MaxNodes > 0 && alive > c.opts.MaxNodes {
		crowd = alive
	}
	if crowd > 0 && crowd != c.crowd { // not with every reading
		c.warn("more nodes than cluster.max_nodes: limits of tenants may be exceeded while the store is away", "nodes", alive, "max_nodes", c.opts.MaxNodes)
	}
	c.crowd = crowd
}

// sameRow reports whether two rows are of one process.
func sameRow(a, b tenants.Node) bool {
	return a.Boot == b.Boot && a.Address == b.Address && strings.EqualFold(a.Fingerprint, b.Fingerprint)
}
