// What refusals mean.

package fly

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/machines"
)

func TestRefusalsMeanSomething(t *testing.T) {
	for _, tt := range []struct {
		op     string
		status int
		body   string
		want   machines.Kind
	}{
		{opGet, 401, `{"error":"unauthorized"}`, machines.Auth},
		{opStart, 403, `{"error":"insufficient resources for you"}`, machines.Auth},
		{opGet, 404, `{"error":"machine not found"}`, machines.Gone},
		{opGet, 410, ``, machines.Gone},
		{opStart, 429, `{"error":"rate limit exceeded"}`, machines.RateLimited},
		{opStart, 408, `{"error":"deadline_exceeded: request timed out"}`, machines.Unreachable},
		{opStart, 409, `{"status":"error","message":"machine ID 9080e6f1 lease currently held by a@b, expires at x"}`, machines.Busy},
		{opStart, 409, `{"error":"current_version does not match"}`, machines.Busy},
		{opStart, 409, `{"error":"something new"}`, machines.Busy},
		{opStart, 409, `{"error":"aborted: could not reserve resource for machine: insufficient memory available to fulfill request"}`, machines.Capacity},
		{opStart, 409, `{"error":"aborted: could not reserve resource for machine: insufficient CPUs available to fulfill request on the current host"}`, machines.Capacity},
		{opStart, 409, `{"error":"insufficient resources available"}`, machines.Capacity},
		{opStart, 409, `{"error":"governor policy blocked start"}`, machines.Capacity},
		{opStart, 409, `{"error":"deploys to this host are temporarily disabled"}`, machines.Capacity},
		{opStop, 409, `{"error":"unable to stop machine, not currently started"}`, machines.Busy},
		{opStart, 412, `{"error":"failed_precondition: machine still active, refusing to start"}`, machines.Busy},
		{opStart, 412, `{"error":"failed_precondition: unable to start machine from current state: 'created'"}`, machines.Busy},
		{opStart, 412, `{"error":"x","status":"volume_placement_capacity"}`, machines.Capacity},
		{opStart, 412, `{"error":"not enough capacity"}`, machines.Capacity},
		{opStart, 412, `{"error":"volume vol_1 in use"}`, machines.Busy},
		{opStart, 412, `{"error":"something new"}`, machines.Transient},
		{opStart, 422, `{"error":"no room","status":"insufficient_capacity"}`, machines.Capacity},
		{opStart, 422, `{"error":"your organization has reached its machine limit"}`, machines.Capacity},
		{opStart, 422, `{"error":"invalid"}`, machines.Transient},
		{opStart, 500, `{"error":"insufficient resources available"}`, machines.Capacity},
		{opStart, 500, `{"error":"internal"}`, machines.Transient},
		{opStart, 502, `<html>Bad Gateway</html>`, machines.Transient},
		{opStart, 503, ``, machines.Transient},
		{opStart, 400, `{"error":{"nested":"object"},"status":7}`, machines.Transient},
		{opStart, 302, `moved`, machines.Transient},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.body), func(t *testing.T) {
			c := newClient(t, Options{Transport: says(tt.status, tt.body, "fly-request-id", "01REQ-fra", "Retry-After", "7")})
			var err error
			switch tt.op {
			case opGet:
				_, err = c.Get(t.Context(), "a", "m")
			case opStart:
				_, err = c.Start(t.Context(), "a", "m", "")
			case opStop:
				err = c.Stop(t.Context(), "a", "m", "")
			}
			var refused *APIError
			if !errors.As(err, &refused) {
				t.Fatalf("%v", err)
			}
			if refused.Kind() != tt.want || refused.Status != tt.status || refused.RequestID != "01REQ-fra" || refused.After != 7*time.Second {
				t.Errorf("%v: %+v", refused.Kind(), refused)
			}
			if !strings.Contains(err.Error(), "01REQ-fra") || len(err.Error()) > 2*messageLimit {
				t.Error(err)
			}
		})
	}
}

func TestSuspendIneligible(t *testing.T) {
	for body, want := range map[string]bool{
		`{"error":"machine has swap enabled"}`:                                     true,
		`{"error":"Machines with a Schedule cannot be suspended"}`:                 true,
		`{"error":"suspend is not supported for GPU machines"}`:                    true,
		`{"error":"unable to suspend machine from current state: 'stopped'"}`:      false,
		`{"status":"error","message":"lease currently held by schedule"}`:          false,
		`{"error":"insufficient memory available to fulfill request"}`:             false,
		`{"error":"failed_precondition: something that nobody has thought about"}`: false,
	} {
		c := newClient(t, Options{Transport: says(412, body)})
		if got := ineligible(c.Suspend(t.Context(), "a", "m", "")); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "30": 30 * time.Second, "999999999": maxAfter, "soon": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Thu, 01 Jan 2026 00:00:00 GMT": 0,
	} {
		if got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {value}}}, now); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}
