// What a row is, and how a table of them is run.

package hostile

import (
	"fmt"
	"slices"
	"testing"
)

// row is one line of the catalogue.
type row struct {
	id, name string
	on       string      // listener; "": behindProxy, with a header of a fresh client before everything else
	play     func(*peer) // sends, and judges the answers to the end of the connection
	moves    []string    // R6; nil: nothing but what the header counts
}

// run plays the rows one after another, so that what each of them moves can be told.
func (g *gate) run(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.id+"/"+r.name, func(t *testing.T) {
			moves := r.moves
			var p *peer
			before := counters(g.Metrics(t))
			if r.on == "" {
				p = g.connect(t, g.freshClient())
				moves = append(slices.Clone(moves), header("ok"))
			} else {
				p = g.dial(t, r.on)
			}
			r.play(p)
			p.Close()
			g.moved(t, before, moves...)
		})
	}
}

// The counters that rows move.

func header(result string) string {
	return fmt.Sprintf("postern_proxy_headers_total{result=%q}", result)
}
func refusal(reason string) string { return fmt.Sprintf("postern_refusals_total{reason=%q}", reason) }
func cancel(result string) string  { return fmt.Sprintf("postern_cancels_total{result=%q}", result) }
func login(tenant, result string) string {
	return fmt.Sprintf("postern_logins_total{result=%q,tenant=%q}", result, tenant)
}

// The usual plays.

// silent sends and is closed without a word.
func silent(pieces ...[]byte) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send(pieces...)
		p.silence()
	}
}

// refused sends and gets a FATAL error.
func refused(code string, pieces ...[]byte) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send(pieces...)
		p.fatal(code)
	}
}

// asked sends, is asked for a password, and leaves.
func asked(pieces ...[]byte) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send(pieces...)
		p.auth(10)
	}
}

// after plays behind a first part.
func after(first []byte, play func(*peer)) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send(first)
		play(p)
	}
}
