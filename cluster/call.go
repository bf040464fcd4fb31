// Calling another node.

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/postern/postern/tenants"
)

// What a call can come to, beside the end of its context and a *RemoteError.
var (
	ErrNoNode   = errors.New("there is no such node, or it takes no calls")
	ErrAway     = errors.New("the node does not answer")
	ErrRefused  = errors.New("the node refuses this one")
	ErrWrongKey = errors.New("who answers there has another key than the node's row") // with ErrAway
	ErrProtocol = errors.New("the node speaks another protocol")
	ErrUnknown  = errors.New("the node does not know what was asked") // it may be one version behind
)

// RemoteError is the error of a handler at another node.
type RemoteError struct{ Node, Text string }

// Error implements error.
func (e *RemoteError) Error() string { return "node " + e.Node + ": " + e.Text }

// Headers of requests and answers.
const (
	headerProtocol = "Postern-Protocol"
	headerWithin   = "Postern-Within" // milliseconds that the caller waits
)

// Call asks another node, and returns its answer. It ends with ctx, whose end the other side's handler hears of as well; if that has no
// deadline, after some seconds. A node that was started again is found under its name, wherever it is.
func (c *Cluster) Call(ctx context.Context, node, what string, body []byte) ([]byte, error) {
	out, err := c.call(ctx, node, what, body)
	c.counts.called(what, "out", resultOf(err))
	return out, err
}

func (c *Cluster) call(ctx context.Context, node, what string, body []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callWait)
		defer cancel()
	}
	row, ok := c.callable(node)
	if !ok { // it may be new
		c.rows.again(ctx)
		if row, ok = c.callable(node); !ok {
			return nil, fmt.Errorf("%s: %w", node, ErrNoNode)
		}
	}
	out, err := c.ask(ctx, row, what, body)
	if err == nil || ctx.Err() != nil || !unsent(err) {
		return out, err
	}
	// Nothing was sent. It may be a new process, under the name and perhaps the address of the one before.
	c.rows.again(ctx)
	now, ok := c.callable(node)
	if !ok || sameRow(now, row) {
		return nil, err
	}
	return c.ask(ctx, now, what, body)
}

func (c *Cluster) callable(node string) (tenants.Node, bool) {
	row, ok := c.rows.named(node)
	return row, ok && row.Boot != c.opts.Boot && row.Address.IsValid() && row.Fingerprint != ""
}

// unsent reports whether a call has failed before the node could have read anything of it.
func unsent(err error) bool {
	var op *net.OpError
	return errors.Is(err, ErrWrongKey) || errors.As(err, &op) && op.Op == "dial"
}

func (c *Cluster) ask(ctx context.Context, row tenants.Node, what string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+row.Address.String()+"/v1/"+what, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	req.Header.Set(headerProtocol, strconv.Itoa(c.protocol))
	req.Header.Set(headerWithin, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	resp, err := c.peers.roundTrip(ctx, row, req)
	if err != nil {
		return nil, c.failure(ctx, row, err)
	}
	defer func() { _ = resp.Body.Close() }()
	c.doubts.resolve(refusedBy(row))
	c.doubts.resolve(keyOf(row))
	if !c.understands(resp.Header) { // it is told even if the other side would have us
		c.refusedProtocol(row.Name, protocolOf(resp.Header))
		return nil, fmt.Errorf("%s: %w", row.Name, ErrProtocol)
	}
	out, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.failure(ctx, row, err)
	case len(out) > maxAnswer:
		return nil, fmt.Errorf("%s: %w: its answer is longer than %d bytes", row.Name, ErrAway, maxAnswer)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return out, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s: %q: %w", row.Name, what, ErrUnknown)
	case http.StatusForbidden:
		return nil, fmt.Errorf("%s: %w", row.Name, ErrRefused)
	case http.StatusUnprocessableEntity:
		return nil, &RemoteError{row.Name, string(out[:min(len(out), maxErrorText)])}
	}
	return nil, fmt.Errorf("%s: %w: it says %s", row.Name, ErrAway, resp.Status)
}

// failure is why a call came to nothing.
func (c *Cluster) failure(ctx context.Context, row tenants.Node, err error) error {
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%s: %w: %w", row.Name, ErrAway, cause)
	}
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" { // of TLS: it has looked at our key
		c.doubtRefusal(row, alert.Err)
		return fmt.Errorf("%s: %w: %w", row.Name, ErrRefused, err)
	}
	if errors.Is(err, ErrWrongKey) {
		c.doubtKey(row)
	}
	return fmt.Errorf("%s: %w: %w", row.Name, ErrAway, err)
}
