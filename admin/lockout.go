// A warning to who would lock out everybody who is connected.

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/postern/postern/tenants"
)

// lockedOut refuses an edit of who may connect that would end all sessions that the tenant has on all nodes, unless the request
// says ?confirm=true. It looks before the change is made, so that no transaction waits for the gate: what somebody else changes
// in between is not looked at. Sessions on nodes that do not answer are not known: they might stay.
type lockedOut struct {
	open    int
	missing []string
}

func (l *lockedOut) Error() string {
	unknown := ""
	if len(l.missing) > 0 {
		unknown = ", beside those on nodes that have not answered: " + strings.Join(l.missing, ", ")
	}
	return fmt.Sprintf("nobody who is connected now could stay: this ends all of the tenant's sessions (%d)%s: say ?confirm=true to do it", l.open, unknown)
}

// sameDoor reports whether two configurations let the same clients in, as far as they are asked about: from the same addresses, in the same regions.
func sameDoor(a, b *tenants.Tenant) bool {
	return a.Allow.Equal(b.Allow) && a.Restrictions == b.Restrictions && slices.Equal(a.Residency.Ingress, b.Residency.Ingress)
}

// noteUnserved logs that no node may serve a tenant that was changed: its clients are refused until one comes.
func (s *Server) noteUnserved(r *http.Request, t *tenants.Tenant) {
	served := func(n tenants.Node) bool { return n.Address.IsValid() && t.Residency.ServedIn(n.Region) }
	if t.Residency.ServedIn(s.opts.Region) || slices.ContainsFunc(s.lastNodes(), served) {
		return
	}
	s.opts.Log.Warn("admin: no node is known in any region that may serve the tenant: its clients are refused", "tenant", t.ID, "regions", t.Residency.Ingress,
		"request", callerOf(r).Request)
}

func (s *Server) warn(r *http.Request, e edit) error {
	if s.opts.Gate == nil || r.URL.Query().Get("confirm") == "true" {
		return nil
	}
	id, err := s.stored(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
	defer cancel()
	rec, err := s.opts.Registry.Tenant(ctx, id)
	lost := errors.Is(err, tenants.ErrUnreadable) // it is in force as it was before, and may have sessions
	if err != nil && !lost {
		return nil // the change itself finds out
	}
	now, err := e(rec.Tenant)
	if err != nil || now == nil || !lost && sameDoor(rec.Tenant, now) {
		return nil
	}
	locked, open, missing, err := s.opts.Gate.LockedOut(ctx, now)
	if err != nil {
		s.opts.Log.Warn("admin: whom a change locks out is not known", "tenant", id, "request", callerOf(r).Request, "error", err)
		return nil
	}
	if open > 0 && locked == open {
		return &lockedOut{open, missing}
	}
	if len(missing) > 0 && locked == open {
		s.opts.Log.Warn("admin: whom a change locks out on other nodes is not known", "tenant", id, "request", callerOf(r).Request, "nodes", missing)
	}
	return nil
}
