// The nodes' port: who is let in, and what other nodes may ask.

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// handler answers one kind of call.
type handler struct {
	max int64
	f   func(ctx context.Context, from string, body []byte) ([]byte, error)
}

// Handle has f answer calls of a kind, whose bodies have at most max bytes. It is told which node asks, which is proven. The text of its
// error is told to the caller. ctx ends when the caller has gone or will wait no longer. To be called before Run.
func (c *Cluster) Handle(what string, max int64, f func(ctx context.Context, from string, body []byte) ([]byte, error)) {
	if _, ok := c.handlers[what]; ok {
		panic("BUG: two handlers for " + what)
	}
	c.handlers[what] = handler{max, f}
}

// serve answers other nodes until ctx ends.
func (c *Cluster) serve(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{what}", c.answer)
	let := &door{c: c, in: make(chan net.Conn), closed: make(chan struct{}), addr: c.nodes.Addr()}
	srv := &http.Server{
		Handler: mux, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: handshakeWait, IdleTimeout: idleWait,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 128, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10,
			SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second, WriteByteTimeout: 10 * time.Second},
		ConnState: func(conn net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				c.callers.leave(conn)
			}
		},
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { let.accept(ctx, &all) })
	all.Go(func() {
		<-ctx.Done()
		_ = c.nodes.Close()
		_ = srv.Close()
		c.streams.end()
	})
	if err := srv.Serve(let); err != nil && !errors.Is(err, http.ErrServerClosed) {
		c.log.Error("other nodes' calls are not answered any more", "error", err)
	}
	c.callers.end()
}

// door is the listener of the HTTP server: what comes out of it has shown the key of a node. Handshakes of strangers are few at a time.
type door struct {
	c      *Cluster
	in     chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.in:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return d.addr }

// accept lets in whoever is a node, until the socket is closed.
func (d *door) accept(ctx context.Context, all *sync.WaitGroup) {
	conf := tlsConfig(d.c.own, d.c.admit, d.c.spoken()...)
	for {
		conn, err := d.c.nodes.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.c.log.Error("a connection of another node was not accepted", "error", err)
			timer := time.NewTimer(100 * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !d.c.callers.knock(from, d.c.rows.at) {
			d.c.counts.turnedAway("busy")
			_ = conn.Close()
			continue
		}
		all.Go(func() {
			defer d.c.callers.knocked(from)
			d.handshake(ctx, conn, conf, all)
		})
	}
}

// spoken are the protocols inside TLS that are answered.
func (c *Cluster) spoken() []string {
	if c.serveStream == nil {
		return []string{callProtocol}
	}
	return []string{callProtocol, streamProtocol}
}

func (d *door) handshake(ctx context.Context, conn net.Conn, conf *tls.Config, all *sync.WaitGroup) {
	bound, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	secured := tls.Server(conn, conf)
	if err := secured.HandshakeContext(bound); err != nil {
		_ = conn.Close()
		if stranger := new(strangerError); errors.As(err, stranger) {
			d.c.counts.turnedAway("stranger")
			d.c.doubtStranger(string(*stranger), conn.RemoteAddr().String())
		} else {
			d.c.counts.turnedAway("handshake")
			d.c.log.Debug("refused a connection to the nodes' port", "address", conn.RemoteAddr().String(), "error", err)
		}
		return
	}
	if secured.ConnectionState().NegotiatedProtocol == streamProtocol {
		all.Go(func() { d.c.carry(ctx, secured) })
		return
	}
	if !d.c.callers.enter(secured, fingerprint(secured.ConnectionState().PeerCertificates[0])) {
		d.c.counts.turnedAway("busy")
		_ = conn.Close()
		return
	}
	select {
	case d.in <- secured:
	case <-d.closed:
		d.c.callers.leave(secured)
		_ = conn.Close()
	}
}

// admit judges the key of somebody who calls. One that no row has is asked for once: its node may have started just now.
func (c *Cluster) admit(fingerprint string) error {
	if _, ok := c.rows.pinned(fingerprint); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), rowsEvery)
	defer cancel()
	c.rows.again(ctx)
	if _, ok := c.rows.pinned(fingerprint); ok {
		return nil
	}
	return strangerError(fingerprint)
}

