// Who may call a route, and who calls it.

package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/postern/postern/tenants"
)

// access says who may call a route.
type access int

// The kinds of access. Where a tenant's scopes are among them, they count for the tenant alone that the path names as {id}.
const (
	everybody access = iota // without a token
	operators
	readers  // and both scopes of the tenant
	writers  // and the write scope of the tenant
	scrapers // and the metrics scope
	watchers // readers and scrapers
)

func (a access) scopes() []tenants.Scope {
	switch a {
	case operators:
		return []tenants.Scope{tenants.ScopeOperator}
	case readers:
		return []tenants.Scope{tenants.ScopeOperator, tenants.ScopeRead, tenants.ScopeWrite}
	case writers:
		return []tenants.Scope{tenants.ScopeOperator, tenants.ScopeWrite}
	case scrapers:
		return []tenants.Scope{tenants.ScopeOperator, tenants.ScopeMetrics}
	case watchers:
		return []tenants.Scope{tenants.ScopeOperator, tenants.ScopeMetrics, tenants.ScopeRead, tenants.ScopeWrite}
	}
	return nil
}

// caller is who asks, and how the audit log calls what is asked.
type caller struct {
	tenants.Actor
	scope  tenants.Scope
	tenant string // of the tenant's scopes
	action string

	meter *meter
	// asked says that the registry was asked to change something: it writes down a refusal itself.
	asked bool
	did   []tenants.Difference // what the gate has done for it, for the audit log
}

// hasDone notes a value that the gate has changed: old and now are JSON, "" where there was or is none.
func (c *caller) hasDone(path, old, now string) {
	c.did = append(c.did, tenants.Difference{Path: path, Old: old, New: now})
}

// isTenants reports whether the token is for one tenant.
func (c *caller) isTenants() bool {
	return c.scope == tenants.ScopeRead || c.scope == tenants.ScopeWrite
}

type callerKey struct{}

// callerOf returns who asks; nil on routes that are for everybody.
func callerOf(r *http.Request) *caller {
	c, _ := r.Context().Value(callerKey{}).(*caller)
	return c
}

// authorized lets through whoever may call the route, as often as they may.
func (s *Server) authorized(rt route, next http.Handler) http.Handler {
	named := strings.Contains(rt.path, "{id}")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.identify(r)
		if err != nil {
			s.turnAway(w, r, err)
			return
		}
		c.action, c.Request = rt.name, w.Header().Get(requestID)
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
		id := r.PathValue("id")
		err = c.meter.take(w.Header())
		switch {
		case err != nil:
		case c.isTenants() && named && id != c.tenant: // as if there were none: what others have is not told
			id, err = "", ErrNoTenant
		case c.isTenants() && !named || !slices.Contains(rt.who.scopes(), c.scope):
			err = &refusal{http.StatusForbidden, "a token of scope " + string(c.scope) + " may not do this"}
		}
		if err != nil {
			s.refuse(w, r, id, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// turnAway answers who has not shown a valid token.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	status, p := problemOf(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="postern"`)
		s.refused.Do(func() {
			s.opts.Log.Warn("admin: request refused; further ones are not logged for a while",
				"error", err, "route", r.Pattern, "peer", r.RemoteAddr, "request", w.Header().Get(requestID))
		})
	}
	setRetry(w.Header(), err)
	respond(w, r, status, p)
}
