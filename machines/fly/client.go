// The client: how one call is made, whatever it is.

package fly

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/postern/postern/files"
	"github.com/postern/postern/machines"
)

const (
	callLimit   = 10 * time.Second // for one call, but a wait
	answerLimit = 4 << 20          // bytes; a machine's config can hold whole files
	errorLimit  = 64 << 10
	suspends    = 8
)

// Options say how the API is reached. BaseURL is required.
type Options struct {
	BaseURL   string            // http://_api.internal:4280 or https://api.machines.dev
	TokenFile string            // read again when it changes; "": every machine has a token of its own, see WithToken
	Transport http.RoundTripper // nil: one with time limits and without proxies
	Log       *slog.Logger      // nil: none
	// Suspends is how many machines may be on their way to sleep at once: Fly advises against many. 0: 8.
	Suspends int
	// OnCall is told of each call, for metrics: op is get, start, wait, suspend, stop, lease or release; result is ok, not_yet (of
	// wait), cancelled, or a [machines.Kind]. It must not block. nil: nobody.
	OnCall func(op, result string)
}

// Client speaks to the Machines API. It is shared by all machines of the process and safe for concurrent use.
type Client struct {
	base     *url.URL
	token    tokens
	http     *http.Client
	log      *slog.Logger
	budget   *budget
	sleeping chan struct{} // a place for each suspend under way
	onCall   func(op, result string)
}

