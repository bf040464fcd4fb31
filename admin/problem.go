// Answers: what was asked for as JSON, and problems (RFC 9457) for who does not get it.

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/postern/postern/tenants"
)

// problem is the answer to whoever does not get what they asked for.
type problem struct {
	Type     string       `json:"type"` // about:blank: Title says all that Status says
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail"`
	Instance string       `json:"instance"` // the request's id
	Error    string       `json:"error"`    // Detail, by its older name
	Message  string       `json:"message,omitempty"`
	Reasons  []string     `json:"reasons,omitempty"`
	Sessions int          `json:"sessions,omitempty"` // that would end
	Errors   []fieldError `json:"errors,omitempty"`
}

// fieldError is one thing wrong with a body.
type fieldError struct {
	Pointer string `json:"pointer"` // into the body (RFC 6901); "": the body as a whole
	Detail  string `json:"detail"`
}

// refusal is an error with its answer.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

// bad is a refusal of a request that does not say what it could mean.
func bad(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// invalid is what is wrong with a body, by pointers into it.
type invalid []fieldError

func (v invalid) Error() string {
	var all []string
	for _, e := range v {
		all = append(all, strings.TrimPrefix(e.Pointer+": "+e.Detail, ": "))
	}
	return strings.Join(all, "; ")
}

// problemOf says how an error is answered. Only texts that are meant for answers get into one.
func problemOf(err error) (int, problem) {
	var early *refusal
	var often *tooOften
	var busy *BusyError
	var locked *lockedOut
	var silent *SilentError
	var fields invalid
	var wrong tenants.Problems
	var conflict *tenants.ConflictError
	var some *partly
	of := func(status int, text error) (int, problem) { return status, problem{Detail: text.Error()} }
	switch {
	case errors.As(err, &some):
		status, why := problemOf(some.err)
		why.Detail = (&partly{some.done, some.left, errors.New(why.Detail)}).Error()
		return status, why
	case errors.As(err, &early):
		return of(early.status, early)
	case errors.As(err, &often):
		return of(http.StatusTooManyRequests, often)
	case errors.As(err, &busy):
		return http.StatusConflict, problem{Detail: busy.Error(), Reasons: busy.Reasons}
	case errors.As(err, &locked):
		return http.StatusConflict, problem{Detail: locked.Error(), Sessions: locked.open}
	case errors.As(err, &silent):
		return of(http.StatusServiceUnavailable, silent)
	case errors.As(err, &fields):
		return http.StatusUnprocessableEntity, problem{Detail: fields.Error(), Errors: fields}
	case errors.As(err, &wrong):
		fields = pointers(wrong)
		return http.StatusUnprocessableEntity, problem{Detail: fields.Error(), Errors: fields}
	case errors.As(err, &conflict):
		return of(http.StatusConflict, conflict)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return of(http.StatusServiceUnavailable, errors.New("the gate does not answer now"))
	}
	for known, status := range map[error]int{
		ErrNoTenant: http.StatusNotFound, ErrNoMachine: http.StatusConflict, ErrPaused: http.StatusConflict, ErrNoSession: http.StatusNotFound,
		ErrNoBan: http.StatusNotFound, ErrNeverBanned: http.StatusConflict, ErrTooManyBans: http.StatusConflict, ErrConfigured: http.StatusConflict,
		tenants.ErrNoSuchTenant: http.StatusNotFound, tenants.ErrNoSuchUser: http.StatusNotFound, tenants.ErrNoSuchToken: http.StatusNotFound, tenants.ErrNoSuchNode: http.StatusNotFound,
		tenants.ErrServes: http.StatusConflict, tenants.ErrTaken: http.StatusConflict, tenants.ErrReadOnly: http.StatusConflict,
		tenants.ErrUnreadable: http.StatusInternalServerError,
		tenants.ErrChanged:    http.StatusPreconditionFailed, tenants.ErrAway: http.StatusServiceUnavailable,
	} {
		if errors.Is(err, known) {
			return of(status, known)
		}
	}
	return of(http.StatusInternalServerError, errors.New("internal error; the log says why"))
}

// refuse answers an error. The log gets the cause of what is not the asker's doing, the audit log the refusal of a change.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, tenant string, err error) {
	status, p := problemOf(err)
	early := (*refusal)(nil)
	if status >= http.StatusInternalServerError && !errors.As(err, &early) && !errors.Is(err, context.Canceled) {
		s.opts.Log.Error("admin: a request failed", "route", r.Pattern, "tenant", tenant, "request", w.Header().Get(requestID), "error", err)
	}
	s.writeDown(r, tenant, status, p.Detail)
	setRetry(w.Header(), err)
	respond(w, r, status, p)
}

// writeDown has the audit log know of a change that was refused to somebody whom we know, unless they are refused all the time.
func (s *Server) writeDown(r *http.Request, tenant string, status int, why string) {
	c := callerOf(r)
	if c == nil || c.asked || s.opts.Registry == nil || status >= http.StatusInternalServerError || status == http.StatusTooManyRequests ||
		r.Method == http.MethodGet || r.Method == http.MethodHead || !c.meter.refused.Allow() {
		return
	}
	s.audit(r, tenants.Entry{Tenant: tenant, Outcome: brief(why)})
}

// writeDownDone has the audit log know of what the gate has done for somebody.
func (s *Server) writeDownDone(r *http.Request, tenant string) {
	if s.opts.Registry != nil && r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.audit(r, tenants.Entry{Tenant: tenant, Outcome: tenants.OutcomeDone, Changes: callerOf(r).did})
	}
}

// audit writes down what became of a call that has changed nothing in the store, even if the asker has hung up: who does so is
// not to be left out. The call is over: what cannot be written is logged.
func (s *Server) audit(r *http.Request, e tenants.Entry) {
	c := callerOf(r)
	e.By, e.Action = c.Actor, c.action
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteTimeout)
	defer cancel()
	err := s.opts.Registry.Note(ctx, e)
	if err != nil && !errors.Is(err, tenants.ErrReadOnly) {
		s.opts.Log.Warn("admin: a call is not in the audit log", "route", r.Pattern, "outcome", e.Outcome, "request", c.Request, "error", err)
	}
}

// brief bounds what logs keep of a text that may repeat what was sent.
func brief(text string) string {
	const most = 500
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// fail answers a problem.
func fail(w http.ResponseWriter, r *http.Request, status int, message string) {
	respond(w, r, status, problem{Detail: message})
}

// respond answers a problem, whose parts that follow from the rest it fills in.
func respond(w http.ResponseWriter, r *http.Request, status int, p problem) {
	p.Type, p.Title, p.Status, p.Instance, p.Error = "about:blank", http.StatusText(status), status, w.Header().Get(requestID), p.Detail
	if strings.HasPrefix(r.URL.Path, "/v1/projects/") {
		p.Message = p.Detail // where Supabase's clients look for it
	}
	send(w, status, "application/problem+json", p)
}

// reply answers v as JSON.
func reply(w http.ResponseWriter, status int, v any) { send(w, status, "application/json", v) }

// shown makes a handler that answers with what is read for a request, or with why that cannot be.
func shown[T any](s *Server, read func(*http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := read(r)
		if err != nil {
			s.refuse(w, r, r.PathValue("id"), err)
			return
		}
		reply(w, http.StatusOK, v)
	}
}

func send(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("BUG: an answer does not encode: %w", err))
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
