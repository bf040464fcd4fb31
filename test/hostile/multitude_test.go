// As many hostile sockets as the catalogue says: P36, P37 and A30 with ten thousand at a time, P40 with a hundred thousand
// addresses.

package hostile

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

const (
	// multitude is the catalogue's number of sockets. Where fewer files may be open, spare of them are for other things.
	multitude, spare = 10_000, 1500
	// perSocket is how many bytes one may cost, when what the gate needs anyway is nothing beside so many.
	perSocket = 32 << 10
)

// TestMultitude lets ten thousand stand in one place, while somebody else works and somebody new comes.
func TestMultitude(t *testing.T) {
	t.Parallel()
	many := harness.Descriptors(t, multitude+spare) - spare
	const headerEnd = 40 * time.Second // long enough to have all of them there at a time: it takes a few seconds
	// All of it fits into the files that may be open, or there would be room for fewer.
	limits := harness.Map{"handshakes": many + spare/10, "clients": spare / 10}
	g := startGate(t, gateOptions{bare: true, crowd: many, limits: limits,
		timeouts: harness.Map{"proxy_header": headerEnd.String(), "login": "5m"}})
	resident := g.RSS(t)
	gather := func(t *testing.T, begin func(p *peer)) []*peer {
		t.Helper()
		goroutines := g.Goroutines(t)
		all := make([]*peer, many)
		began := time.Now()
		for i := range all {
			all[i] = g.dial(t, behindProxy)
			begin(all[i])
		}
		harness.Eventually(t, patience, "all are let in", func() bool { return g.Goroutines(t) >= goroutines+many-chance })
		took := time.Since(began)
		g.goodLogin(t) // while they are all there
		each := (g.RSS(t) - resident) / int64(many)
		t.Logf("%d are there after %v, at %d kB each", many, took, each>>10)
		if each > perSocket {
			t.Errorf("R8: %d kB for each, %d are allowed", each>>10, perSocket>>10)
		}
		return all
	}
	t.Run("P37 P36/nothing, and then a header that trickles", func(t *testing.T) {
		g.guard(t, 0, func() {
			began := time.Now()
			all := gather(t, func(*peer) {})
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for i := 0; time.Since(began) < headerEnd; i++ {
				for _, p := range all {
					p.send([]byte{"PROXY UNKNOWN                                   "[i]})
				}
				<-tick.C
			}
			for _, p := range all {
				p.silence()
				p.Close()
			}
			if took := time.Since(began); took > 3*headerEnd {
				t.Errorf("the last is closed after %v", took)
			}
		})
	})
	t.Run("A30/silence when asked for a password", func(t *testing.T) {
		g.guard(t, 0, func() {
			for _, p := range gather(t, func(p *peer) { p.send(v2From(g.freshClient()), appStartup()); p.auth(10) }) {
				p.Close()
			}
		})
	})
}

// TestNoRoomForAMultitude is the same without room for them: who is inside works on, and there is room again afterwards.
func TestNoRoomForAMultitude(t *testing.T) {
	t.Parallel()
	const room, come = 200, 2000
	g := startGate(t, gateOptions{timeouts: impatient, limits: harness.Map{"handshakes": room}})
	g.guard(t, 0, func() {
		before := counters(g.Metrics(t))
		for range come {
			g.dial(t, behindProxy)
		}
		harness.Eventually(t, patience, "all are turned away or run out of time", func() bool {
			now := counters(g.Metrics(t))
			return moves(refusal("limit"))(before, now)+moves(header("timeout"))(before, now) == come
		})
		if n := moves(header("timeout"))(before, counters(g.Metrics(t))); n < room {
			t.Errorf("room for %v, %d may come", n, room)
		}
	})
}

// TestAddressesThatRotate is P40 and I-18: what is remembered of clients is bounded, however many addresses they have and
// whatever they do wrong there: a wrong password, a cancel key that nobody has, an address that is not allowed. In the
// longer suite they are more than the gate keeps counters for.
func TestAddressesThatRotate(t *testing.T) {
	t.Parallel()
	addresses := 2000
	if harness.Long() {
		addresses = 120_000
	}
	// What the gate may still grow by when it has seen half of them: in the longer suite all its tables are full then.
	// Eight megabytes are the collector's slack; without a bound the other half would cost 66.
	const still = 24 << 20
	g := startGate(t, gateOptions{bare: true})
	g.guard(t, 0, func() {
		series := len(g.Metrics(t))
		g.strangers(t, addresses/2, 1)
		g.goodLogin(t)
		half := g.RSS(t)
		g.strangers(t, addresses/2, 2)
		all := g.RSS(t)
		t.Logf("%d addresses; %d kB after half of them, %d kB after all", addresses, half>>10, all>>10)
		if all > half+still {
			t.Errorf("I-18: grew from %d to %d kB", half>>10, all>>10)
		}
		if n := len(g.Metrics(t)); n > series {
			t.Errorf("I-23: %d series, %d before", n, series)
		}
	})
}

// strangers do everything wrong once, from so many addresses.
func (g *gate) strangers(t *testing.T, n int, seed uint64) {
	t.Helper()
	const atOnce = 8
	var all errgroup.Group
	for worker := range uint64(atOnce) {
		random := rand.New(rand.NewPCG(seed, worker))
		all.Go(func() error {
			for range n / atOnce {
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, random.Uint32()|1<<28))), 40000)
				if err := g.stranger(t, from); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// stranger does them from one address, over connections from anywhere on this computer: one address of it has ports for
// no more than a few ten thousand within a minute.
func (g *gate) stranger(t *testing.T, from netip.AddrPort) error {
	a := from.Addr().As4()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, a[2], 1+a[3]%200)}}
	visit := func(play func(p *peer) error) error {
		conn, err := dialer.Dial("tcp4", g.Addr(t, behindProxy))
		if err != nil {
			return err
		}
		defer conn.Close()
		p := &peer{t: t, Conn: conn, br: bufio.NewReader(conn)}
		p.send(v2From(from))
		return play(p)
	}
	answer := func(p *peer, want byte) (body []byte, err error) {
		kind, body, err := p.message()
		if err == nil && kind != want {
			err = fmt.Errorf("message %q %q, want %q", kind, body, want)
		}
		return body, err
	}
	refused := func(p *peer) error {
		p.send(startup(v30, "user", "app.walled"))
		_, err := answer(p, 'E')
		return err
	}
	failed := func(p *peer) error {
		p.send(appStartup())
		if _, err := answer(p, 'R'); err != nil {
			return err
		}
		s := &scramClient{}
		p.send(initial(scramPlain, s.first()))
		challenge, err := answer(p, 'R')
		if err != nil {
			return err
		}
		// What is no password's proof saves the time to hash one.
		p.send(message('p', []byte("c=biws,r="+attribute(challenge[4:], "r")+",p="+base64.StdEncoding.EncodeToString(make([]byte, 32)))))
		_, err = answer(p, 'E')
		return err
	}
	guessed := func(p *peer) error {
		p.send(packet(codeCancel, join(a[:], a[:])))
		p.arm()
		if b, err := p.br.ReadByte(); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("read %q, %v; want the end", b, err)
		}
		return nil
	}
	return errors.Join(visit(refused), visit(failed), visit(guessed))
}
