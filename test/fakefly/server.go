// The server: its making, its end, and what every call goes through.

package fakefly

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// DefaultToken is the token of a server that was given none.
const DefaultToken = "fo1_the-token-of-the-fake"

// Options change what a server does by default.
type Options struct {
	Token     string // "": DefaultToken
	Unlimited bool   // no 429 of its own
	NoSocket  bool   // only Transport leads to it, and machines have no network: for testing/synctest

	// Address is the private address of machines that do not move; zero: each has one of its own in 127/8.
	Address netip.Addr

	// How long a transition takes beside the VM's own work.
	Boot, Resume, Suspend, Stop time.Duration
}

// Server is the API. Its methods may be called from any goroutine.
type Server struct {
	URL string // where it listens; with NoSocket a name that leads nowhere

	t      testing.TB
	opts   Options
	ctx    context.Context // ends with the server
	cancel context.CancelFunc
	wg     sync.WaitGroup // transitions
	http   *httptest.Server

	mu         sync.Mutex // guards what follows, and the machines
	token      string
	known      map[string]bool   // tokens that are or were valid
	apps       map[string]string // the valid tokens of apps that have one of their own
	tokenFile  string
	machines   []*Machine
	limits     map[string]*rate.Limiter
	faults     []*fault
	arrived    []Call
	calls      []Call
	requests   int
	violations []string
	lenient    bool
	changed    chan struct{} // closed and replaced at each change of a machine
}

// New starts a server that ends with the test. Make it after the clusters that it is to run.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Token == "" {
		o.Token = DefaultToken
	}
	s := &Server{t: t, opts: o, token: o.Token, known: map[string]bool{o.Token: true}, apps: map[string]string{}, limits: map[string]*rate.Limiter{}, changed: make(chan struct{}), URL: "http://fakefly.internal:4280"}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	if !o.NoSocket {
		s.http = httptest.NewServer(s)
		s.URL = s.http.URL
	}
	t.Cleanup(s.end)
	return s
}

func (s *Server) end() {
	s.cancel()
	if s.http != nil {
		s.http.Close()
	}
	s.wg.Wait()
	for _, m := range s.machines {
		m.end()
	}
	if !s.lenient {
		for _, v := range s.violations {
			s.t.Errorf("fakefly: %s", v)
		}
	}
}

// violate records what no client may do. Called with mu held.
func (s *Server) violate(format string, args ...any) {
	s.violations = append(s.violations, fmt.Sprintf(format, args...))
}

// TokenFile returns a file with the token, which SetToken rewrites.
func (s *Server) TokenFile() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokenFile == "" {
		s.tokenFile = filepath.Join(s.t.TempDir(), "fly.token")
		s.writeToken()
	}
	return s.tokenFile
}

func (s *Server) writeToken() {
	if err := os.WriteFile(s.tokenFile, []byte(s.token+"\n"), 0o600); err != nil {
		s.t.Error(err)
	}
}

// SetToken makes another token the valid one. The one before is refused, but using it is no violation. file says whether
// TokenFile changes, too.
func (s *Server) SetToken(token string, file bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.known[token] = token, true
	if file && s.tokenFile != "" {
		s.writeToken()
	}
}

// SetAppToken makes a token the only valid one for an app, and valid for no other. The one before is refused from now on, as with
// SetToken.
func (s *Server) SetAppToken(app, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[app], s.known[token] = token, true
}

// answer is what a call is answered.
type answer struct {
	status int
	body   string
	header http.Header
}

