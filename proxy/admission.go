// Admission: whom a visitor wants, whether it may try its password, and its way to a session. No connection is needed for it.

package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

// visitor is somebody who wants in, whichever way it comes, until it has a session or is refused. The steps are admit, prove,
// refusal and begin: a handshake takes them for a TCP connection, a Door for whoever brings no connection.
type visitor struct {
	gate    *Gate
	via     *Listener // whose pool mode and timeouts its session gets
	peer    proxyproto.Peer
	secure  bool // nobody could read along on its way here
	shown   identity
	host    string // that it wants to reach, by TLS's server name; "": not named
	startup *pgwire.Startup
	route   tenants.Route
	started time.Time
	trial   trial
	born    chan<- func() // room for one: gets what sends its session away between two transactions; nil: nobody wants to know
}

// admit finds the tenant and says whether the visitor may try its password. conf is nil for an unknown tenant, which nobody is
// told.
func (v *visitor) admit() (conf *tenants.Tenant, err error) {
	g, s := v.gate, v.startup
	claim := tenants.Claim{User: s.User, Database: s.Database, SNI: v.host, Domain: g.opts.TenantDomain}
	filling := g.opts.Directory.Filling()
	if conf, ok := g.opts.Directory.Flycast(v.peer.Destination.Addr()); ok {
		claim.Flycast = conf.ID
	}
	if len(s.References) > 0 {
		claim.Reference = s.References[0]
		claim.ReferenceConflict = slices.ContainsFunc(s.References, func(r string) bool { return r != claim.Reference })
	}
	route, err := tenants.Resolve(claim)
	switch {
	case errors.Is(err, tenants.ErrConflict):
		return nil, deny(denyTwoTenants)
	case err != nil && filling && netrestrict.IsFlycast(v.peer.Destination.Addr()):
		return nil, deny(denyNotRead) // the address may be one of somebody who comes
	case err != nil:
		return nil, deny(denyNoTenant)
	case route.User == "":
		return nil, deny(denyNoUser)
	}
	v.route = route
	conf, known := g.opts.Directory.Tenant(route.Tenant)
	if !known && filling {
		return nil, deny(denyNotRead) // nobody's fault: not a failed login
	}
	a := admission{conf: conf, secure: v.secure, shown: v.shown, user: route.User, now: time.Now(), who: whoIs(&v.peer), clients: g.clients.Load(), most: g.admits.Load()}
	if known && !conf.Residency.ServedIn(g.opts.Region) { // which who may not connect is not told
		return conf, cmp.Or(a.origin(), v.throttled(), error(g.denyRegion(conf)))
	}
	if known {
		if err := a.judge(func() int64 { return g.tenant(conf.ID).admitted.Load() }); err != nil {
			return nil, err
		}
		g.observe(conf, a.now, a.who, route.User)
	}
	if err := v.throttled(); err != nil || !known {
		return conf, err
	}
	return conf, v.tenantRate(conf)
}

// admission is what can be judged of a client before its password, without a
// trace of it anywhere.
type admission struct {
	conf    *tenants.Tenant
	secure  bool // over TLS
	shown   identity
	user    string
	now     time.Time
	who     netrestrict.Who
	clients int64 // of all tenants
	most    int64
}

// judge asks everything: first where it comes from, cheapest first, and then who it is. own counts the tenant's clients, and is
// asked only for those who may come otherwise.
func (a admission) judge(own func() int64) error {
	if err := a.origin(); err != nil {
		return err
	}
	if err := judgeCertificate(a.conf, a.shown, a.user, a.now); err != nil {
		return err
	}
	switch {
	case a.clients >= a.most:
		return deny(denyClients)
	case own() >= int64(a.conf.Pool.MaxClients):
		return deny(denyTenantClients)
	}
	return nil
}

// origin asks where it comes from, and how.
func (a admission) origin() error {
	switch {
	case (a.conf.RequireTLS || a.conf.ClientCAs != nil) && !a.secure:
		return deny(denyTLS)
	case a.conf.Refuses(a.now, a.who):
		return deny(denyAddress, a.who.Address, a.conf.ID)
	}
	return nil
}

// reservation is the place of a visitor that has proved its password. Whoever
// has it gives it to a session or releases it.
type reservation struct {
	tenant *tenant
	conf   *tenants.Tenant
	place  place
}

func (r reservation) release() { r.tenant.gate.release(r.tenant, r.place) }

// refusal says what speaks against the session that the visitor wants, which
// only who has proved a password may know; nil: nothing.
func (v *visitor) refusal(r reservation) error {
	switch {
	case v.gate.disabled(r.conf):
		return deny(denyDisabled)
	case v.startup.Replication != "":
		return nil // see replica.refusal
	case !r.conf.AllowsDatabase(r.place.database):
		return deny(denyDatabase, clip(r.place.database))
	}
	if name := params.StartOnly(v.startup.Params); name != "" {
		return deny(denyStartOnly, name)
	}
	return nil
}

// handover is what a loop needs of a visitor's connection.
type handover struct {
	tls    *tls.Conn  // nil in plaintext
	swap   *loop.Swap // under tls
	early  []byte     // what the client sent ahead
	owed   []byte     // to be written before the greeting
	key    poolKey
	params []pgwire.Param
}

// begin gives the visitor a session on its tenant's loop, which owns the
// descriptor and the place from now on. False: the gate has closed.
func (v *visitor) begin(r reservation, fd int, over handover) bool {
	mode := v.via.Mode
	if r.conf.Pool.Mode != "" {
		mode = r.conf.Pool.Mode
	}
	t, at := r.tenant, r.place
	c := &client{tenant: t, place: at, peer: v.peer, secure: v.secure, database: at.database, mode: parseMode(mode), started: v.started, listener: v.via}
	c.id, c.long = v.gate.ids.Add(1), v.startup.Version == pgwire.Version32
	over.key, over.params = poolKey{at.user, at.database}, v.startup.Params
	if t.post(func() { t.admit(c, fd, over) }) {
		if v.born != nil {
			v.born <- func() { t.post(c.sendAway) }
		}
		return true
	}
	loop.CloseFD(fd)
	r.release()
	return false
}

// denied counts a visitor that gets no session for one of the causes in the table. Others are logged, and there is nothing to
// tell.
func (v *visitor) denied(err error) *denied {
	g := v.gate
	var d *denied
	if !errors.As(err, &d) {
		g.limited.log(g.log, slog.LevelInfo, logKey{cause: "handshake"}, "handshake failed", "client", v.peer.Client.String(), "error", err)
		return nil
	}
	g.count(d.why, v.route.Tenant)
	return d
}

// logDenial comes after the answer, which must not take longer for a tenant
// that exists. It puts the denial on the tenant's list, too.
func (v *visitor) logDenial(d *denied) {
	g := v.gate
	g.list(d.why, v.route.Tenant, v.peer.Client.Addr(), v.route.User)
	g.limited.log(g.log, slog.LevelInfo, g.logKey(v.route.Tenant, d.Error()), "client refused", "client", v.peer.Client.String(), "tenant", clip(v.route.Tenant),
		"user", clip(v.route.User), "cause", d.Error(), "sqlstate", d.told.Code, "message", d.told.Message)
}
