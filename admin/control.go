// The handlers that show and change how a tenant is served: its machine, its pause.

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/postern/postern/tenants"
)

// refusal is a request that is answered before the gate is asked.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

// machine shows the tenant's machine.
func (s *Server) machine(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
	defer cancel()
	tenant, err := s.subject(r)
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
func (s *Server) change(what string, call func(Gate, context.Context, string) error,
	result func(ctx context.Context, tenant string) (status int, answer any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tenant, err := s.subject(r)
		if err == nil {
			err = saysNothing(r)
		}
		ctx, cancel := context.WithTimeout(r.Context(), gateTimeout) // a slow body does not count
		defer cancel()
		if err == nil {
			err = call(s.opts.Gate, ctx, tenant)
		}
		outcome := "ok"
		if err != nil {
			_, p := problemOf(err)
			outcome = p.Error
		}
		s.opts.Log.Info("admin: "+what, "tenant", tenant, "outcome", outcome, "peer", r.RemoteAddr)
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
}

// started answers what takes its time: with the machine as it is now.
func (s *Server) started(ctx context.Context, tenant string) (int, any, error) {
	m, err := s.opts.Gate.Machine(ctx, tenant)
	return http.StatusAccepted, m, err
}

// pauseState is what pause and resume answer.
type pauseState struct {
	Tenant string `json:"tenant"`
	Paused bool   `json:"paused"`
}

func paused(_ context.Context, tenant string) (int, any, error) {
	return http.StatusOK, pauseState{tenant, true}, nil
}

func resumed(_ context.Context, tenant string) (int, any, error) {
	return http.StatusOK, pauseState{tenant, false}, nil
}

// subject returns the tenant's id that the path names. What has not the form of one is nobody's, and goes no further: it
// would end in logs.
func (s *Server) subject(r *http.Request) (string, error) {
	if s.opts.Gate == nil {
		return "", &refusal{http.StatusServiceUnavailable, "this process has no gate"}
	}
	id := r.PathValue("id")
	if !tenants.ValidID(id) {
		return "", ErrNoTenant
	}
	return id, nil
}

// saysNothing refuses a request that carries more than its path says: whoever sends a dry_run must not get the real thing.
func saysNothing(r *http.Request) error {
	if r.URL.RawQuery != "" {
		return &refusal{http.StatusBadRequest, "this takes no query parameters"}
	}
	body, err := io.ReadAll(r.Body)
	tooLarge := (*http.MaxBytesError)(nil)
	if errors.As(err, &tooLarge) {
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return &refusal{http.StatusBadRequest, "the body could not be read"}
	}
	if len(body) == 0 {
		return nil
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &refusal{http.StatusUnsupportedMediaType, "a body must come with Content-Type: application/json"}
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

// refuse answers an error. The log gets the cause of what is not the asker's doing.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, tenant string, err error) {
	status, p := problemOf(err)
	early := (*refusal)(nil)
	if status >= http.StatusInternalServerError && !errors.As(err, &early) && !errors.Is(err, context.Canceled) {
		s.opts.Log.Error("admin: the gate failed", "route", r.Pattern, "tenant", tenant, "error", err)
	}
	reply(w, status, p)
}

// problemOf says how an error is answered. Only texts that are meant for answers get into one.
func problemOf(err error) (int, problem) {
	var early *refusal
	var busy *BusyError
	switch {
	case errors.As(err, &early):
		return early.status, problem{Error: early.message}
	case errors.As(err, &busy):
		return http.StatusConflict, problem{Error: busy.Error(), Reasons: busy.Reasons}
	case errors.Is(err, ErrNoTenant):
		return http.StatusNotFound, problem{Error: ErrNoTenant.Error()}
	case errors.Is(err, ErrNoMachine):
		return http.StatusConflict, problem{Error: ErrNoMachine.Error()}
	case errors.Is(err, ErrPaused):
		return http.StatusConflict, problem{Error: ErrPaused.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, problem{Error: "the gate does not answer now"}
	}
	return http.StatusInternalServerError, problem{Error: "internal error; the log says why"}
}
