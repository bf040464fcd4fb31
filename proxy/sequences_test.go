// Numbers drawn from sequences: a client never reads another's.

package proxy

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"github.com/postern/postern/tenants"
)

// noSequences is what a server says of currval where nothing was drawn.
var noSequences = (&pgwire.Error{Severity: pgwire.Err, Code: "55000", Message: "lastval is not yet defined in this session"}).Append(nil)

// sequencePolicy has the tenant treat sequences so.
func (b *bench) sequencePolicy(p tenants.Policy) {
	conf, _ := b.gate.opts.Directory.Tenant("acme")
	changed := *conf
	changed.State = map[tenants.StateKind]tenants.Policy{tenants.StateSequence: p}
	b.tenant.loop.Call(func() { b.tenant.policies = policiesOf(&changed) })
}

// asks has a client say something, which the server hears as it should, and hear the answer.
func (b *bench) asks(client, server net.Conn, says, heard, answer, got []byte) {
	b.t.Helper()
	if _, err := client.Write(says); err != nil {
		b.t.Fatal(err)
	}
	expect(b.t, server, heard, fmt.Sprintf("what was said as %q", says))
	if _, err := server.Write(answer); err != nil {
		b.t.Fatal(err)
	}
	expect(b.t, client, got, "answer")
}

