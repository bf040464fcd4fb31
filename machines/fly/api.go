// The calls of the Machines API that Postern makes, and what they answer.

package fly

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/postern/postern/machines"
)

// The calls, as they are named in errors, logs, metrics and the budget.
const (
	opGet     = "get"
	opStart   = "start"
	opWait    = "wait"
	opSuspend = "suspend"
	opStop    = "stop"
	opLease   = "lease"
	opRelease = "release"
)

// waitMax is the longest that the API waits.
const waitMax = time.Minute

// waitGrace is what a wait may take longer than it was told to.
const waitGrace = 5 * time.Second

// Info is a machine as the API shows it, in so far as Postern cares.
type Info struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	State      string  `json:"state"`
	Region     string  `json:"region"`
	InstanceID string  `json:"instance_id"`
	PrivateIP  string  `json:"private_ip"`
	HostStatus string  `json:"host_status"` // ok, unknown or unreachable
	Events     []Event `json:"events"`
}

// Event is something that happened to a machine.
type Event struct {
	Type      string `json:"type"`
	Status    string `json:"status"`
	Source    string `json:"source"`
	Timestamp int64  `json:"timestamp"` // milliseconds since 1970
}

// StartResult is the answer to a start.
type StartResult struct {
	PreviousState string `json:"previous_state"`
	Migrated      bool   `json:"migrated"`
	NewHost       string `json:"new_host"`
}

// done is the answer to a call that has nothing to say.
type done struct {
	OK *bool `json:"ok"`
}

func (d done) check(op string) error {
	if d.OK != nil && !*d.OK {
		return fmt.Errorf("fly: %s: the answer is not ok", op)
	}
	return nil
}

// Get returns a machine.
func (c *Client) Get(ctx context.Context, app, id string) (*Info, error) {
	var i Info
	if err := c.do(ctx, call{op: opGet, method: http.MethodGet, app: app, id: id, into: &i, timeout: callLimit}); err != nil {
		return nil, err
	}
	if i.ID != id || i.State == "" {
		return nil, fmt.Errorf("fly: get: the answer is about machine %.64q in state %.64q", i.ID, i.State)
	}
	return &i, nil
}

// Start starts a machine, or resumes it, and returns before it runs. After an error other than a refusal it may start
// still. nonce is that of a lease of the machine; "": nobody has one.
func (c *Client) Start(ctx context.Context, app, id, nonce string) (StartResult, error) {
	var r StartResult
	err := c.do(ctx, call{op: opStart, method: http.MethodPost, app: app, id: id, action: "start", nonce: nonce, into: &r, timeout: callLimit})
	return r, err
}

// Suspend begins to suspend a machine and returns before it sleeps. Once sent, it is not cut off when ctx ends, but takes
// ten seconds at most. nonce is as of Start.
func (c *Client) Suspend(ctx context.Context, app, id, nonce string) error {
	var d done
	if err := c.do(ctx, call{op: opSuspend, method: http.MethodPost, app: app, id: id, action: "suspend", nonce: nonce, into: &d, timeout: callLimit, uncut: true}); err != nil {
		return err
	}
	return d.check(opSuspend)
}

// stopRequest leaves signal and timeout to the machine's own stop_config.
type stopRequest struct{}

// Stop begins to stop a machine and returns before it has stopped. It ends like Suspend. A suspended machine loses its
// snapshot.
func (c *Client) Stop(ctx context.Context, app, id, nonce string) error {
	var d done
	if err := c.do(ctx, call{op: opStop, method: http.MethodPost, app: app, id: id, action: "stop", nonce: nonce, body: stopRequest{}, into: &d, timeout: callLimit, uncut: true}); err != nil {
		return err
	}
	return d.check(opStop)
}

// leaseRequest asks for a lease of so many seconds.
type leaseRequest struct {
	Description string `json:"description"`
	TTL         int    `json:"ttl"`
}

// leaseAnswer has the nonce that calls which change the machine must show while the lease lasts.
type leaseAnswer struct {
	Data struct {
		Nonce string `json:"nonce"`
	} `json:"data"`
}

// Lease takes Fly's lease of a machine and returns its nonce.
func (c *Client) Lease(ctx context.Context, app, id, description string, ttl time.Duration) (nonce string, err error) {
	var a leaseAnswer
	err = c.do(ctx, call{op: opLease, method: http.MethodPost, app: app, id: id, action: "lease", body: leaseRequest{description, int(ttl / time.Second)}, into: &a, timeout: callLimit})
	if err == nil && !nonceForm.MatchString(a.Data.Nonce) {
		err = errors.New("fly: lease: the answer has no nonce")
	}
	return a.Data.Nonce, err
}

// nonceForm is what fits into a header.
var nonceForm = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,128}$`)

// Release gives a lease back. One that has ended is given back already.
func (c *Client) Release(ctx context.Context, app, id, nonce string) error {
	err := c.do(ctx, call{op: opRelease, method: http.MethodDelete, app: app, id: id, action: "lease", nonce: nonce, timeout: callLimit})
	if kindOf(err) == machines.Gone {
		return nil
	}
	return err
}

// WaitFor says what to wait for.
type WaitFor struct {
	State    string        // started, stopped, suspended or destroyed
	Instance string        // required for stopped: of which incarnation
	Timeout  time.Duration // in whole seconds from 1 to 60
}

// Wait returns when the machine is in the state, or ErrNotYet when the time is over. The API answers the moment the state
// is reached; who wants to know more must ask.
func (c *Client) Wait(ctx context.Context, app, id string, w WaitFor) error {
	timeout := min(max(w.Timeout.Truncate(time.Second), time.Second), waitMax)
	query := url.Values{"state": {w.State}, "timeout": {strconv.Itoa(int(timeout / time.Second))}}
	if w.Instance != "" {
		query.Set("instance_id", w.Instance)
	}
	var d done
	err := c.do(ctx, call{op: opWait, method: http.MethodGet, app: app, id: id, action: "wait", query: query, into: &d, timeout: timeout + waitGrace})
	if err != nil {
		return err
	}
	return d.check(opWait)
}
