// Proving the password, over whatever way: SCRAM with a client, real or mock, and what its proof leaves behind.

package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// Proof is how a visitor shows that it has the password of its user: [Password] or [SASL].
type Proof interface {
	// prove says whether it does, and has the throttle count it: see visitor.judge. genuine is false if the verifier is a mock:
	// then it costs the same, and nothing is good enough. final is what a visitor that has proved its password is to be told first.
	// errQuiet: it has gone.
	prove(ctx context.Context, v *visitor, verifier scram.Verifier, genuine bool) (key scram.ClientKey, final []byte, err error)
}

// prove has the visitor prove its password, and reserves a place. conf is nil
// for an unknown tenant, which goes through the same motions as an unknown user.
func (v *visitor) prove(ctx context.Context, conf *tenants.Tenant, p Proof) (r reservation, final []byte, err error) {
	g := v.gate
	start := time.Now()
	if conf != nil && conf.AuthQuery != nil {
		conf = g.awaitRoles(ctx, conf)
	}
	var t *tenant
	if conf != nil {
		t = g.tenant(conf.ID)
	}
	if conf != nil && conf.ClientCert == tenants.CertInstead {
		final, err = v.certified(conf)
	} else {
		final, err = v.provePassword(ctx, t, conf, p)
	}
	switch {
	case errors.Is(err, errQuiet):
		if t != nil {
			t.counters.loginsAborted.Add(1)
		}
		return r, nil, err
	case err != nil:
		if t != nil { // a stranger's tenant gets no series of its own
			t.counters.loginsFailed.Add(1)
		}
		return r, nil, err
	}
	g.metrics.phase.WithLabelValues("auth").Observe(time.Since(start).Seconds())
	r = reservation{t, conf, v.place(conf)}
	if full := g.reserve(ctx, t, conf, r.place); full != nil {
		return r, nil, full
	}
	t.counters.loginsOK.Add(1)
	return r, final, nil
}

// provePassword is prove's question. t is nil for an unknown tenant.
func (v *visitor) provePassword(ctx context.Context, t *tenant, conf *tenants.Tenant, p Proof) (final []byte, err error) {
	verifier, genuine := v.gate.verifier(conf, v.route)
	v.trial = trial{conf, verifier}
	key, final, err := p.prove(ctx, v, verifier, genuine)
	if err != nil {
		return nil, blame(err, t != nil, genuine)
	}
	t.learn(v.route.User, verifier, key)
	return final, nil
}

// certified is in the place of a proof where a tenant wants none beside a certificate, which admit has judged: it has named the
// user, whoever that is. Nobody learns who exists but those who are, by that, the user.
func (v *visitor) certified(conf *tenants.Tenant) (first []byte, err error) {
	if _, ok := conf.User(v.route.User); !ok {
		return nil, deny(denyCertificateOfNobody, clip(v.route.User))
	}
	if u := v.startup; u.Negotiate {
		first = pgwire.AppendNegotiate(nil, u.Version, u.Unrecognized)
	}
	return first, nil
}

// blame says of a login that failed, in the log alone, what was wrong first.
func blame(err error, tenant, user bool) error {
	var d *denied
	if !errors.As(err, &d) || d.why != denyPassword && d.why != denySASL {
		return err
	}
	switch {
	case !tenant:
		return &denied{denyUnknownTenant, d.told}
	case !user && d.why == denyPassword:
		return &denied{denyUnknownUser, d.told}
	}
	return d
}

// judge has the throttle count what a login comes to. It is asked again under
// the same lock, because parallel logins would have a guess each otherwise.
func (v *visitor) judge(login func() error) (err error) {
	var began []Ban
	news := netrestrict.Failures{Tenant: v.route.Tenant, Address: v.peer.Client.Addr()}
	v.gate.throttle.with(func(t throttle) {
		now, tenant, addr := time.Now(), news.Tenant, news.Address
		if err = v.banned(t, now); err != nil {
			return
		}
		if err = login(); err == nil {
			news.Cleared = t.Succeeded(now, tenant, addr)
			return
		}
		d := denyProof(err, v.route.User)
		if d.why == denyPassword && v.gate.doubted(v) {
			began, news.Count = t.Failed(now, tenant, addr), 1
		}
		err = d
	})
	v.gate.began(began)
	v.gate.spread(news)
	if err == nil {
		v.gate.proved(v)
	}
	return err
}

// sasl is a conversation in SASL messages, which nobody reads ahead of.
type sasl struct {
	in      io.Reader
	out     io.Writer
	binding scram.ChannelBinding
}

// prove implements Proof.
func (s sasl) prove(_ context.Context, v *visitor, verifier scram.Verifier, genuine bool) (key scram.ClientKey, final []byte, err error) {
	server, err := scram.NewServer(verifier, genuine, s.binding)
	if err != nil {
		return key, nil, fmt.Errorf("scram: %w", err)
	}
	if u := v.startup; u.Negotiate {
		if err := s.say(pgwire.AppendNegotiate(nil, u.Version, u.Unrecognized)); err != nil {
			return key, nil, err
		}
	}
	if err := s.say(pgwire.AppendSASL(nil, server.Mechanisms())); err != nil {
		return key, nil, err
	}
	body, err := s.hear()
	if err != nil {
		return key, nil, err
	}
	mechanism, initial, err := parseInitial(body)
	if err != nil {
		return key, nil, err
	}
	challenge, err := server.First(mechanism, initial)
	if err != nil {
		return key, nil, denyProof(err, v.route.User)
	}
	if err := s.say(pgwire.AppendSASLContinue(nil, challenge)); err != nil {
		return key, nil, err
	}
	if body, err = s.hear(); err != nil {
		return key, nil, err
	}
	err = v.judge(func() (err error) {
		final, key, err = server.Final(body)
		return err
	})
	if err != nil {
		return scram.ClientKey{}, nil, err
	}
	return key, pgwire.AppendSASLFinal(nil, final), nil
}

