// Rule R8: what a hostile connection costs in memory, in each place where one can stand.

package hostile

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

const (
	// held is how many connections stand in one place.
	held = 200
	// perConnection is how many bytes one may cost. The catalogue's rule is a megabyte; what is really needed is a
	// goroutine's stack, the read-ahead, a message of bounded length and, in TLS, a record.
	perConnection = 256 << 10
	// pendingMiB is limits.pending_memory_mib. A tenant has half of it, and a quarter of that is for what is read ahead
	// of clients that are kept waiting, however few of them send much; until it is collected, garbage is as much again.
	pendingMiB = 256
	perSession = perConnection + 2*(pendingMiB<<20)/2/4/held
	// chance is how many more goroutines than usual one look may find: those of a session that ends, or of the look itself.
	chance = 5
)

// places are where a connection can be held for as long as the gate's time-outs allow, or what is refused at once though
// it claims much.
var places = []struct {
	id, name string
	headless bool        // no header first
	gone     bool        // it is refused
	play     func(*peer) // puts it there; nil: nothing
}{
	{id: "P37", name: "nothing", headless: true},
	{id: "P36", name: "half a header, v1", headless: true, play: sends([]byte("PROXY TCP4 198.51.100.7 "))},
	{id: "P30", name: "half a header, v2", headless: true, play: sends(v2Claimed(v2Proxy, v2TCP4, 500, make([]byte, 200)))},
	{id: "P30", name: "a header that claims 64 KiB", headless: true, gone: true, play: sends(v2Claimed(v2Proxy, v2TCP4, 65535, make([]byte, 8000)))},
	{id: "S02", name: "nothing after the header"},
	{id: "S03", name: "half a startup", play: sends(be32(10_000), be32(v30), make([]byte, 5000))},
	{id: "S09", name: "a startup that claims 2 GiB - 1", gone: true, play: sends(be32(0x7fffffff), be32(v30), make([]byte, 8000))},
	{id: "S02", name: "nothing after SSLRequest", play: func(p *peer) { p.send(sslRequest); p.byteAnswer('S') }},
	{id: "S48", name: "half a ClientHello of 16 KiB", play: sends([]byte("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"), make([]byte, 8000))},
	{id: "S48", name: "a ClientHello that claims 16 MiB", gone: true, play: sends([]byte("\x16\x03\x01\x00\x04\x01\xff\xff\xff"))},
	{id: "A30", name: "silence when asked for a password", play: func(p *peer) { p.send(appStartup()); p.auth(10) }},
	{id: "A17", name: "a SASL message that claims 1 GB", gone: true, play: func(p *peer) {
		p.send(appStartup())
		p.auth(10)
		p.send(claimed('p', 1_000_000_000, make([]byte, 8000)))
	}},
	{id: "A16", name: "half a SASL message", play: func(p *peer) {
		p.send(appStartup())
		p.auth(10)
		p.send(claimed('p', 1000, make([]byte, 500)))
	}},
	{id: "B14", name: "half a final message", play: func(p *peer) {
		p.send(appStartup())
		p.begin(&scramClient{})
		p.send(claimed('p', 1000, make([]byte, 500)))
	}},
}

// sends is a play without an answer.
func sends(pieces ...[]byte) func(*peer) {
	return func(p *peer) { p.send(pieces...) }
}

// TestMemory holds many connections in one place after the other and weighs the gate. What an earlier place has left
// behind counts against the later ones.
func TestMemory(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{bare: true, timeouts: harness.Map{"proxy_header": "5m", "login": "5m"}})
	g.goodLogin(t)
	empty, goroutines := g.weigh(t), g.Goroutines(t)
	for _, place := range places {
		t.Run(place.id+"/"+place.name, func(t *testing.T) {
			g.guard(t, 0, func() {
				all := g.hold(t, func() *peer {
					p := g.dial(t, behindProxy)
					if !place.headless {
						p.send(v2From(g.freshClient()))
					}
					if place.play != nil {
						place.play(p)
					}
					return p
				})
				if place.gone {
					for _, p := range all {
						p.ended()
					}
				} else {
					harness.Eventually(t, patience, "all are there", func() bool { return g.Goroutines(t) >= goroutines+held-chance })
				}
				g.judgeWeight(t, empty, perConnection)
				for _, p := range all {
					p.Close()
				}
			})
		})
	}
}

// TestMemoryOfSessions has sessions that begin a query of a gigabyte, more of them than the pool has servers (Q07).
func TestMemoryOfSessions(t *testing.T) {
	t.Parallel()
	narrow := harness.Acme(t, harness.Postgres(t), "postgres")
	narrow["id"], narrow["pool"] = "narrow", harness.Map{"size": 2}
	g := startGate(t, gateOptions{bare: true, timeouts: brief, limits: harness.Map{"pending_memory_mib": pendingMiB}, tenants: []harness.Map{narrow}})
	g.goodLogin(t)
	empty := g.weigh(t)
	const dials = 20 // who comes next may get a server before it is known that he has left
	g.guard(t, dials, func() {
		all := g.hold(t, func() *peer {
			p := g.connect(t, g.freshClient())
			p.send(startup(v30, "user", "app.narrow"))
			p.prove(&scramClient{password: canaryRight})
			p.until('Z')
			_ = p.SetWriteDeadline(time.Now().Add(5 * time.Millisecond)) // the gate reads no more than it has a use for
			p.send(claimed('Q', 1<<30-2, bytes.Repeat([]byte{' '}, 2<<20)))
			return p
		})
		harness.Eventually(t, patience, "all are there", func() bool {
			return g.Metric(t, "postern_client_connections", map[string]string{"tenant": "narrow"}) == held
		})
		g.judgeWeight(t, empty, perSession)
		for _, p := range all {
			_ = p.Conn.(*net.TCPConn).SetLinger(0) // a reset is noticed even by who does not read
			p.Close()
		}
	})
}

// hold begins to watch the gate's memory and makes the connections.
func (g *gate) hold(t *testing.T, one func() *peer) (all []*peer) {
	t.Helper()
	g.WatchPeakRSS(t)
	for range held {
		all = append(all, one())
	}
	return all
}

// weight is memory in bytes: what was resident at most, and what the runtime has ever asked the system for. Untouched
// memory is not resident, and nobody is to get a gigabyte by claiming it all the same.
type weight struct{ resident, asked int64 }

func (g *gate) weigh(t *testing.T) weight {
	t.Helper()
	return weight{g.PeakRSS(t), int64(g.Metrics(t)["go_memstats_sys_bytes"])}
}

// judgeWeight compares, when the gate's memory rises no more: what was sent has been read then.
func (g *gate) judgeWeight(t *testing.T, empty weight, allowed int64) {
	t.Helper()
	const looks = 5
	now, same := g.weigh(t), 0
	harness.Eventually(t, patience, "the gate's memory settles", func() bool {
		if same++; g.weigh(t) != now {
			now, same = g.weigh(t), 0
		}
		return same >= looks
	})
	resident, asked := (now.resident-empty.resident)/held, (now.asked-empty.asked)/held
	t.Logf("%d kB resident and %d kB asked for, each of %d", resident>>10, asked>>10, held)
	if resident > allowed || asked > allowed {
		t.Errorf("R8: a connection costs %d kB and asks for %d kB; %d kB are allowed", resident>>10, asked>>10, allowed>>10)
	}
}

// ended reads whatever comes, and the end of the connection.
func (p *peer) ended() {
	p.t.Helper()
	p.arm()
	if _, err := io.Copy(io.Discard, p.br); errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal("not closed")
	}
}
