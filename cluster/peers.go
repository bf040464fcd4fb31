// The connections to other nodes: one to each, over which all calls go.

package cluster

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

// peers are the connections, by the names of nodes.
type peers struct {
	c     *Cluster
	dials sync.WaitGroup

	mu    sync.Mutex // guards what follows; held briefly
	all   map[string]*peer
	ended bool // nobody is dialed any more
}

// peer is a process that is, or can be, connected to. Who calls while it is being dialed waits for that: a hundred first calls at once are one
// connection.
type peer struct {
	row       tenants.Node
	transport *http.Transport

	mu      sync.Mutex // guards what follows; held briefly
	conn    *http.ClientConn
	dialing *dialing // nil: nobody is
	deaf    *dialing // the last one, if nothing has answered it: it stands for others until deafTo
	deafTo  time.Time
	closed  bool
}

const (
	deafAfter = time.Second     // a dial that takes as long and fails is not tried again
	deafFor   = 2 * time.Second // for as long: callers would wait in vain one after the other
)

// dialing is one try. conn and err are set before done is closed.
type dialing struct {
	done chan struct{}
	conn *http.ClientConn
	err  error
}

func newPeers(c *Cluster) *peers { return &peers{c: c, all: make(map[string]*peer)} }

// roundTrip sends a request to the process that a row is of.
func (p *peers) roundTrip(ctx context.Context, row tenants.Node, req *http.Request) (*http.Response, error) {
	conn, err := p.peer(row).connection(ctx, &p.dials)
	if err != nil {
		return nil, err
	}
	return conn.RoundTrip(req)
}

func (p *peers) peer(row tenants.Node) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := p.all[row.Name]
	if is != nil && sameRow(is.row, row) {
		return is
	}
	if is != nil {
		is.close()
	}
	is = &peer{row: row, transport: p.c.newTransport(row.Fingerprint), closed: p.ended}
	p.all[row.Name] = is
	return is
}

// keep lets go of those whose row is gone or of another process. Those that say to the store that they live are dialed again.
func (p *peers) keep(all []tenants.Node) {
	rows := make(map[string]tenants.Node, len(all))
	for _, n := range all {
		rows[n.Name] = n
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, is := range p.all {
		switch now, ok := rows[name]; {
		case !ok || !sameRow(now, is.row):
			is.close()
			delete(p.all, name)
		case !now.Silent:
			is.mu.Lock()
			is.deaf = nil
			is.mu.Unlock()
		}
	}
}

// close ends all connections, and waits for who dials.
func (p *peers) close() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.keep(nil)
	p.dials.Wait()
}

var errGone = errors.New("the node has another row now")

// connection returns one that is open, or why there is none.
func (p *peer) connection(ctx context.Context, dials *sync.WaitGroup) (*http.ClientConn, error) {
	p.mu.Lock()
	if p.conn != nil && p.conn.Err() == nil {
		defer p.mu.Unlock()
		return p.conn, nil
	}
	if p.closed {
		defer p.mu.Unlock()
		return nil, errGone
	}
	d := p.dialing
	if d == nil && p.deaf != nil && time.Now().Before(p.deafTo) {
		d = p.deaf
	}
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing = d
		dials.Go(func() { p.dial(d) })
	}
	p.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial does not end with who has asked first: others wait for it as well.
func (p *peer) dial(d *dialing) {
	defer close(d.done)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeWait)
	defer cancel()
	began := time.Now()
	d.conn, d.err = p.transport.NewClientConn(ctx, "https", p.row.Address.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing, p.deaf = nil, nil
	switch {
	case d.err != nil:
		if now := time.Now(); now.Sub(began) >= deafAfter {
			p.deaf, p.deafTo = d, now.Add(deafFor)
		}
	case p.closed:
		_ = d.conn.Close()
		d.err = errGone
	default:
		p.conn = d.conn
	}
}

// close ends what is under way, too: the process is not the node any more.
func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// newTransport speaks to whoever has the key, and to nobody else.
func (c *Cluster) newTransport(fingerprint string) *http.Transport {
	only := new(http.Protocols)
	only.SetHTTP2(true)
	return &http.Transport{
		DialContext:     (&net.Dialer{Timeout: peerDial, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig: tlsConfig(c.own, judgeOnly(fingerprint), callProtocol),
		Protocols:       only, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second, WriteByteTimeout: callWait},
	}
}