func (s sasl) say(b []byte) error {
	if _, err := s.out.Write(b); err != nil {
		return errQuiet
	}
	return nil
}

// hear reads the one kind of message that may come here.
func (s sasl) hear() ([]byte, error) {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return nil, errQuiet
	}
	switch head[0] {
	case pgwire.Password:
	case pgwire.Terminate:
		return nil, errQuiet
	default:
		return nil, denyViolation(fmt.Sprintf("expected SASL response, got message type %d", head[0]))
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > pgwire.MaxPassword {
		return nil, denyViolation("invalid SASL message length")
	}
	body := make([]byte, n-4)
	if _, err := io.ReadFull(s.in, body); err != nil {
		return nil, errQuiet
	}
	return body, nil
}

// parseInitial splits a SASLInitialResponse. initial is nil where the client
// sent none.
func parseInitial(body []byte) (mechanism string, initial []byte, err error) {
	name, rest, ok := pgwire.CString(body)
	if !ok {
		return "", nil, denyViolation("invalid string in message")
	}
	if len(rest) < 4 {
		return "", nil, denyViolation("insufficient data left in message")
	}
	n := int32(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	switch {
	case n == -1 && len(rest) == 0:
		return string(name), nil, nil
	case n < 0 || int(n) > len(rest):
		return "", nil, denyViolation("insufficient data left in message")
	case int(n) < len(rest):
		return "", nil, denyViolation("invalid message format")
	}
	return string(name), rest, nil
}

// denyViolation is for a SASL message that is none.
func denyViolation(message string) *denied { return &denied{denySASL, errViolation(message)} }

// denyProof is for one that the SCRAM exchange has refused.
func denyProof(err error, user string) *denied {
	var e *scram.Error
	if !errors.As(err, &e) || e.Kind == scram.BadProof {
		return deny(denyPassword, clip(user))
	}
	return &denied{denySASL, &pgwire.Error{Severity: pgwire.Fatal, Code: e.Kind.SQLSTATE(), Message: e.Message, Detail: e.Detail}}
}

// verifier finds what to judge a client by. Unknown tenants and users get a
// mock that looks like a real one, the same each time.
func (g *Gate) verifier(conf *tenants.Tenant, r tenants.Route) (scram.Verifier, bool) {
	var known knownRounds
	if conf != nil {
		if u, ok := conf.User(r.User); ok && !(u.Verifier.IsZero() && u.Password.IsZero()) && !g.barred(conf, r.User, time.Now()) {
			if v, err := g.userVerifier(conf, u); err == nil {
				return v, true
			}
		}
		known = g.rounds(conf)
	}
	return g.mock(r.Tenant, r.User, known), false
}

func (g *Gate) userVerifier(conf *tenants.Tenant, u *tenants.User) (scram.Verifier, error) {
	if !u.Verifier.IsZero() {
		return scram.ParseVerifier(u.Verifier.Reveal())
	}
	return g.derived.of(conf, u, g.current, func() (scram.Verifier, error) {
		mac := hmac.New(sha256.New, g.opts.MockSecret)
		fmt.Fprintf(mac, "salt\x00%s\x00%s", conf.ID, u.Name)
		return scram.NewVerifier(u.Password.Reveal(), scram.DefaultIterations, mac.Sum(nil)[:16])
	})
}

// current reports whether a tenant is still what it was when somebody looked.
func (g *Gate) current(conf *tenants.Tenant) bool {
	now, ok := g.conf(conf.ID)
	return ok && now == conf
}

// deriveAhead makes the verifiers before anybody asks, so that the first login
// of a user with a password file takes no longer than any other.
func (g *Gate) deriveAhead() {
	g.toDerive.work(g.ctx, func(id string) {
		conf, ok := g.conf(id)
		if !ok {
			return
		}
		g.rounds(conf)
		for _, u := range conf.Users {
			if g.ctx.Err() != nil {
				return
			}
			if u.Verifier.IsZero() && !u.Password.IsZero() {
				_, _ = g.userVerifier(conf, u)
			}
		}
	})
}

// learn keeps the key that a proof gave away, for logins to the server, for as
// long as the user's verifier stays. A login that began before it changed has
// nothing to give.
func (t *tenant) learn(user string, v scram.Verifier, key scram.ClientKey) {
	if conf, ok := t.gate.conf(t.id); ok {
		if u, ok := conf.User(user); ok && !u.Verifier.IsZero() && u.Verifier.Reveal() != v.Encode() {
			return
		}
	}
	t.mu.Lock()
	l := t.logins[user]
	known := l != nil && l.key != nil && l.verifier.Equal(v)
	if !known {
		t.logins[user] = &login{verifier: v, key: &key}
	}
	t.mu.Unlock()
	if !known {
		t.post(func() { t.learned(user) })
	}
}
