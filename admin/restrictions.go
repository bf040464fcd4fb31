// What a tenant's restrictions say of an address, and whom the tenant has turned away.

package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// Check is what a tenant's restrictions say of somebody now.
type Check struct {
	netrestrict.Verdict
	Mode    tenants.Restrictions
	Decides *netrestrict.Rule // that Verdict.Rule counts to; nil: none decides
}

// Refusal is an address that a tenant has turned away for one reason, however often.
type Refusal struct {
	Address     netip.Addr
	Reason      string
	Observed    bool   // it was let in, because the restrictions are not enforced
	User        string // that it named last, fit to be shown; "": none
	Count       uint64
	First, Last time.Time
}

// checkBody asks for somebody who would come.
type checkBody struct {
	Address  string     `json:"address"`
	Endpoint *checkedBy `json:"endpoint"`
	Flycast  string     `json:"flycast"`
}

// checkedBy is a private endpoint that somebody would come through.
type checkedBy struct {
	Provider netrestrict.Cloud `json:"provider"`
	ID       string            `json:"id"`
}

// who reads what is asked for.
func (b checkBody) who() (who netrestrict.Who, err error) {
	var wrong invalid
	if who.Address, err = netip.ParseAddr(b.Address); err != nil || who.Address.Zone() != "" {
		wrong = append(wrong, fieldError{"/address", "must be an IP address"})
	}
	if b.Endpoint != nil {
		e := netrestrict.Endpoint{Provider: b.Endpoint.Provider, ID: b.Endpoint.ID}
		if err := e.Check(); err != nil {
			wrong = append(wrong, fieldError{"/endpoint", err.Error()})
		}
		who.Endpoints = []netrestrict.Endpoint{e}
	}
	if b.Flycast != "" {
		if who.Flycast, err = netrestrict.ParseFlycast(b.Flycast); err != nil {
			wrong = append(wrong, fieldError{"/flycast", err.Error()})
		}
	}
	if len(wrong) > 0 {
		return who, wrong
	}
	return who, nil
}

// checkView says which rule decides.
type checkView struct {
	Allowed bool                 `json:"allowed"` // by the list
	Refused bool                 `json:"refused"` // so would a connection be
	Mode    tenants.Restrictions `json:"mode"`
	Reason  netrestrict.Reason   `json:"reason"`
	Text    string               `json:"text"`
	Index   *int                 `json:"index"` // in the tenant's allow_list
	Rule    json.RawMessage      `json:"rule"`
}

// why says for people what a reason means.
func why(r netrestrict.Reason) string {
	switch r {
	case netrestrict.NoList:
		return "The tenant has no allow_list: everybody may connect."
	case netrestrict.ByRule:
		return "This rule allows it."
	case netrestrict.Expired:
		return "This rule has allowed it, and has expired."
	case netrestrict.NoFamily:
		return "No rule is about addresses of this family."
	case netrestrict.NoRules:
		return "The list is empty: nobody may connect."
	}
	return "No rule allows it."
}

// checkRestrictions says which rule decides about an address, and why.
func (s *Server) checkRestrictions(w http.ResponseWriter, r *http.Request) {
	tenant, err := s.subject(r)
	var body checkBody
	if err == nil {
		_, err = query(r)
	}
	if err == nil {
		err = strict(r, &body)
	}
	var who netrestrict.Who
	if err == nil {
		who, err = body.who()
	}
	var c Check
	if err == nil {
		c, err = s.opts.Gate.CheckAddress(tenant, who)
	}
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	v := checkView{Allowed: c.Allowed, Refused: !c.Allowed && c.Mode != tenants.RestrictionsObserve, Mode: c.Mode, Reason: c.Reason, Text: why(c.Reason), Rule: json.RawMessage("null")}
	if c.Decides != nil {
		v.Index, v.Rule = new(c.Rule), document.EncodeRule(*c.Decides)
	}
	reply(w, http.StatusOK, v)
}

// refusalView is a refusal as answers have it.
type refusalView struct {
	Address string               `json:"address"`
	Reason  string               `json:"reason"`
	Mode    tenants.Restrictions `json:"mode"`
	User    *string              `json:"user"`
	Count   uint64               `json:"count"`
	First   *string              `json:"first"`
	Last    *string              `json:"last"`
}

type refusalList struct {
	Refusals []refusalView `json:"refusals"`
	Missing  []string      `json:"missing"` // nodes that have not answered
}

// listRefusals shows whom the tenant has turned away lately.
func (s *Server) listRefusals(w http.ResponseWriter, r *http.Request) {
	tenant, err := s.subject(r)
	if err == nil {
		err = saysNothing(r)
	}
	var all []Refusal
	var missing []string
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
		defer cancel()
		all, missing, err = s.opts.Gate.Refusals(ctx, tenant)
	}
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	list := refusalList{Refusals: []refusalView{}, Missing: append([]string{}, missing...)}
	for _, one := range all {
		mode := tenants.RestrictionsEnforce
		if one.Observed {
			mode = tenants.RestrictionsObserve
		}
		list.Refusals = append(list.Refusals, refusalView{one.Address.String(), one.Reason, mode, present(one.User), one.Count, instant(one.First), instant(one.Last)})
	}
	reply(w, http.StatusOK, list)
}