// answer is for a call of a node. It is judged again: its row may be gone since it came.
func (c *Cluster) answer(w http.ResponseWriter, r *http.Request) {
	if !c.callers.begin() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer c.callers.calls.Done()
	what := r.PathValue("what")
	h, known := c.handlers[what]
	from, pinned := c.rows.pinned(fingerprint(r.TLS.PeerCertificates[0]))
	w.Header().Set(headerProtocol, strconv.Itoa(c.protocol))
	switch {
	case !pinned:
		c.counts.turnedAway("stranger")
		w.WriteHeader(http.StatusForbidden)
		return
	case !c.understands(r.Header):
		c.counts.turnedAway("protocol")
		c.refusedProtocol(from.Name, protocolOf(r.Header))
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	case !known:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.max))
	if err != nil {
		c.counts.called(what, "in", "failed")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(r.Context(), within(r.Header))
	defer cancel()
	out, err := c.handle(ctx, what, h, from.Name, body)
	c.counts.called(what, "in", resultOf(err))
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		text := err.Error()
		out = []byte(text[:min(len(text), maxErrorText)])
	}
	_, _ = w.Write(out) // who has gone reads nothing
}

// handle survives what a handler does wrong.
func (c *Cluster) handle(ctx context.Context, what string, h handler, from string, body []byte) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("BUG: answering another node has panicked", "what", what, "node", from, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			out, err = nil, errors.New("the node has failed")
		}
	}()
	return h.f(ctx, from, body)
}

// within is how long the caller waits.
func within(h http.Header) time.Duration {
	ms, err := strconv.ParseInt(h.Get(headerWithin), 10, 64)
	if err != nil || ms < 1 || ms > maxCallWait.Milliseconds() {
		return maxCallWait
	}
	return time.Duration(ms) * time.Millisecond
}

// callers counts who is at the door, who is in, and their calls.
type callers struct {
	calls sync.WaitGroup // that are being answered

	mu       sync.Mutex // guards what follows; held briefly
	ended    bool       // no call is answered any more
	knocking map[netip.Addr]int
	all      int                 // of those
	inside   map[string]int      // connections by key
	conns    map[net.Conn]string // and whose
}

func newCallers() *callers {
	return &callers{knocking: make(map[netip.Addr]int), inside: make(map[string]int), conns: make(map[net.Conn]string)}
}

// begin reports whether a call may be answered still. calls is told when it was.
func (c *callers) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.calls.Add(1)
	}
	return !c.ended
}

// end waits for those that are being answered, whose callers have gone.
func (c *callers) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.calls.Wait()
}

// knock reports whether there is room for another handshake. Strangers leave some for addresses that are known.
func (c *callers) knock(from netip.Addr, known func(netip.Addr) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.knocking[from] >= maxFromOne || c.all >= maxHandshakes && (c.all >= maxHandshakes+maxOfNodes || !known(from)) {
		return false
	}
	c.all++
	c.knocking[from]++
	return true
}

func (c *callers) knocked(from netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.knocking[from]--; c.knocking[from] == 0 {
		delete(c.knocking, from)
	}
}

// enter reports whether another connection of a node may come in.
func (c *callers) enter(conn net.Conn, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside[key] >= maxConns {
		return false
	}
	c.inside[key]++
	c.conns[conn] = key
	return true
}

// leave may be told twice.
func (c *callers) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, ok := c.conns[conn]
	if !ok {
		return
	}
	delete(c.conns, conn)
	if c.inside[key]--; c.inside[key] == 0 {
		delete(c.inside, key)
	}
}
