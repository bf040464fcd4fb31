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

	changesKept = 4 << 20 // bytes of what a token of a tenant has changed, in an hour: all of it is in the audit log, for ever
)

// perMinute lets n through at once, and n in each minute from then on.
func perMinute(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(float64(n)/60), n) }

// perHour lets n through at once, and n in each hour from then on.
func perHour(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(float64(n)/3600), n) }

// meter counts what one token is used for.
type meter struct {
	calls   *rate.Limiter
	refused *rate.Limiter
	changes *rate.Limiter // bytes, of a tenant's token
}

func newMeter(scope tenants.Scope) *meter {
	n := ownerCalls
	if scope == tenants.ScopeOperator {
		n = operatorCalls
	}
	return &meter{perMinute(n), perHour(refusalsKept), perHour(changesKept)}
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
		return &tooOften{tooMany, time.Duration(max(1, seconds(1-left))) * time.Second}
	}
	return nil
}

// room refuses a change of so many bytes if too much was changed lately. One that has more than all the room there can be has to wait
// until all of it is free.
func (m *meter) room(bytes int) error {
	missing := float64(min(bytes, m.changes.Burst())) - m.changes.Tokens()
	if missing <= 0 {
		return nil
	}
	return &tooOften{"too much was changed in the last hour", time.Duration(math.Ceil(missing/float64(m.changes.Limit()))) * time.Second}
}

// changed counts a change that was made.
func (m *meter) changed(bytes int) {
	m.changes.ReserveN(time.Now(), min(bytes, m.changes.Burst()))
}

// sizeOf is how many bytes there are to write down of a change.
func sizeOf(changes []tenants.Difference) (n int) {
	for _, d := range changes {
		n += len(d.Path) + len(d.Old) + len(d.New)
	}
	return n
}

// stranger counts the wrong tokens that come from one address.
type stranger struct{ wrong *rate.Limiter }

func (s *stranger) full() float64 { return s.wrong.Tokens() / float64(s.wrong.Burst()) }

const tooMany = "too many requests"

// tooOften refuses who asks too often.
type tooOften struct {
	why  string
	wait time.Duration
}

func (t *tooOften) Error() string { return fmt.Sprintf("%s: wait %v", t.why, t.wait) }

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
