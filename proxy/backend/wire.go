// A wire is a socket to a server before login: dialed, perhaps inside TLS, bound to one context.

package backend

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

const (
	// maxMessage bounds every message until ReadyForQuery, in bytes of body.
	maxMessage = 64 << 10
	// sslRequest is the code of an SSLRequest, in the place of a version.
	sslRequest = 80877103
)

// past is a deadline that has passed, whatever the clock says.
var past = time.Unix(1, 0)

// wire carries a connection up to ReadyForQuery. Its goroutine owns it; the
// context only moves the socket's deadline, which is safe from anywhere.
type wire struct {
	ctx     context.Context
	stop    func() bool // ends the context's hold on the socket
	swap    *loop.Swap
	tls     *tls.Conn // nil in plaintext
	binding scram.ChannelBinding
	shown   bool          // the server has asked for the target's certificate
	r       *bufio.Reader // over stream(); set when TLS is settled
	buf     []byte        // the body of the message read last
}

// open dials the target and settles TLS. The caller closes the wire.
func open(ctx context.Context, t *Target) (*wire, error) {
	dial := t.Dial
	if dial == nil {
		var d net.Dialer
		d.SetMultipathTCP(false) // Control's options would not hold
		dial = d.DialContext
	}
	conn, err := dial(ctx, "tcp", t.address())
	if err != nil {
		return nil, fmt.Errorf("backend: dial: %w", err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && t.Control != nil {
		t.Control(tcp)
	}
	w := &wire{ctx: ctx, swap: &loop.Swap{Conn: conn}}
	w.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	if t.TLS != TLSDisable {
		if err := w.startTLS(t); err != nil {
			w.close()
			return nil, w.failed("tls", err)
		}
	}
	w.r = bufio.NewReader(w.stream())
	return w, nil
}

// stream is what messages are written to and read from.
func (w *wire) stream() net.Conn {
	if w.tls != nil {
		return w.tls
	}
	return w.swap
}

// close gives everything up. A TLS close_notify would only delay it.
func (w *wire) close() {
	w.stop()
	_ = w.swap.Close()
}

// failed names the phase that err ended, and the context as the cause where it
// was: the socket itself only knows that its deadline passed.
func (w *wire) failed(phase string, err error) error {
	if cause := w.ctx.Err(); cause != nil {
		err = cause
	}
	return fmt.Errorf("backend: %s: %w", phase, err)
}

// startTLS asks for TLS and shakes hands.
func (w *wire) startTLS(t *Target) error {
	request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)
	if _, err := w.swap.Write(request); err != nil {
		return err
	}
	// Room for one byte too many: whoever can write into the plaintext must not
	// be able to put bytes in front of the encrypted stream.
	var answer [2]byte
	n, err := w.swap.Read(answer[:])
	switch {
	case n == 0 && err != nil:
		return err
	case n == 1 && answer[0] == 'S':
	case n == 1 && answer[0] == 'N':
		return ErrTLSRefused
	case n > 1 && answer[0] == 'S':
		return violation("plaintext behind the answer to the TLS request")
	default:
		// An 'E' begins an error message that nobody has authenticated: discarded.
		return violation("the answer to the TLS request begins with byte 0x%02x", answer[0])
	}

	conf := tlsConfig(t)
	if t.Certificate != nil { // whomever the server would have it signed by: that is for the tenant to know
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			w.shown = true
			return t.Certificate()
		}
	}
	w.tls = tls.Client(w.swap, conf)
	if err := w.tls.Handshake(); err != nil {
		return err
	}
	w.binding = scram.EndpointBindingX509(w.tls.ConnectionState().PeerCertificates[0])
	return nil
}

// tlsConfig is the client's side of the target's TLS mode.
func tlsConfig(t *Target) *tls.Config {
	name := t.ServerName
	if name == "" {
		name = t.Host
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: name, // sent as SNI if it is a name, verified in any case
		RootCAs:    t.RootCAs,
		// TLSRequire is documented as encryption without identity, as libpq has it.
		InsecureSkipVerify: t.TLS == TLSRequire,
		// Full records from the start: a loop writes in larger pieces anyway.
		DynamicRecordSizingDisabled: true,
	}
}

// next reads one message. The body is valid until the following call.
func (w *wire) next() (typ byte, body []byte, err error) {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n-4 > maxMessage {
		return 0, nil, violation("a message of type 0x%02x claims %d bytes", head[0], n)
	}
	if int(n-4) > cap(w.buf) {
		w.buf = make([]byte, n-4)
	}
	body = w.buf[:n-4]
	if _, err := io.ReadFull(w.r, body); err != nil {
		return 0, nil, err
	}
	return head[0], body, nil
}

// send writes one or more encoded messages.
func (w *wire) send(b []byte, err error) error {
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	if _, err = w.stream().Write(b); err != nil && w.tls != nil {
		err = w.reason(err)
	}
	return err
}

// reason is why a connection was reset under TLS 1.3, whose handshake is over for the client before the server has judged its
// certificate: the alert that says so lies before the reset, and what we write meanwhile fails first.
func (w *wire) reason(reset error) error {
	if !errors.Is(reset, syscall.ECONNRESET) && !errors.Is(reset, syscall.EPIPE) {
		return reset
	}
	var one [1]byte
	_, err := w.tls.Read(one[:]) // of what has arrived: nothing more comes
	var told *net.OpError
	if errors.As(err, &told) && told.Op == "remote error" { // as crypto/tls names an alert
		return err
	}
	return reset
}

// release takes the socket back from the context and makes sure that no layer
// in user space holds unread bytes: they would become the next client's.
func (w *wire) release() error {
	if !w.stop() {
		return w.ctx.Err() // its deadline may be set at any moment from now on
	}
	if w.r.Buffered() > 0 {
		return violation("bytes behind ReadyForQuery")
	}
	if w.tls != nil {
		// TLS may hold a decrypted or a complete encrypted record. With a passed
		// deadline the read sees exactly those: the socket is not touched, and
		// crypto/tls carries on after a timeout.
		_ = w.swap.SetReadDeadline(past)
		var one [1]byte
		n, err := w.tls.Read(one[:])
		if n > 0 {
			return violation("bytes behind ReadyForQuery")
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("closed behind ReadyForQuery: %w", err)
		}
	}
	return w.swap.SetDeadline(time.Time{})
}
