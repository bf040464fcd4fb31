// What tests of the door have: visits of both kinds, and what there is to see of one.

package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// startupOf is the body of a startup message.
func startupOf(t testing.TB, params ...string) []byte {
	t.Helper()
	var list []pgwire.Param
	for i := 0; i < len(params); i += 2 {
		list = append(list, pgwire.Param{Name: params[i], Value: params[i+1]})
	}
	body, err := pgwire.StartupBody(list)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// proveBySCRAM is a client's side of the conversation, up to its last message.
func proveBySCRAM(conn io.ReadWriter, pw string) error {
	say := func(body []byte) error {
		_, err := conn.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(body)), body...))
		return err
	}
	hear := func() ([]byte, error) {
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil, err
		}
		body := make([]byte, int(head[3])<<8|int(head[4])-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			return nil, err
		}
		if head[0] == pgwire.ErrorResponse {
			return nil, pgwire.ParseError(body)
		}
		return body[4:], nil
	}
	if _, err := hear(); err != nil {
		return err
	}
	c := scram.NewClient(scram.Credentials{Password: pw}, scram.ChannelBinding{}, false, scram.ClientOptions{})
	first := append(append([]byte(scram.Mechanism), 0, 0, 0, 0, byte(len(c.First()))), c.First()...)
	if err := say(first); err != nil {
		return err
	}
	challenge, err := hear()
	if err != nil {
		return err
	}
	final, err := c.Final(challenge)
	if err != nil {
		return err
	}
	return say(final)
}

// proof is how a caller comes by, beside a password that it tells.
type proof func(t testing.TB, pw string) Proof

func tells(_ testing.TB, pw string) Proof { return Password(pw) }

func converses(t testing.TB, pw string) Proof {
	ours, theirs := net.Pipe()
	var client sync.WaitGroup
	client.Go(func() { _ = proveBySCRAM(ours, pw) })
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
		client.Wait()
	})
	return SASL(theirs)
}

// visited is what there is to see of a visit.
type visited struct {
	Told      string // severity, SQLSTATE, message, detail, hint
	Refusals  map[string]int
	Logins    string // of tenants: succeeded, failed, aborted; refused, by reason
	Log       string
	Forgotten bool // nothing of the visit is held
}

var volatile = regexp.MustCompile(`^time=\S+ |client=\S+ |\d+ seconds`)

// endOf is what became of one visit, whose end it waits for.
func (d *door) endOf(told string) visited {
	d.t.Helper()
	o := visited{Told: volatile.ReplaceAllString(told, ""), Refusals: d.refusals(), Forgotten: d.rests()}
	d.gate.Close()
	known := slices.SortedFunc(slices.Values(d.gate.runtimeTenants()), func(a, b *tenant) int { return cmp.Compare(a.id, b.id) })
	for _, tt := range known {
		n := &tt.counters
		o.Logins += fmt.Sprintf("%s: %d %d %d; ", tt.id, n.loginsOK.Load(), n.loginsFailed.Load(), n.loginsAborted.Load())
	}
	for _, id := range slices.Sorted(maps.Keys(d.gate.denials.byID)) {
		for r := range d.gate.denials.byID[id].refused {
			o.Logins += fmt.Sprintf("%s: %s %d; ", id, reason(r), d.gate.denials.byID[id].refused[r].Load())
		}
	}
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "client refused") {
			o.Log += volatile.ReplaceAllString(line, "")
		}
	}
	return o
}

// fill has somebody take a place, for as long as the gate is there.
func (d *door) fill(tenant string, at place) {
	conf, _ := d.directory.Tenant(tenant)
	if err := d.gate.reserve(d.t.Context(), d.gate.tenant(tenant), conf, at); err != nil {
		d.t.Fatal(err)
	}
	d.taken++
}

// rests waits until nobody else has a place, or is about to get one.
func (d *door) rests() bool {
	g := d.gate
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		admitted, underWay := int64(0), len(g.handshakes)+len(g.proofs)
		for _, tt := range g.runtimeTenants() {
			admitted += tt.admitted.Load()
		}
		g.perClient.with(func(m map[netip.Addr]int) { underWay += len(m) })
		if g.clients.Load() == d.taken && admitted == d.taken && underWay == 0 {
			return true
		}
	}
	return false
}

func spellError(e *pgwire.Error) string {
	return fmt.Sprintf("%s %s %s|%s|%s", e.Severity, e.Code, e.Message, e.Detail, e.Hint)
}

// byTCP makes a visit over a connection, and answers with the error that is told.
func (d *door) byTCP(startup []byte, pw string) (told string) {
	d.visit(&Listener{Name: "plain", Mode: "transaction"}, func(conn net.Conn) {
		_, _ = io.WriteString(conn, packet(pgwire.Version30, string(startup)))
		err := proveBySCRAM(conn, pw)
		for err == nil {
			var head [5]byte
			if _, err = io.ReadFull(conn, head[:]); err != nil {
				break
			}
			body := make([]byte, int(head[3])<<8|int(head[4])-4)
			if _, err = io.ReadFull(conn, body); err == nil && head[0] == pgwire.ErrorResponse {
				err = pgwire.ParseError(body)
			}
		}
		var e *pgwire.Error
		if !errors.As(err, &e) {
			d.t.Errorf("told nothing: %v", err)
			return
		}
		told = spellError(e)
	})
	return told
}