// draws has a client use the server, so that what it has drawn may be there.
func (b *bench) draws(client, server net.Conn) {
	b.t.Helper()
	text, answer := pgwire.AppendQuery(nil, "select nextval('s')"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	b.asks(client, server, text, text, answer, answer)
}

// readers are messages that read what was drawn, as the server hears them, its answers, and what the client gets of them.
func readers() map[string]exchange {
	out := make(map[string]exchange)
	discard := pgwire.AppendQuery(nil, link.DiscardSequences)
	discarded := pgwire.AppendReady(tagged(nil, link.DiscardSequences), 'I')
	failed := pgwire.AppendReady(bytes.Clone(noSequences), 'I')

	text := pgwire.AppendQuery(nil, `select 1 from pg_catalog."CurrVal" where false; select LASTVAL()`)
	out["a Query"] = exchange{text, append(bytes.Clone(discard), text...), append(bytes.Clone(discarded), failed...), failed}

	call := append(pgwire.AppendHeader(nil, pgwire.FunctionCall, 10), 0, 0, 0x09, 0xff, 0, 0, 0, 0, 0, 0)
	out["a FunctionCall"] = exchange{call, append(bytes.Clone(discard), call...), append(bytes.Clone(discarded), failed...), failed}

	parse := pgwire.AppendBind(pgwire.AppendParse(nil, "", "select currval($1)"), "", "", []byte("s"))
	rest := pgwire.AppendSync(pgwire.AppendExecute(nil, ""))
	within := append(tagged(empty("312"), link.DiscardSequences), empty("33")...)
	out["an extended round"] = exchange{append(bytes.Clone(parse), rest...), append(lease.AppendDiscardWithin(bytes.Clone(parse)), rest...),
		append(append(empty("12"), within...), failed...), append(empty("12"), failed...)}

	// Behind a message of an exchange that is open, a Query must not come in between.
	open := pgwire.AppendParse(nil, "", "select 1")
	out["a Query in an open exchange"] = exchange{append(bytes.Clone(open), text...), append(lease.AppendDiscardWithin(bytes.Clone(open)), text...),
		append(append(empty("1"), within...), failed...), append(empty("1"), failed...)}
	return out
}

// TestForeignNumbersAreForgotten before they are read, and before nothing else.
func TestForeignNumbersAreForgotten(t *testing.T) {
	for name, e := range readers() {
		for _, mode := range []poolMode{transactionMode, statementMode} {
			if mode == statementMode && !strings.Contains(name, "extended") {
				continue // which waits for the first answer before it says more
			}
			t.Run(fmt.Sprint(name, " in mode ", mode), func(t *testing.T) {
				for at := range e.says {
					b := newBench(t)
					b.sequencePolicy(tenants.PolicyReset)
					server := b.server()
					first, second := b.client(mode), b.client(mode)
					b.draws(first, server)
					b.split(second, e.says, at)
					expect(t, server, e.heard, fmt.Sprintf("request split at %d", at))
					b.split(server, e.answer, min(at, len(e.answer)))
					expect(t, second, e.got, fmt.Sprintf("answer split at %d", at))
					if at > 0 || mode == statementMode {
						continue
					}
					b.draws(second, server)
					// Now they are its own, until somebody else has had the server.
					own := pgwire.AppendQuery(nil, "select lastval()")
					answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
					b.asks(second, server, own, own, answer, answer)
					other := pgwire.AppendQuery(nil, "select 1")
					b.asks(first, server, other, other, answer, answer)
					b.asks(second, server, own, append(pgwire.AppendQuery(nil, link.DiscardSequences), own...),
						append(pgwire.AppendReady(tagged(nil, link.DiscardSequences), 'I'), answer...), answer)
				}
			})
		}
	}
}

func TestStatementModeWaitsForTheDiscard(t *testing.T) {
	b := newBench(t)
	b.sequencePolicy(tenants.PolicyReset)
	server := b.server()
	first, second := b.client(statementMode), b.client(statementMode)
	b.draws(first, server)
	text, discard := pgwire.AppendQuery(nil, "select lastval()"), pgwire.AppendQuery(nil, link.DiscardSequences)
	if _, err := second.Write(text); err != nil {
		t.Fatal(err)
	}
	expect(t, server, discard, "in front")
	if _, err := server.Write(pgwire.AppendReady(tagged(nil, link.DiscardSequences), 'I')); err != nil {
		t.Fatal(err)
	}
	expect(t, server, text, "and then")
	failed := pgwire.AppendReady(bytes.Clone(noSequences), 'I')
	if _, err := server.Write(failed); err != nil {
		t.Fatal(err)
	}
	expect(t, second, failed, "its error")
}

// TestTransactionsThatReadSequences keep what they have drawn. Once one has read, others begin without what is not theirs.
func TestTransactionsThatReadSequences(t *testing.T) {
	b := newBench(t)
	b.sequencePolicy(tenants.PolicyReset)
	server := b.server()
	first, second := b.client(transactionMode), b.client(transactionMode)
	b.draws(first, server)
	say := func(client net.Conn, text string, status byte, before ...byte) {
		t.Helper()
		q, answer := pgwire.AppendQuery(nil, text), pgwire.AppendReady(tagged(nil, "X"), status)
		heard, said := q, answer
		if len(before) > 0 {
			heard = append(pgwire.AppendQuery(nil, link.DiscardSequences), q...)
			said = append(pgwire.AppendReady(tagged(nil, link.DiscardSequences), before[0]), answer...)
		}
		b.asks(client, server, q, heard, said, answer)
	}
	say(second, "begin", 'T')
	say(second, "select nextval('s')", 'T')
	say(second, "select currval('s')", 'T')
	say(second, "commit", 'I')

	say(first, "begin", 'T', 'I')
	say(first, "insert into t default values", 'T')
	say(first, "select lastval()", 'T')
	say(first, "commit", 'I')
	say(first, "select 1", 'I') // still its own
	say(second, "select 1", 'I', 'I')
}

// TestABlockThatReadsFirst has drawn nothing yet that it could lose.
func TestABlockThatReadsFirst(t *testing.T) {
	b := newBench(t)
	b.sequencePolicy(tenants.PolicyReset)
	server := b.server()
	first, second := b.client(transactionMode), b.client(transactionMode)
	b.draws(first, server)
	begin, began := pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
	b.asks(second, server, begin, begin, began, began)
	text, failed := pgwire.AppendQuery(nil, "select lastval()"), pgwire.AppendReady(bytes.Clone(noSequences), 'E')
	b.asks(second, server, text, append(pgwire.AppendQuery(nil, link.DiscardSequences), text...),
		append(pgwire.AppendReady(tagged(nil, link.DiscardSequences), 'T'), failed...), failed)
}

func TestSequencePolicies(t *testing.T) {
	answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	text := pgwire.AppendQuery(nil, "select lastval()")
	t.Run("allow", func(t *testing.T) {
		b := newBench(t)
		b.sequencePolicy(tenants.PolicyAllow)
		server := b.server()
		first, second := b.client(transactionMode), b.client(transactionMode)
		b.draws(first, server)
		b.asks(second, server, text, text, answer, answer)
	})
	t.Run("refuse", func(t *testing.T) {
		b := newBench(t)
		b.sequencePolicy(tenants.PolicyRefuse)
		server := b.server()
		first := b.client(transactionMode)
		b.draws(first, server)
		failed := pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "42601", Message: "?"}).Append(nil), 'I')
		refusal := pgwire.AppendReady(b.gate.refusals[refuseState].Append(nil), 'I')
		b.asks(first, server, text, pgwire.AppendSync(pgwire.AppendRefusal(nil)), failed, refusal)
		call := append(pgwire.AppendHeader(nil, pgwire.FunctionCall, 10), 0, 0, 0x09, 0xff, 0, 0, 0, 0, 0, 0)
		b.asks(first, server, call, pgwire.AppendSync(pgwire.AppendRefusal(nil)), failed, refusal)
	})
	t.Run("pin", func(t *testing.T) {
		b := newBench(t)
		b.sequencePolicy(tenants.PolicyPin)
		server := b.server()
		first, second := b.client(transactionMode), b.client(transactionMode)
		b.draws(first, server)
		b.asks(first, server, text, text, answer, answer) // which it has kept
		another := b.server()                             // before anybody waits for it, who would have it dialed
		if _, err := second.Write(text); err != nil {
			t.Fatal(err)
		}
		expect(t, another, text, "on another server, which is new")
	})
	t.Run("pin after another", func(t *testing.T) {
		b := newBench(t)
		b.sequencePolicy(tenants.PolicyReset)
		server := b.server()
		first, second := b.client(transactionMode), b.client(transactionMode)
		b.draws(first, server)
		b.sequencePolicy(tenants.PolicyPin)
		draw := pgwire.AppendQuery(nil, "select nextval('s')")
		b.asks(second, server, draw, append(pgwire.AppendQuery(nil, link.DiscardSequences), draw...),
			append(pgwire.AppendReady(tagged(nil, link.DiscardSequences), 'I'), answer...), answer)
		b.asks(second, server, text, text, answer, answer)
	})
	t.Run("pin by a tag", func(t *testing.T) {
		b := newBench(t)
		b.sequencePolicy(tenants.PolicyPin)
		server := b.server()
		first := b.client(transactionMode)
		hidden, inserted := pgwire.AppendQuery(nil, "execute s"), pgwire.AppendReady(tagged(nil, "INSERT 0 1"), 'I')
		b.asks(first, server, hidden, hidden, inserted, inserted)
		b.tenant.loop.Call(func() {
			if c := b.tenant.clients[0]; c.has.Pins != sqltext.StateSequence || c.server == nil {
				t.Errorf("it keeps its server for %v", c.has.Pins.Names())
			}
		})
		gone := pgwire.AppendReady(tagged(nil, "DISCARD SEQUENCES"), 'I')
		discard := pgwire.AppendQuery(nil, "discard sequences")
		b.asks(first, server, discard, discard, gone, gone)
		b.settle()
		b.tenant.loop.Call(func() {
			if c := b.tenant.clients[0]; c.has.Pins != 0 || c.server != nil {
				t.Errorf("it still keeps its server for %v", c.has.Pins.Names())
			}
		})
	})
}

