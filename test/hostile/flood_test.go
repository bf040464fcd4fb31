// A crowd of hostile sockets, in all phases of a login at once: P30, P36, P37, S02, S03, S48, A30, B14.

package hostile

import (
	"fmt"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

const (
	crowd                       = 300 // sockets at a time, over all phases; multitude_test.go has more
	headerTimeout, loginTimeout = 3 * time.Second, 10 * time.Second
)

// impatient makes both time-outs short enough to wait for.
var impatient = harness.Map{"proxy_header": headerTimeout.String(), "login": loginTimeout.String()}

func TestFlood(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{timeouts: impatient})
	trickle := func(b []byte) func(p *peer, stop <-chan struct{}) {
		return func(p *peer, stop <-chan struct{}) {
			tick := time.NewTicker(250 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
					p.send(b[i%len(b) : i%len(b)+1])
				}
			}
		}
	}
	phases := []struct {
		id, name string
		begin    func(p *peer)                       // brings the socket into its phase
		then     func(p *peer, stop <-chan struct{}) // what it goes on with; nil: nothing
		headless bool                                // no header first
		limit    time.Duration                       // by which it must be closed
		counted  func(before, after map[string]float64) float64
	}{
		{"P37", "nothing at all", nil, nil, true, headerTimeout, moves(header("timeout"))},
		{"P36", "a header that trickles", nil, trickle([]byte("PROXY UNKNOWN                                         ")), true, headerTimeout, moves(header("timeout"))},
		{"P30", "a header whose body trickles", func(p *peer) { p.send(v2Claimed(v2Proxy, v2TCP4, 4096, nil)) }, trickle([]byte("x")), true, headerTimeout, moves(header("timeout"))},
		{"S02", "nothing after the header", nil, nil, false, loginTimeout, nil},
		{"S03", "one byte of a startup", func(p *peer) { p.send([]byte{0}) }, nil, false, loginTimeout, moves(refusal("startup"))},
		{"S03", "a startup that trickles", func(p *peer) { p.send(be32(10_000)) }, trickle([]byte{0}), false, loginTimeout, moves(refusal("startup"))},
		{"S02", "nothing after SSLRequest", func(p *peer) { p.send(sslRequest); p.byteAnswer('S') }, nil, false, loginTimeout, moves(refusal("startup"))},
		{"S48", "a ClientHello that trickles", func(p *peer) { p.send([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")) }, trickle([]byte{0}), false, loginTimeout, moves(refusal("startup"))},
		{"A30", "silence when asked for a password", func(p *peer) { p.send(appStartup()); p.auth(10) }, nil, false, loginTimeout, moves(login("acme", "aborted"))},
		{"B14", "silence after the challenge", func(p *peer) { p.send(appStartup()); p.begin(&scramClient{}) }, nil, false, loginTimeout, moves(login("acme", "aborted"))},
		{"B14", "a final message that trickles", func(p *peer) {
			p.send(appStartup())
			p.begin(&scramClient{})
			p.send(claimed('p', 1000, nil))
		}, trickle([]byte("x")), false, loginTimeout, moves(login("acme", "aborted"))},
	}
	each := crowd / len(phases)
	g.guard(t, 0, func() {
		before := counters(g.Metrics(t))
		stop := make(chan struct{})
		var all []*peer
		var ends []time.Time
		for range each {
			for _, ph := range phases {
				p := g.dial(t, behindProxy)
				ends = append(ends, time.Now().Add(ph.limit))
				if !ph.headless {
					p.send(v2From(g.freshClient()))
				}
				if ph.begin != nil {
					ph.begin(p)
				}
				if ph.then != nil {
					go ph.then(p, stop)
				}
				all = append(all, p)
			}
		}
		g.goodLogin(t) // while they are all there
		for i, p := range all {
			p.silence()
			if late := time.Since(ends[i]); late > 2*loginTimeout {
				t.Errorf("%s %s: closed %v late", phases[i%len(phases)].id, phases[i%len(phases)].name, late)
			}
		}
		close(stop)
		for _, ph := range phases {
			if ph.counted == nil {
				continue
			}
			harness.Eventually(t, patience, fmt.Sprintf("%s %s: %d are counted", ph.id, ph.name, each), func() bool {
				return ph.counted(before, counters(g.Metrics(t))) >= float64(each)
			})
		}
	})
}

// moves is how far a counter moved.
func moves(series string) func(before, after map[string]float64) float64 {
	return func(before, after map[string]float64) float64 { return after[series] - before[series] }
}

// TestOneAddress is a crowd from one address: it may hold a part of the handshakes and no more, so that others get in.
func TestOneAddress(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{limits: harness.Map{"handshakes": 80}, timeouts: impatient})
	const most = 80 / 2 // at most half of all
	g.guard(t, 0, func() {
		stranger := g.freshClient()
		before := counters(g.Metrics(t))
		var all []*peer
		for range 79 {
			p := g.connect(t, stranger)
			p.send(be32(10_000)) // a startup that never comes
			all = append(all, p)
		}
		g.goodLogin(t)
		for _, p := range all {
			p.silence()
		}
		g.login(t, "acme", stranger).quit() // the places that his own connections held are free again
		harness.Eventually(t, patience, fmt.Sprintf("%d of 79 are turned away", 79-most), func() bool {
			return moves(refusal("limit"))(before, counters(g.Metrics(t))) >= 79-most
		})
	})
}
