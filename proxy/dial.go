// Logging in to servers: when, as whom, and what follows from a failure.

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// dialMore starts what dials the pools want, and tells those who wait in vain.
func (t *tenant) dialMore() {
	if !t.mayDial() {
		t.awaitMachine()
		return
	}
	now := t.loop.Now()
	for s := t.books.NextConnect(); s != nil; s = t.books.NextConnect() {
		t.connect(s.Owner.(*server))
	}
	for {
		p := t.books.NextDial(now, evict)
		if p == nil {
			break
		}
		t.dial(p.Owner.(*serverPool))
	}
	var again time.Time
	for p := range t.books.Pools() {
		if p.FirstWaiter() == nil {
			continue
		}
		t.failVain(p, now)
		if p.FirstWaiter() == nil {
			continue
		}
		if at := p.RetryAt(); at.After(now) && (again.IsZero() || at.Before(again)) {
			again = at
		}
	}
	t.claimForWaiting()
	if !again.IsZero() {
		d := again.Sub(now)
		if t.redial == nil {
			t.redial = t.loop.AfterFunc(d, t.checked(t.dialMore))
		} else {
			t.redial.Reset(d)
		}
	}
}

// evict closes a server that makes room for another.
func evict(s *pool.Server) { s.Owner.(*server).shut(pool.Evicted.String()) }

// dialSpare starts a dial for every pool that has fewer servers than its least.
func (t *tenant) dialSpare() {
	if !t.mayDial() || t.conf.Pool.Min == 0 {
		return
	}
	for p := range t.books.Pools() {
		if p.WantSpare(t.loop.Now()) {
			t.dial(p.Owner.(*serverPool))
		}
	}
}

// failVain tells those who wait for what cannot be had. Who has waited longest is the first to be told.
func (t *tenant) failVain(p *pool.Pool, now time.Time) {
	for w := p.FirstWaiter(); w != nil; w = p.FirstWaiter() {
		err := p.Failing(w.WaitedSince(), now)
		if err == nil {
			return
		}
		w.Owner.(*client).fail(errDial(err), "no_server")
	}
}

func (t *tenant) failWaiters(p *pool.Pool, e *pgwire.Error) {
	for w := p.FirstWaiter(); w != nil; w = p.FirstWaiter() {
		w.Owner.(*client).fail(e, "no_server")
	}
}

var errNoCredentials = errors.New("no client of this user has proved a password yet, so there is nothing to log in with")

// target says where and as whom to log in; a machine's Postgres is at. Safe for
// concurrent use.
func (t *tenant) target(conf *tenants.Tenant, at machines.Endpoint, user, database string) (backend.Target, error) {
	u, ok := conf.User(user)
	if !ok {
		return backend.Target{}, errNoCredentials
	}
	target := t.targetOf(conf, at)
	target.User, target.Database, target.Auth = u.ServerUser, database, backend.Auth(u.ServerAuth)
	switch {
	case u.ServerAuth == tenants.AuthCert:
	case u.ServerPassword.Reveal() != "":
		target.Credentials.Password = u.ServerPassword.Reveal()
	case u.Password.Reveal() != "":
		target.Credentials.Password = u.Password.Reveal()
	default:
		l := t.brought(user, u.Verifier)
		if l == nil {
			return backend.Target{}, errNoCredentials
		}
		target.Credentials.Key, target.Credentials.Verifier = l.key, l.verifier
	}
	return target, nil
}

// brought is what a client of a user has proved a verifier's password with; nil: none has. Safe for concurrent use.
func (t *tenant) brought(user string, v tenants.Secret) *login {
	t.mu.Lock()
	l := t.logins[user]
	t.mu.Unlock()
	if l == nil || l.key == nil || l.verifier.Encode() != v.Reveal() {
		return nil
	}
	return l
}

// keyPair is what servers are shown, and what it was made of.
type keyPair struct {
	cert string
	key  tenants.Secret
	make func() (*tls.Certificate, error)
}

// shows returns what makes the certificate that an upstream is shown, once, whenever that is needed; nil: there is none. Safe for
// concurrent use.
func (t *tenant) shows(up tenants.Upstream) func() (*tls.Certificate, error) {
	if up.ClientCert == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := &t.keyPair; p.cert != up.ClientCert || p.key != up.ClientKey {
		*p = keyPair{up.ClientCert, up.ClientKey, sync.OnceValues(up.KeyPair)}
	}
	return t.keyPair.make
}

// targetOf is target for nobody yet.
func (t *tenant) targetOf(conf *tenants.Tenant, at machines.Endpoint) backend.Target {
	up := conf.Upstream
	if conf.Machine != nil {
		up.Host, up.Port = at.Host, at.Port
	}
	return backend.Target{Host: up.Host, Port: up.Port, TLS: backend.TLSMode(up.TLS), RootCAs: up.RootCAs, ServerName: up.ServerName,
		Certificate: t.shows(up), Control: t.gate.tuneSocket, Derive: t.bounded}
}

