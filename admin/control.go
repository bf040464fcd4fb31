// The handlers that show and change how a tenant is served: its machine.

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/postern/postern/tenants"
)

// machine shows the tenant's machine.
func (s *Server) machine(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
	defer cancel()
	tenant, err := s.subject(r)
	if err == nil {
		_, err = query(r)
	}
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	m, err := s.opts.Gate.Machine(ctx, tenant)
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	reply(w, http.StatusOK, m)
}

// change makes a handler of a call that changes something; result is asked for the answer once that has happened.
func (s *Server) change(call func(Gate, context.Context, string) error,
	result func(ctx context.Context, tenant string) (status int, answer any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.do(w, r, saysNothing, func(ctx context.Context, tenant string) error { return call(s.opts.Gate, ctx, tenant) }, result)
	}
}

// do has the gate do something to a tenant, if the request says what it must, and answers with the result.
func (s *Server) do(w http.ResponseWriter, r *http.Request, says func(*http.Request) error, call func(ctx context.Context, tenant string) error,
	result func(ctx context.Context, tenant string) (status int, answer any, err error)) {
	tenant, err := s.subject(r)
	if err == nil {
		err = says(r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout) // a slow body does not count
	defer cancel()
	if err == nil {
		err = call(ctx, tenant)
	}
	s.note(r, tenant, err)
	if err == nil || errors.As(err, new(*partly)) {
		s.writeDownDone(r, tenant)
	}
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	status, answer, err := result(ctx, tenant)
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	reply(w, status, answer)
}

// note logs what became of a change that somebody asked for.
func (s *Server) note(r *http.Request, tenant string, err error) {
	c, outcome := callerOf(r), "ok"
	if err != nil {
		_, p := problemOf(err)
		outcome = brief(p.Detail)
	}
	s.opts.Log.Info("admin: "+c.action, "tenant", tenant, "outcome", outcome, "peer", r.RemoteAddr, "by", c.Name, "request", c.Request)
}

// started answers what takes its time: with the machine as it is now.
func (s *Server) started(ctx context.Context, tenant string) (int, any, error) {
	m, err := s.opts.Gate.Machine(ctx, tenant)
	return http.StatusAccepted, m, err
}

// subject returns the tenant's id that the path names. What has not the form of one is nobody's, and goes no further: it
// would end in logs.
func (s *Server) subject(r *http.Request) (string, error) {
	if s.opts.Gate == nil {
		return "", &refusal{http.StatusServiceUnavailable, "this process has no gate"}
	}
	return tenantOf(r)
}

// tenantOf returns the id that the path names.
func tenantOf(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if !tenants.ValidID(id) {
		return "", ErrNoTenant
	}
	return id, nil
}

// saysNothing refuses a request that carries more than its path says: whoever sends a dry_run must not get the real thing.
func saysNothing(r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	return saysNothingMore(r)
}

// saysNothingMore refuses a request with a body that says something.
func saysNothingMore(r *http.Request) error {
	body, err := readBody(r)
	if err != nil || len(body) == 0 {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil || keys == nil { // nil: the body is null
		return &refusal{http.StatusBadRequest, "the body must be empty or {}: it is not one JSON object"}
	}
	if len(keys) > 0 {
		return &refusal{http.StatusBadRequest, "the body must be empty or {}: it has a key, and none is known here"} // not which: this text is logged
	}
	return nil
}