// NewClient checks the options and reads the token for the first time. It calls nobody.
func NewClient(o Options) (*Client, error) {
	base, err := parseBase(o.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("fly: the API's address: %w", err)
	}
	c := &Client{base: base, token: noToken{}, log: o.Log, budget: newBudget(), onCall: o.OnCall}
	if o.TokenFile != "" {
		c.token = &tokenFile{path: o.TokenFile, lane: files.NewLane()}
		if _, err := c.token.current(); err != nil {
			return nil, err
		}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.onCall == nil {
		c.onCall = func(string, string) {}
	}
	if o.Suspends <= 0 {
		o.Suspends = suspends
	}
	c.sleeping = make(chan struct{}, o.Suspends)
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	c.http = &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// WithToken returns the client for a machine that may have a token of its own: own is asked at each call, and where it says ""
// the client's counts. All else they share.
func (c *Client) WithToken(own func() string) *Client {
	with := *c
	with.token = ownToken{own, c.token}
	return &with
}

// String says where the API is.
func (c *Client) String() string { return "Fly's Machines API at " + c.base.Host }

// Format keeps everything else out of every verb.
func (c *Client) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue keeps everything else out of logs.
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Close closes idle connections. Calls under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// newTransport has no limit for the answer's header: a wait takes as long as it was told to, and every call has its own.
func newTransport() *http.Transport {
	dialer := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	dialer.SetMultipathTCP(false) // on which options have no effect
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// parseBase accepts an address that the token may be sent to: https, or http inside a private network.
func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("it is no URL") // url's own error repeats it, with the password that may be in it
	}
	switch {
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("it names no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("it may only have a scheme, a host and a port")
	case u.Scheme == "https":
	case u.Scheme != "http":
		return nil, errors.New("it must begin with https:// or http://")
	case !private(u.Hostname()):
		return nil, errors.New("http is only for a private network: the token would travel in the open")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func private(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".internal") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsLoopback() || ip.IsPrivate())
}

// nameForm is what app names and machine ids look like; nothing that fits it can change the path of a request.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// call is one call.
type call struct {
	op, method string
	app, id    string
	action     string // the last part of the path; may be empty
	query      url.Values
	body       any           // sent as JSON; nil: none
	into       any           // where the answer goes; nil: it says nothing
	nonce      string        // of the lease under which it is made; "": none
	timeout    time.Duration // once its turn has come
	uncut      bool          // ctx may end the wait for its turn, but not the call
}

// do makes the call. A token that is refused is read again and, if it has changed, tried once more.
func (c *Client) do(ctx context.Context, k call) error {
	if !nameForm.MatchString(k.app) || !nameForm.MatchString(k.id) {
		return fmt.Errorf("fly: %s: %q and %q are no names of an app and a machine", k.op, k.app, k.id)
	}
	began := time.Now()
	t, tokenErr := c.token.current()
	if t == "" {
		err := &machines.Error{Kind: machines.Auth, Err: fmt.Errorf("fly: %s: %w", k.op, tokenErr)}
		c.tell(ctx, k, err, time.Since(began))
		return err
	}
	err := c.once(ctx, k, t)
	var refused *APIError
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		var now token
		if now, tokenErr = c.token.reread(); now != t && now != "" {
			err = c.once(ctx, k, now)
		}
	}
	if k.op == opWait && errors.As(err, &refused) && refused.Status == http.StatusRequestTimeout {
		err = ErrNotYet
	}
	if tokenErr != nil {
		c.log.Warn("the token file of Fly cannot be read; the token that is known is used", "error", tokenErr)
	}
	c.tell(ctx, k, err, time.Since(began))
	return err
}

// once waits for a turn and sends the request one time.
func (c *Client) once(ctx context.Context, k call, t token) error {
	if err := c.budget.take(ctx, spender{k.app, k.id, k.op}); err != nil {
		return fmt.Errorf("fly: %s: %w", k.op, err)
	}
	inner := ctx
	if k.uncut {
		inner = context.WithoutCancel(ctx)
	}
	inner, cancel := context.WithTimeout(inner, k.timeout)
	defer cancel()
	req, err := c.request(inner, k, t)
	if err != nil {
		return fmt.Errorf("fly: %s: %w", k.op, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.noAnswer(ctx, k, err)
	}
	defer resp.Body.Close()
	var limit int64 = answerLimit
	if resp.StatusCode/100 != 2 {
		limit = errorLimit
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if resp.StatusCode/100 != 2 {
		return refusal(k.op, t, resp, body) // as much as came of it
	}
	if err != nil {
		return c.noAnswer(ctx, k, err)
	}
	if int64(len(body)) > limit {
		return fmt.Errorf("fly: %s: the answer is longer than %d bytes [request %s]", k.op, limit, requestID(t, resp))
	}
	if k.into == nil {
		return nil
	}
	// Whatever is decoded may be printed one day.
	if err := json.Unmarshal([]byte(t.scrub(string(body))), k.into); err != nil {
		return fmt.Errorf("fly: %s: not an answer of the Machines API: %w [request %s]", k.op, err, requestID(t, resp))
	}
	return nil
}

// request builds the request.
func (c *Client) request(ctx context.Context, k call, t token) (*http.Request, error) {
	u := c.base.JoinPath("v1", "apps", k.app, "machines", k.id, k.action)
	u.Path = strings.TrimRight(u.Path, "/") // where there is no action
	u.RawQuery = k.query.Encode()
	var body io.Reader
	if k.body != nil {
		b, err := json.Marshal(k.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", t.header())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "postern")
	if k.nonce != "" {
		req.Header.Set("Fly-Machine-Lease-Nonce", k.nonce)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// noAnswer is the error of a call of which it is not known whether it was done.
func (c *Client) noAnswer(ctx context.Context, k call, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("fly: %s: %w", k.op, context.Cause(ctx))
	}
	var u *url.Error
	if errors.As(err, &u) { // the method and the address say nothing new
		err = u.Err
	}
	return fmt.Errorf("fly: %s: no answer: %w", k.op, err)
}

// tell reports a call to the log and the metrics.
func (c *Client) tell(ctx context.Context, k call, err error, took time.Duration) {
	result, level := "ok", slog.LevelDebug
	switch {
	case err == nil:
	case errors.Is(err, ErrNotYet):
		result = "not_yet"
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		result = "cancelled"
	default:
		result, level = kindOf(err).String(), slog.LevelInfo
	}
	c.onCall(k.op, result)
	attrs := []slog.Attr{slog.String("call", k.op), slog.String("app", k.app), slog.String("machine", k.id), slog.String("result", result), slog.Float64("seconds", took.Seconds())}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	c.log.LogAttrs(context.WithoutCancel(ctx), level, "call of Fly's Machines API", attrs...)
}
