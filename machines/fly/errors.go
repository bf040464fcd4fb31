// What the API's refusals mean.

package fly

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postern/postern/machines"
)

const (
	messageLimit = 300 // bytes of a message that are kept
	idLimit      = 100 // and of a request id
	maxAfter     = time.Hour
)

// ErrNotYet is what Wait returns when the time is over before the state was reached.
var ErrNotYet = errors.New("fly: wait: the machine is not in that state yet")

// APIError is a refusal: an answer that is not 2xx.
type APIError struct {
	Op        string        // the call: get, start, wait, suspend or stop
	Status    int           // of HTTP
	Code      string        // the answer's own status word, such as insufficient_capacity; mostly empty
	Message   string        // the answer's words, shortened, without the token
	RequestID string        // fly-request-id, for Fly's support
	After     time.Duration // from Retry-After; 0: not said
}

func (e *APIError) Error() string {
	s := fmt.Sprintf("fly: %s: %d %s", e.Op, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.RequestID != "" {
		s += " [request " + e.RequestID + "]"
	}
	return s
}

// The words by which refusals of one status are told apart. The API documents few of them; these were seen in the wild.
var (
	capacityCodes = [...]string{"insufficient_capacity", "volume_placement_capacity"}
	capacityWords = [...]string{"insufficient_capacity", "volume_placement_capacity", "could not reserve resource", "insufficient memory", "insufficient cpus",
		"insufficient resources", "not enough capacity", "governor policy blocked", "deploys to this host are temporarily disabled", "machine limit"}
	busyWords       = [...]string{"lease", "refusing to start", "from current state", "not currently started", "current_version", "in use"}
	ineligibleWords = [...]string{"swap", "schedule", "gpu", "memory", "eligible", "not supported", "not support suspend", "cannot be suspended", "can't be suspended"}
)

func has(text string, words []string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// Kind says what the refusal means for those who wait. A status alone does not tell: 409 is a lease that somebody holds,
// a lost race, or a host that is full.
func (e *APIError) Kind() machines.Kind {
	text := strings.ToLower(e.Message)
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return machines.Auth
	case http.StatusNotFound, http.StatusGone:
		return machines.Gone
	case http.StatusTooManyRequests:
		return machines.RateLimited
	case http.StatusRequestTimeout:
		if e.Op == opWait {
			return machines.Transient
		}
		return machines.Unreachable // the API did not reach the machine's host in time
	}
	if has(e.Code, capacityCodes[:]) || has(text, capacityWords[:]) {
		return machines.Capacity
	}
	switch e.Status {
	case http.StatusConflict:
		return machines.Busy
	case http.StatusPreconditionFailed:
		if has(text, busyWords[:]) {
			return machines.Busy
		}
	}
	return machines.Transient
}

// ineligible tells whether the machine cannot be suspended at all, so that it must be stopped instead.
func ineligible(err error) bool {
	var e *APIError
	if !errors.As(err, &e) || e.Op != opSuspend {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
		return e.Kind() != machines.Capacity && !has(strings.ToLower(e.Message), busyWords[:]) && has(strings.ToLower(e.Message), ineligibleWords[:])
	}
	return false
}

// kindOf is the kind of any error of a call.
func kindOf(err error) machines.Kind {
	var e *APIError
	if errors.As(err, &e) {
		return e.Kind()
	}
	return machines.KindOf(err)
}

// afterOf is the pause that an error asks for.
func afterOf(err error) time.Duration {
	var e *APIError
	if errors.As(err, &e) {
		return e.After
	}
	return 0
}

// refusal makes an APIError of an answer and what could be read of its body.
func refusal(op string, t token, resp *http.Response, body []byte) *APIError {
	e := &APIError{Op: op, Status: resp.StatusCode, RequestID: requestID(t, resp), After: retryAfter(resp, time.Now())}
	if resp.StatusCode/100 == 3 {
		e.Message = "it wants to redirect, which is refused"
		return e
	}
	var said struct {
		Error   json.RawMessage `json:"error"`
		Message json.RawMessage `json:"message"`
		Status  json.RawMessage `json:"status"`
	}
	if json.Unmarshal(body, &said) != nil {
		e.Message = tidy(t, string(body), messageLimit) // HTML of some proxy on the way, or plain text
		return e
	}
	e.Message = tidy(t, text(said.Error), messageLimit)
	if e.Message == "" {
		e.Message = tidy(t, text(said.Message), messageLimit)
	}
	e.Code = tidy(t, text(said.Status), idLimit)
	return e
}

// text returns a JSON string's value, and anything else as it was written.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func requestID(t token, resp *http.Response) string {
	return tidy(t, resp.Header.Get("fly-request-id"), idLimit)
}

// tidy makes somebody else's text fit for one line of a log.
func tidy(t token, text string, limit int) string {
	text = t.scrub(text) // before anything is cut off: half a token is still a secret
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.TrimSpace(text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// retryAfter reads the header in both of its forms (RFC 9110, 10.2.3).
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	value := resp.Header.Get("Retry-After")
	if value == "" {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxAfter)
}
