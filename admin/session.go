// A tenant's sessions, on all nodes: listed, and ended one by one or all at once.

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// Session is a client that is logged in.
type Session struct {
	ID          string // is no other session's, now or later
	Node        string // that it is on; "": there is one alone
	User        string
	Database    string
	Listener    string
	Client      netip.AddrPort
	Mode        string // session, transaction, statement, replication
	State       string // idle, active, waiting
	Since       time.Time
	Active      time.Time // when its client last said something, as far as is known
	TLS         bool
	Application string
	Server      bool // it holds a server connection
}

// MarshalJSON encodes s as openapi.yaml describes it.
func (s Session) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID          string  `json:"id"`
		Node        *string `json:"node"`
		User        string  `json:"user"`
		Database    string  `json:"database"`
		Listener    string  `json:"listener"`
		Address     string  `json:"client_address"`
		Port        uint16  `json:"client_port"`
		Mode        string  `json:"mode"`
		State       string  `json:"state"`
		Since       *string `json:"since"`
		Active      *string `json:"last_activity"`
		TLS         bool    `json:"tls"`
		Application string  `json:"application_name"`
		Server      bool    `json:"has_server"`
	}{s.ID, present(s.Node), s.User, s.Database, s.Listener, s.Client.Addr().String(), s.Client.Port(), s.Mode, s.State, instant(s.Since), instant(s.Active), s.TLS,
		s.Application, s.Server})
}

// place is where the session stands in the list of all.
func (s Session) place() string {
	if s.Node == "" {
		return s.ID
	}
	return s.Node + ":" + s.ID
}

// sessionList is a page of sessions.
type sessionList struct {
	Sessions []Session `json:"sessions"`
	Next     *string   `json:"next"`    // ?after= of the next page; null: this is the last one
	Missing  []string  `json:"missing"` // nodes that have not answered
}

// ended is the answer when sessions were ended.
type ended struct {
	Ended   int      `json:"ended"`
	Missing []string `json:"missing"` // nodes that have not answered
}

func (s *Server) sessionPage(r *http.Request) (list sessionList, err error) {
	after, limit, err := pageOf(r)
	if err != nil {
		return list, err
	}
	tenant, err := s.subject(r)
	if err != nil {
		return list, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
	defer cancel()
	all, missing, err := s.opts.Gate.Sessions(ctx, tenant, after, limit+1)
	if errors.Is(err, ErrNoSession) {
		err = bad("after must be what a page has told as next, of a node that has not started again since")
	}
	if err != nil {
		return list, err
	}
	all, list.Next = cut(all, limit, Session.place)
	list.Missing = append([]string{}, missing...)
	list.Sessions = append([]Session{}, all...)
	return list, nil
}

func (s *Server) endSessions(w http.ResponseWriter, r *http.Request) {
	s.end(w, r, func(ctx context.Context, tenant string) (done ended, err error) {
		n, missing, err := s.opts.Gate.EndSessions(ctx, tenant)
		callerOf(r).hasDone("sessions", strconv.Itoa(n), "0")
		return ended{n, append([]string{}, missing...)}, err
	})
}

func (s *Server) endSession(w http.ResponseWriter, r *http.Request) {
	s.end(w, r, func(ctx context.Context, tenant string) (ended, error) {
		id := r.PathValue("session")
		callerOf(r).hasDone(fmt.Sprintf("sessions[%q]", id), strconv.Quote("open"), "")
		return ended{1, []string{}}, s.opts.Gate.EndSession(ctx, tenant, id)
	})
}

func (s *Server) end(w http.ResponseWriter, r *http.Request, call func(ctx context.Context, tenant string) (ended, error)) {
	var done ended
	s.do(w, r, saysNothing, func(ctx context.Context, tenant string) (err error) {
		done, err = call(ctx, tenant)
		return err
	}, func(context.Context, string) (int, any, error) { return http.StatusOK, done, nil })
}