// bounded runs a server's PBKDF2: one at a time per tenant, and no more than
// the process can spare, because the server chooses how long it takes.
func (t *tenant) bounded(ctx context.Context, f func()) error {
	for _, slot := range []chan struct{}{t.derive, t.gate.derive} {
		select {
		case slot <- struct{}{}:
			defer func() { <-slot }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f()
	return nil
}

// dial adds a server to a pool, which connects as soon as it has a place.
func (t *tenant) dial(p *serverPool) {
	s := &server{tenant: t, pool: p, loop: t.loop}
	s.books.Owner = s
	t.servers[s] = struct{}{}
	t.keepSweeping()
	if p.books.StartDial(&s.books, t.loop.Now()) {
		t.connect(s)
	}
}

// connect logs in to a server in a goroutine and gives it to the loop. Without
// anything to log in with those who wait are told so, if there is no server that
// has logged in earlier, which they could get. That is no failure of the server's,
// so that the pool does not pause then: the next client may bring a key.
func (t *tenant) connect(s *server) {
	p := s.pool
	target, err := t.target(t.conf, t.machine.view.Endpoint, p.key.user, p.key.database)
	if err != nil {
		t.gate.limited.log(t.log, slog.LevelWarn, logKey{t.id, "server_login"}, "no server login", "user", clip(p.key.user), "database", clip(p.key.database), "error", err)
		if p.books.Servers() > 1 {
			delete(t.servers, s)
			p.books.DialFailed(&s.books, err, pool.Final, t.loop.Now())
			return
		}
		s.shut("no server login")
		t.failWaiters(p.books, errDial(err))
		return
	}
	s.machine, s.epoch, s.connecting = t.machineKey(), t.machine.view.Epoch, true
	s.target = target
	s.target.Credentials = scram.Credentials{}
	g := t.gate
	if t.shares != nil {
		target.Permit = t.permit
	}
	if !g.spawn(func() {
		ctx, cancel := context.WithTimeout(g.ctx, g.opts.Timeouts.ServerConnect)
		defer cancel()
		start := time.Now()
		conn, err := backend.Dial(ctx, target)
		fd := -1
		if err == nil {
			g.metrics.serverPhase.Observe(time.Since(start).Seconds())
			fd, err = loop.Detach(conn.Net.Conn.(*net.TCPConn))
		}
		if !t.post(func() { t.dialed(s, conn, fd, err) }) && fd >= 0 {
			loop.CloseFD(fd)
		}
	}) {
		t.dialed(s, nil, -1, ErrGateClosed)
	}
}

// dialed is the end of a dial, on the loop. What was given up meanwhile tells
// nothing of the pool.
func (t *tenant) dialed(s *server, conn *backend.Conn, fd int, err error) {
	s.connecting = false
	if s.closing() {
		s.abandonedDial(conn, fd)
		return
	}
	now := t.loop.Now()
	if err == nil {
		err = s.attach(conn, fd)
	}
	if err != nil {
		t.counters.serverLoginsFailed.Add(1)
		kind := failureOf(err)
		reached := !errors.Is(err, errNotGranted)
		t.gate.limited.log(t.log, slog.LevelWarn, logKey{t.id, "server_login"}, "server login failed", "user", clip(s.pool.key.user), "database", clip(s.pool.key.database),
			"retry", kind == pool.Passing, "error", err)
		delete(t.servers, s)
		switch {
		case isNoDatabase(err):
			t.forgetDatabase(s.pool.key.database)
		case kind == pool.Answered:
			s.pool.forget() // nobody is to be greeted who would not be let in
		}
		if kind == pool.Passing && reached && t.machine.holder != nil && s.machine == t.machineKey() {
			t.machine.holder.Lost(s.epoch)
		}
		s.pool.books.DialFailed(&s.books, err, kind, now)
		t.dialMore()
		return
	}
	t.counters.serverLoginsOK.Add(1)
	s.heardAt, s.pool.confirmed = now, now
	s.pool.learn(s.pool.fresh, s.shown)
	s.use(s.pool.books.DialDone(&s.books, now))
}

// failureOf says what a failed login means for the next one.
func failureOf(err error) pool.Failure {
	switch {
	case backend.Retryable(err), errors.Is(err, errNotGranted):
		return pool.Passing
	case backend.Answered(err):
		return pool.Answered
	}
	return pool.Final
}

// isNoDatabase reports whether the server has said that there is no such database.
func isNoDatabase(err error) bool {
	var server *backend.ServerError
	return errors.As(err, &server) && server.Proven && server.Response.Code == "3D000"
}