func errorAnswer(status int, format string, args ...any) answer {
	return answer{status: status, body: fmt.Sprintf(`{"error":%s}`, strconv.Quote(fmt.Sprintf(format, args...)))}
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	q, routed := parse(r)
	c := Call{At: began, Action: q.action, App: q.app, Machine: q.id, Method: r.Method, Path: r.URL.Path}
	s.mu.Lock()
	s.arrived = append(s.arrived, c)
	s.requests++
	id := fmt.Sprintf("01FAKE%06d-lo", s.requests)
	a, f := s.admit(r, q, routed)
	s.mu.Unlock()
	defer func() {
		c.Took = time.Since(began)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls = append(s.calls, c)
	}()
	if a.status == 0 {
		a = s.perform(r, q, f)
	}
	if f.Lost != NotLost || a.status == 0 {
		panic(http.ErrAbortHandler)
	}
	c.Status = a.status
	for _, h := range []http.Header{a.header, f.Header} {
		for name, values := range h {
			w.Header()[name] = values
		}
	}
	w.Header().Set("fly-request-id", id)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	if f.Truncate {
		_, _ = io.WriteString(w, a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(w, a.body)
}

// admit refuses what never gets as far as a machine, and else says which fault the call meets. Called with mu held.
func (s *Server) admit(r *http.Request, q request, routed answer) (answer, Fault) {
	if routed.status != 0 {
		s.violate("%s %s: %s", r.Method, r.URL.Path, routed.body)
		return routed, Fault{}
	}
	if a := s.authorize(r, q.app); a.status != 0 {
		return a, Fault{}
	}
	if !s.allow(q) {
		return errorAnswer(http.StatusTooManyRequests, "rate limit exceeded"), Fault{}
	}
	if f := s.fault(q.action, q.id); f != nil {
		return answer{}, *f
	}
	return answer{}, Fault{}
}

func (s *Server) authorize(r *http.Request, app string) answer {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	macaroon := strings.HasPrefix(token, "fm2_")
	if (scheme != "Bearer" && scheme != "FlyV1") || (scheme == "FlyV1") != macaroon || !s.known[token] {
		s.violate("%s %s: a wrong Authorization header", r.Method, r.URL.Path)
		return errorAnswer(http.StatusUnauthorized, "unauthorized")
	}
	valid, own := s.apps[app]
	if !own {
		valid = s.token
	}
	if token != valid {
		return errorAnswer(http.StatusUnauthorized, "unauthorized")
	}
	return answer{}
}

// allow enforces the documented limits.
func (s *Server) allow(q request) bool {
	if s.opts.Unlimited {
		return true
	}
	key := q.app + "/" + q.id + "/" + q.action
	l := s.limits[key]
	if l == nil {
		l = rate.NewLimiter(1, 3)
		if q.action == Get {
			l = rate.NewLimiter(5, 10)
		}
		s.limits[key] = l
	}
	return l.Allow()
}

// perform does the work of a call and lets its fault change it. A status of 0 is no answer.
func (s *Server) perform(r *http.Request, q request, f Fault) answer {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return answer{}
		case <-s.ctx.Done():
			return answer{}
		}
	}
	if f.Hold != nil {
		select {
		case <-f.Hold: // the call is done, even if nobody waits for it any more
		case <-s.ctx.Done():
			return answer{}
		}
	}
	if f.Lost == LostBefore {
		return answer{}
	}
	var a answer
	if f.Status == 0 || f.Work {
		a = s.work(r.Context(), q)
	}
	if f.Status != 0 {
		a = answer{status: f.Status, body: f.Body}
	} else if f.Body != "" {
		a.body = f.Body
	}
	return a
}

// Transport leads to the server without a socket.
func (s *Server) Transport() http.RoundTripper { return transport{s} }

type transport struct{ s *Server }

// RoundTrip runs the handler, and ends early when the request's context does.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	in := r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	aborted := make(chan bool, 1)
	go func() {
		defer func() {
			p := recover()
			if err, ok := p.(error); p != nil && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
				panic(p)
			}
			aborted <- p != nil
		}()
		t.s.ServeHTTP(rec, in)
	}()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case cut := <-aborted:
		if cut && rec.Body.Len() == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		resp := rec.Result()
		if cut {
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(rec.Body.Bytes()), cutReader{}))
		}
		return resp, nil
	}
}

// cutReader is where a truncated body ends.
type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
