// The calls: what is asked, how it is checked, and what is done.

package fakefly

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	bodyLimit = 1 << 20
	waitMax   = 60 // seconds
)

// request is a call, taken apart.
type request struct {
	action, app, id string
	query           url.Values
	nonce           string // of the lease that the caller says it has
	body            []byte
}

// routes lists the parameters that each action knows.
var routes = map[string]struct {
	method string
	query  []string
}{
	Get:     {http.MethodGet, nil},
	List:    {http.MethodGet, []string{"include_deleted", "region", "state", "summary"}},
	Wait:    {http.MethodGet, []string{"state", "timeout", "instance_id"}},
	Start:   {http.MethodPost, nil},
	Suspend: {http.MethodPost, nil},
	Stop:    {http.MethodPost, nil},
	Lease:   {http.MethodPost, []string{"ttl"}},
	Release: {http.MethodDelete, nil},
}

// parse takes a call apart. The answer is set if there is no such call.
func parse(r *http.Request) (q request, _ answer) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if len(parts) < 4 || len(parts) > 6 || parts[0] != "v1" || parts[1] != "apps" || parts[2] == "" || parts[3] != "machines" || slices.Contains(parts, "") {
		return q, errorAnswer(http.StatusNotFound, "404 page not found")
	}
	q.app, q.query = parts[2], r.URL.Query()
	switch len(parts) {
	case 4:
		q.action = List
	case 5:
		q.action, q.id = Get, parts[4]
	case 6:
		q.action, q.id = parts[5], parts[4]
		if q.action == Lease && r.Method == http.MethodDelete {
			q.action = Release
		} else if q.action == Release { // which is no path
			q.action = ""
		}
	}
	q.nonce = r.Header.Get(nonceHeader)
	route, ok := routes[q.action]
	if !ok || (len(parts) == 6 && (q.action == Get || q.action == List)) {
		action := q.action
		q.action = ""
		return q, errorAnswer(http.StatusNotFound, "404 page not found: %s", action)
	}
	if r.Method != route.method {
		return q, errorAnswer(http.StatusMethodNotAllowed, "method not allowed")
	}
	for name := range q.query {
		if !slices.Contains(route.query, name) && !(q.action == List && strings.HasPrefix(name, "metadata.")) {
			return q, errorAnswer(http.StatusBadRequest, "invalid query parameter %s", name)
		}
	}
	var err error
	if q.body, err = io.ReadAll(io.LimitReader(r.Body, bodyLimit)); err != nil {
		return q, errorAnswer(http.StatusBadRequest, "invalid body")
	}
	return q, checkBody(q, r.Header.Get("Content-Type"))
}

func checkBody(q request, contentType string) answer {
	if len(q.body) == 0 {
		return answer{}
	}
	if q.action != Stop && q.action != Lease {
		return errorAnswer(http.StatusBadRequest, "unexpected body")
	}
	if !strings.HasPrefix(contentType, "application/json") {
		return errorAnswer(http.StatusBadRequest, "the body is not declared to be JSON")
	}
	if q.action == Lease {
		_, err := readLease(q)
		return err
	}
	var stop struct {
		Signal  string `json:"signal"`
		Timeout string `json:"timeout"`
	}
	d := json.NewDecoder(bytes.NewReader(q.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&stop); err != nil {
		return errorAnswer(http.StatusBadRequest, "invalid body: %v", err)
	}
	if stop.Timeout != "" {
		if _, err := time.ParseDuration(stop.Timeout); err != nil {
			return errorAnswer(http.StatusBadRequest, "invalid timeout: %v", err)
		}
	}
	return answer{}
}

// work does what the call asks for.
func (s *Server) work(ctx context.Context, q request) answer {
	s.mu.Lock()
	m, found := s.find(q.app, q.id)
	switch {
	case !found:
		s.mu.Unlock()
		return errorAnswer(http.StatusNotFound, "app not found")
	case q.action == List:
		defer s.mu.Unlock()
		return s.list(q)
	case m == nil:
		s.mu.Unlock()
		return errorAnswer(http.StatusNotFound, "machine not found")
	case q.action == Wait:
		s.mu.Unlock()
		return s.wait(ctx, m, q.query)
	}
	defer s.mu.Unlock()
	if q.action == Get {
		return answer{status: http.StatusOK, body: encode(m.show())}
	}
	if m.hostStatus != "ok" {
		return errorAnswer(http.StatusRequestTimeout, "deadline_exceeded: the machine's host does not answer")
	}
	if a := m.leased(q); a.status != 0 {
		return a
	}
	switch q.action {
	case Lease:
		return m.lease(q)
	case Release:
		return m.release()
	case Start:
		return m.start()
	case Suspend:
		return m.suspend()
	default:
		return m.stop()
	}
}

// find returns a machine, and whether there is such an app. Called with mu held.
func (s *Server) find(app, id string) (_ *Machine, found bool) {
	for _, m := range s.machines {
		if m.app == app {
			found = true
			if m.id == id {
				return m, true
			}
		}
	}
	return nil, found
}

func (s *Server) list(q request) answer {
	all := []shown{}
	for _, m := range s.machines {
		if m.app == q.app && (m.state != "destroyed" || q.query.Has("include_deleted")) && (!q.query.Has("state") || q.query.Get("state") == m.state) {
			all = append(all, m.show())
		}
	}
	return answer{status: http.StatusOK, body: encode(all)}
}

// wait is the long poll.
func (s *Server) wait(ctx context.Context, m *Machine, query url.Values) answer {
	state, timeout, bad := waitFor(m, query)
	if bad != "" {
		s.mu.Lock()
		s.violate("wait for %s: %s", m.id, bad)
		s.mu.Unlock()
		return errorAnswer(http.StatusBadRequest, "%s", bad)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		now, changed := m.state, s.changed
		s.mu.Unlock()
		if now == state {
			return answer{status: http.StatusOK, body: `{"ok":true}`}
		}
		select {
		case <-changed:
		case <-timer.C:
			return errorAnswer(http.StatusRequestTimeout, "deadline_exceeded: machine failed to reach desired state, %s, currently %s", state, now)
		case <-ctx.Done():
			return answer{}
		case <-s.ctx.Done():
			return answer{}
		}
	}
}

// waitFor reads the parameters of a wait; bad says what is wrong with them.
func waitFor(m *Machine, query url.Values) (state string, timeout time.Duration, bad string) {
	state = "started"
	if query.Has("state") {
		state = query.Get("state")
	}
	if !slices.Contains([]string{"started", "stopped", "suspended", "destroyed"}, state) {
		return "", 0, "invalid state"
	}
	seconds := waitMax
	if query.Has("timeout") {
		var err error
		if seconds, err = strconv.Atoi(query.Get("timeout")); err != nil || seconds < 1 || seconds > waitMax {
			return "", 0, "invalid timeout"
		}
	}
	if instance := query.Get("instance_id"); instance != m.instance && (instance != "" || state == "stopped") {
		return "", 0, "the state stopped needs the machine's instance_id"
	}
	return state, time.Duration(seconds) * time.Second, ""
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(b)
}
