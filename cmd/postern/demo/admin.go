// What the demo's visitor asks the admin HTTP server: how machines stand, and what was counted.

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// machineState is what a visitor needs to know of the API's answer about a machine.
type machineState struct {
	State       string
	LastWake    *machineChange `json:"last_wake"`
	LastSuspend *machineChange `json:"last_suspend"`
}

type machineChange struct {
	Reason, Result string
	Seconds        float64
}

// machine asks how a tenant's machine stands.
func (s *scene) machine(ctx context.Context, tenant string) (machineState, error) {
	var m machineState
	status, body, err := s.get(ctx, "/v1/tenants/"+tenant+"/machine", s.token)
	if err != nil {
		return m, err
	}
	if status != http.StatusOK {
		return m, fmt.Errorf("%s's machine: status %d: %s", tenant, status, body)
	}
	return m, json.Unmarshal([]byte(body), &m)
}

// get reads a page of the admin HTTP server.
func (s *scene) get(ctx context.Context, path, token string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{DisableKeepAlives: true} // of its own: no proxy from the environment, nothing left open
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return resp.StatusCode, string(b), err
}

// count is what a metric must have come to.
type count struct {
	series  string // with its labels
	n       float64
	orAbove bool // where how often depends on how fast the computer is
}

// find reports whether the metrics have the count, and it as they tell it.
func (c count) find(metrics string) (line string, ok bool) {
	_, after, found := strings.Cut("\n"+metrics, "\n"+c.series+" ")
	value, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseFloat(value, 64)
	return c.series + " " + value, found && err == nil && (n == c.n || c.orAbove && n > c.n)
}

// visitMetrics wants the counts of the steps before, and no counts without the token.
func (s *scene) visitMetrics(ctx context.Context) (string, error) {
	if status, _, err := s.get(ctx, "/metrics", ""); err != nil {
		return "", err
	} else if status != http.StatusUnauthorized {
		return "", fmt.Errorf("status %d without a token, want %d", status, http.StatusUnauthorized)
	}
	want := []count{
		{`postern_logins_total{result="failed",tenant="acme"}`, 1, false},
		{`postern_refusals_total{reason="address"}`, 3, true},
		{`postern_cancels_total{result="sent"}`, 1, false},
		{`postern_server_logins_total{result="ok",tenant="globex"}`, 2, true},
		{`postern_wakes_total{result="ok",tenant="acme"}`, 2, true},
		{`postern_wakes_total{result="ok",tenant="globex"}`, 2, true},
		{`postern_suspends_total{reason="idle",result="ok",tenant="acme"}`, 1, true},
		{`postern_suspends_total{reason="idle",result="ok",tenant="globex"}`, 1, true},
	}
	missing, lines := "all", []string(nil)
	err := until(ctx, func() (bool, error) { // a cancel is counted after it was sent, which nobody is told
		status, body, err := s.get(ctx, "/metrics", s.token)
		if err != nil {
			return false, err
		}
		if status != http.StatusOK {
			return false, errors.New("not shown with the token, either")
		}
		lines = lines[:0]
		for _, c := range want {
			line, ok := c.find(body)
			if !ok {
				missing = fmt.Sprintf("%s %v", c.series, c.n)
				return false, nil
			}
			lines = append(lines, line)
		}
		return true, nil
	})
	if err != nil {
		return "", fmt.Errorf("missing %s: %w", missing, err)
	}
	return strings.Join(lines, ", "), nil
}
