// Pauses: a tenant's clients wait, on all nodes where tenants are in a database, and else on the one that was asked.

package admin

import (
	"context"
	"net/http"

	"github.com/postern/postern/tenants"
)

// pauseState is what pause and resume answer.
type pauseState struct {
	Tenant  string   `json:"tenant"`
	Paused  bool     `json:"paused"`
	Applied *applied `json:"applied,omitempty"` // where that is written down, for all nodes
}

func paused(_ context.Context, tenant string) (int, any, error) {
	return http.StatusOK, pauseState{Tenant: tenant, Paused: true}, nil
}

func resumed(_ context.Context, tenant string) (int, any, error) {
	return http.StatusOK, pauseState{Tenant: tenant}, nil
}

func (s *Server) pause() http.HandlerFunc {
	return s.pauses(true, s.change(Gate.Pause, paused))
}

func (s *Server) resume() http.HandlerFunc {
	return s.pauses(false, s.change(Gate.Resume, resumed))
}

// pauses makes a handler that has a tenant's row say whether it is paused. here does that where there are no rows.
func (s *Server) pauses(is bool, here http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rows, err := s.hasRows(r, is)
		switch {
		case err != nil:
			s.refuse(w, r, r.PathValue("id"), err)
			return
		case !rows:
			here(w, r)
			return
		}
		rec, err := s.keepPause(r, is)
		if err != nil {
			s.refuse(w, r, r.PathValue("id"), err)
			return
		}
		reply(w, http.StatusOK, pauseState{rec.Tenant.ID, is, s.applied(r, rec.Version, appliedWait)})
	}
}

// hasRows reports whether tenants are where a change reaches all nodes. It fails if a file says that the tenant is paused, which is
// not to be.
func (s *Server) hasRows(r *http.Request, pause bool) (bool, error) {
	if s.opts.Registry == nil {
		return false, nil
	}
	rec, err := s.record(r)
	if err != nil {
		return false, err
	}
	if rec.Version == 0 && rec.Tenant.Paused && !pause {
		return false, ErrConfigured
	}
	return rec.Version > 0, nil
}

func (s *Server) keepPause(r *http.Request, is bool) (rec tenants.Record, err error) {
	if err := waitQuery(r); err != nil {
		return rec, err
	}
	if err := saysNothingMore(r); err != nil {
		return rec, err
	}
	rec, err = s.commit(r, existing(func(old *tenants.Tenant) (*tenants.Tenant, error) {
		t := *old
		t.Paused = is
		return &t, nil
	}))
	if err != nil || is {
		return rec, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
	defer cancel()
	return rec, s.opts.Gate.Resume(ctx, rec.Tenant.ID)
}