func TestSeeds(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		q := appendSeed(nil)
		text := string(q[pgwire.HeaderSize : len(q)-1])
		var seed float64
		if _, err := fmt.Sscanf(text, "SELECT pg_catalog.setseed(%g)", &seed); err != nil || seed < -1 || seed > 1 {
			t.Fatalf("%s: %v", text, err)
		}
		seen[text] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d seeds of 100 are different", len(seen))
	}
}

// TestAKeptServerIsFreeOfForeignNumbers before its client draws any.
func TestAKeptServerIsFreeOfForeignNumbers(t *testing.T) {
	b := newBench(t)
	b.sequencePolicy(tenants.PolicyReset)
	b.tenant.loop.Call(func() { b.tenant.policies.Pin |= sqltext.StateLoad })
	server := b.server()
	first, second := b.client(transactionMode), b.client(transactionMode)
	b.draws(first, server)
	load, loaded := pgwire.AppendQuery(nil, "load 'x'"), pgwire.AppendReady(tagged(nil, "LOAD"), 'I')
	b.asks(second, server, load, load, loaded, loaded)
	expect(t, server, pgwire.AppendQuery(nil, link.DiscardSequences), "once it is the client's")
	if _, err := server.Write(pgwire.AppendReady(tagged(nil, link.DiscardSequences), 'I')); err != nil {
		t.Fatal(err)
	}
	answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	for _, text := range []string{"select nextval('s')", "select currval('s')", "select 1", "select lastval()"} {
		q := pgwire.AppendQuery(nil, text)
		b.asks(second, server, q, q, answer, answer)
	}
}

// TestASessionKeepsItsOwnNumbers, also if those of others could not be forgotten before it.
func TestASessionKeepsItsOwnNumbers(t *testing.T) {
	b := newBench(t)
	b.sequencePolicy(tenants.PolicyReset)
	server := b.server()
	b.draws(b.client(transactionMode), server)
	session := b.arrives(sessionMode)
	expect(t, server, pgwire.AppendQuery(nil, link.DiscardSequences), "before a session")
	late := (&pgwire.Error{Severity: pgwire.Err, Code: "57014", Message: "canceling statement due to statement timeout"}).Append(nil)
	if _, err := server.Write(pgwire.AppendReady(late, 'I')); err != nil {
		t.Fatal(err)
	}
	b.greeted(session)
	b.draws(session, server)
	b.silent(server, "its own number is taken away")
}
