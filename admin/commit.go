// Changes: how what a route wants of a tenant becomes an edit in the store, and what is answered when it is in force.

package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/postern/postern/tenants"
)

// appliedWait is how long the answer to a change waits until the change is in force everywhere.
const appliedWait = time.Second

// edit makes of a tenant that is there, or not (nil), what shall be there. It must not change old.
type edit func(old *tenants.Tenant) (*tenants.Tenant, error)

// existing is an edit of a tenant that must be there.
func existing(e func(old *tenants.Tenant) (*tenants.Tenant, error)) edit {
	return func(old *tenants.Tenant) (*tenants.Tenant, error) {
		if old == nil {
			return nil, tenants.ErrNoSuchTenant
		}
		return e(old)
	}
}

// commit has the store change the tenant that the path names, if it is what the request's conditions say.
func (s *Server) commit(r *http.Request, e edit) (tenants.Record, error) {
	when, err := conditionOf(r)
	if err != nil {
		return tenants.Record{}, err
	}
	rec, _, err := s.commitIf(r, when, e)
	return rec, err
}

// commitIf does so if the tenant is what the condition says. created says that it was not there.
func (s *Server) commitIf(r *http.Request, when condition, e edit) (rec tenants.Record, created bool, err error) {
	c := callerOf(r)
	id, err := s.stored(r)
	if err != nil {
		return rec, false, err
	}
	if when.mustExist {
		e = existing(e)
	}
	size := 0
	if c.isTenants() {
		e = asOwner(e, func(changes []tenants.Difference) error {
			size = sizeOf(changes)
			return c.meter.room(size)
		})
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	c.asked = true
	rec, err = s.opts.Registry.Change(ctx, tenants.Edit{By: c.Actor, Action: c.action, Tenant: id, Match: when.match, Unread: when.unread,
		Unnoted: c.meter.refused.Tokens() < 1,
		Edit: func(old *tenants.Tenant) (*tenants.Tenant, error) {
			created = old == nil
			return e(old)
		}})
	if err == nil {
		c.meter.changed(size)
	} else {
		c.meter.refused.Allow() // so many, and no more, are written down
	}
	if errors.Is(err, tenants.ErrTaken) { // which If-None-Match has asked about
		err = &refusal{http.StatusPreconditionFailed, tenants.ErrTaken.Error()}
	}
	s.note(r, id, err)
	return rec, created, err
}

// stored returns the tenant's id that the path names, for those who ask the store about it.
func (s *Server) stored(r *http.Request) (string, error) {
	if err := s.hasStore(); err != nil {
		return "", err
	}
	return tenantOf(r)
}

// storeContext bounds a question to the store.
func (s *Server) storeContext(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), storeTimeout)
}

func (s *Server) hasStore() error {
	if s.opts.Registry == nil {
		return &refusal{http.StatusServiceUnavailable, "this process has no store"}
	}
	return nil
}

// applied says where a change is in force.
type applied struct {
	Everywhere bool     `json:"everywhere"`
	At         *string  `json:"at"`      // since when
	Missing    []string `json:"missing"` // nodes that have not said so
}

// applied waits until a change is in force on every node, or for as long as wait says, and says where it is; nil: that cannot be
// told. With ?wait=0 it does not wait. The change is done, whatever happens here.
func (s *Server) applied(r *http.Request, version int64, wait time.Duration) *applied {
	if r.URL.Query().Get("wait") == "0" {
		wait = 0
	}
	a, ok := s.inForce(r, version, wait)
	if !ok {
		return nil
	}
	return &applied{a.Everywhere, instant(a.At), append([]string{}, a.Missing...)}
}

// inForce waits for a while until a version is in force on every node, and says where it is, if that can be told.
func (s *Server) inForce(r *http.Request, version int64, wait time.Duration) (a tenants.Applied, ok bool) {
	if version == 0 {
		return a, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait+storeTimeout)
	defer cancel()
	until := time.Now().Add(wait)
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		a, err := s.opts.Registry.Applied(ctx, version)
		if err != nil {
			s.opts.Log.Warn("admin: whether a change is in force is not known", "version", version, "request", callerOf(r).Request, "error", err)
			return a, false
		}
		left := time.Until(until)
		if a.Everywhere || left <= 0 {
			return a, true
		}
		select {
		case <-time.After(min(pause, left)):
		case <-ctx.Done():
			return a, false
		}
	}
}

// waitQuery are the parameters of every change, and what else this one has.
func waitQuery(r *http.Request, more ...string) error {
	q, err := query(r, append(more, "wait")...)
	if err == nil && q.Has("wait") && q.Get("wait") != "0" && q.Get("wait") != "1" {
		err = bad("wait must be 0 or 1")
	}
	if err == nil && q.Has("confirm") && q.Get("confirm") != "true" && q.Get("confirm") != "false" {
		err = bad("confirm must be true or false")
	}
	return err
}
