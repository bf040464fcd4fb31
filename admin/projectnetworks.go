// Network restrictions as Supabase's clients read and change them. What they know nothing of is left as it is.

package admin

import (
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

// restrictionsView is the answer, in one of the two shapes.
type restrictionsView struct {
	Entitlement string  `json:"entitlement"`
	Config      any     `json:"config"`
	OldConfig   any     `json:"old_config,omitempty"` // in the answer to a change, while Status is stored: what was there before
	Status      string  `json:"status"`               // stored, or applied: in force on every node
	UpdatedAt   *string `json:"updated_at,omitempty"`
	AppliedAt   *string `json:"applied_at,omitempty"`
}

func (s *Server) getRestrictions(w http.ResponseWriter, r *http.Request) {
	rec, err := s.project(r)
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	reply(w, http.StatusOK, viewRestrictions(rec, s.standing(r, rec, 0), nil, oldShape))
}

func (s *Server) applyRestrictions(w http.ResponseWriter, r *http.Request) {
	var body networks
	err := onlyBody(r, &body)
	if err == nil && body.V4 == nil && body.V6 == nil { // which would keep everybody out
		err = bad("name the networks in dbAllowedCidrs and dbAllowedCidrsV6: to keep a family out say []")
	}
	var want []netip.Prefix
	if err == nil {
		want, err = body.parse("")
	}
	s.changeRestrictions(w, r, http.StatusCreated, oldShape, err, applyNetworks(want, time.Now()))
}

func (s *Server) patchRestrictions(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Add    networks `json:"add"`
		Remove networks `json:"remove"`
	}
	var add, remove []netip.Prefix
	err := onlyBody(r, &body)
	if err == nil {
		add, err = body.Add.parse("add.")
	}
	if err == nil {
		remove, err = body.Remove.parse("remove.")
	}
	gone := setOf(remove)
	if i := slices.IndexFunc(add, func(p netip.Prefix) bool { return gone[p] }); err == nil && i >= 0 {
		err = bad("%s is to be added and removed", add[i])
	}
	s.changeRestrictions(w, r, http.StatusOK, newShape, err, changeNetworks(add, remove, time.Now()))
}

func oldShape(list []netip.Prefix) any { return untyped(list) }
func newShape(list []netip.Prefix) any { return typed(list) }

// changeRestrictions commits, unless the request was wrong, and answers with what there is then.
func (s *Server) changeRestrictions(w http.ResponseWriter, r *http.Request, status int, shape func([]netip.Prefix) any, wrong error, e edit) {
	rec, err := tenants.Record{}, wrong
	var before []netip.Prefix
	if err == nil {
		rec, err = s.commit(r, existing(func(old *tenants.Tenant) (*tenants.Tenant, error) {
			before = append([]netip.Prefix{}, networksOf(old, time.Now())...)
			return e(old)
		}))
	}
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	reply(w, status, viewRestrictions(rec, s.standing(r, rec, appliedWait), before, shape))
}

func viewRestrictions(rec tenants.Record, at standing, before []netip.Prefix, shape func([]netip.Prefix) any) restrictionsView {
	v := restrictionsView{Entitlement: "allowed", Config: shape(networksOf(rec.Tenant, time.Now())), Status: "applied", UpdatedAt: instant(rec.Changed),
		AppliedAt: instant(at.since)}
	if !at.everywhere {
		v.Status = "stored"
		if before != nil {
			v.OldConfig = shape(before)
		}
	}
	return v
}

// standing says whether a tenant is in force everywhere as the store has it, and since when, if that is known.
type standing struct {
	everywhere bool
	since      time.Time
}

// standing waits for a while until it is. What a store without versions has is in force.
func (s *Server) standing(r *http.Request, rec tenants.Record, wait time.Duration) standing {
	if rec.Version == 0 {
		return standing{everywhere: true}
	}
	a, _ := s.inForce(r, rec.Version, wait)
	return standing{a.Everywhere, a.At}
}
