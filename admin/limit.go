// How often somebody may ask: meters per token and per address, of which only so many are kept.

package admin

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/postern/postern/tenants"
)

const (
	maxMeters = 10_000 // of each kind

	ownerCalls    = 120 // of a token of a tenant, or for metrics, in a minute
	operatorCalls = 6000
	wrongTokens   = 60 // of an address, in a minute
	refusalsKept  = 60 // of a token, in an hour: changes that were refused and are written down
)

// perMinute lets n through at once, and n in each minute from then on.
func perMinute(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(float64(n)/60), n) }

// meter counts what one token is used for.
type meter struct {
	calls   *rate.Limiter
	refused *rate.Limiter
}

func newMeter(scope tenants.Scope) *meter {
	n := ownerCalls
	if scope == tenants.ScopeOperator {
		n = operatorCalls
	}
	return &meter{perMinute(n), rate.NewLimiter(rate.Limit(refusalsKept/3600.0), refusalsKept)}
}

func (m *meter) full() float64 { return m.calls.Tokens() / float64(m.calls.Burst()) }

// take counts a call, and says in the answer's header how many are left.
func (m *meter) take(h http.Header) error {
	ok := m.calls.Allow()
	left, burst := max(0, m.calls.Tokens()), float64(m.calls.Burst())
	seconds := func(calls float64) int { return int(math.Ceil(calls / float64(m.calls.Limit()))) }
	h.Set("X-RateLimit-Limit", strconv.Itoa(m.calls.Burst()))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(int(left)))
	h.Set("X-RateLimit-Reset", strconv.Itoa(seconds(burst-left)))
	if !ok {
		return &tooOften{time.Duration(max(1, seconds(1-left))) * time.Second}
	}
	return nil
}

// stranger counts the wrong tokens that come from one address.
type stranger struct{ wrong *rate.Limiter }

func (s *stranger) full() float64 { return s.wrong.Tokens() / float64(s.wrong.Burst()) }

// tooOften refuses who asks too often.
type tooOften struct{ wait time.Duration }

func (t *tooOften) Error() string { return fmt.Sprintf("too many requests: wait %v", t.wait) }

// setRetry says when to come again, if err is about that.
func setRetry(h http.Header, err error) {
	var often *tooOften
	if errors.As(err, &often) {
		h.Set("Retry-After", strconv.Itoa(int(often.wait.Seconds())))
	}
}

// meters keeps at most maxMeters of them: who came last pushes out one who has used little.
type meters[K comparable, M interface{ full() float64 }] struct {
	mu sync.Mutex
	of map[K]M
}

// get returns the meter of key, which is made if there is none.
func (m *meters[K, M]) get(key K, fresh func() M) M {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.of[key]
	if ok {
		return found
	}
	if m.of == nil {
		m.of = make(map[K]M)
	}
	if len(m.of) >= maxMeters {
		m.forget()
	}
	found = fresh()
	m.of[key] = found
	return found
}

// has reports whether there is a meter of key.
func (m *meters[K, M]) has(key K) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.of[key]
	return ok
}

// drop forgets the meter of key.
func (m *meters[K, M]) drop(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, key)
}

// forget drops the fullest of a few, which map iteration picks.
func (m *meters[K, M]) forget() {
	const few = 16
	seen, fullest := 0, -1.0
	var drop K
	for key, x := range m.of {
		if full := x.full(); full > fullest {
			drop, fullest = key, full
		}
		if seen++; seen == few {
			break
		}
	}
	delete(m.of, drop)
}
