// Texts that are not read to their end, and state that nothing shows.

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"github.com/postern/postern/tenants"
)

// policy has the tenant treat some kinds of state otherwise.
func (b *bench) policy(change func(*tenants.Tenant)) {
	conf, _ := b.gate.opts.Directory.Tenant("acme")
	changed := *conf
	change(&changed)
	b.tenant.loop.Call(func() { b.tenant.policies = policiesOf(&changed) })
}

// keeping is the default for what cannot be set elsewhere.
func keeping(conf *tenants.Tenant) {
	conf.State = map[tenants.StateKind]tenants.Policy{tenants.StateSet: tenants.PolicyTrack, tenants.StateAdvisoryLock: tenants.PolicyPin,
		tenants.StatePrepare: tenants.PolicyPin, tenants.StateLoad: tenants.PolicyPin, tenants.StateTemp: tenants.PolicyPin}
}

// first looks at the first client on the loop.
func (b *bench) first(look func(*client)) {
	b.t.Helper()
	b.settle()
	b.tenant.loop.Call(func() { look(b.tenant.clients[0]) })
}

// nothingFound answers the question what there is.
func nothingFound() []byte { return pgwire.AppendReady(tagged(noWaitFirst(), "SELECT 0"), 'I') }

// resets expects a reset and answers it.
func (b *bench) resets(server net.Conn) {
	b.t.Helper()
	expect(b.t, server, pgwire.AppendQuery(nil, "DISCARD ALL"), "reset")
	if typ, body := readMessage(b.t, server); typ != pgwire.Query || !bytes.HasPrefix(body, []byte("SELECT pg_catalog.setseed(")) {
		b.t.Fatalf("instead of a new seed: %q %q", typ, body)
	}
	_, _ = server.Write(pgwire.AppendReady(tagged(pgwire.AppendReady(tagged(nil, "DISCARD ALL"), 'I'), "SELECT 1"), 'I'))
	b.settle()
	if n := b.counts(); n.Idle != 1 {
		b.t.Errorf("the server was not kept: %+v", n)
	}
}

// TestLongQueries are read as a whole, and nobody is lent a server meanwhile.
func TestLongQueries(t *testing.T) {
	for _, size := range []int{20_000, 100_000, maxQuery - 100} {
		b := newBench(t)
		b.policy(keeping)
		server := b.server()
		conn := b.client(transactionMode)
		text := pgwire.AppendQuery(nil, "select '"+strings.Repeat("x", size)+"'")
		if _, err := conn.Write(text[:size/2]); err != nil {
			t.Fatal(err)
		}
		b.first(func(c *client) {
			if c.server != nil {
				t.Errorf("%d bytes: half a query holds a server", size)
			}
		})
		go conn.Write(text[size/2:])
		expect(t, server, text, "query")
		answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
		_, _ = server.Write(answer)
		expect(t, conn, answer, "answer")
		b.first(func(c *client) {
			if c.server != nil || c.has.Pins != 0 {
				t.Errorf("%d bytes: it keeps its server for %v", size, c.has.Pins.Names())
			}
		})
	}
}

// TestTooLongAQuery is not read. What can be asked is asked, and the rest is gone afterwards.
func TestTooLongAQuery(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	conn := b.client(transactionMode)
	text := pgwire.AppendQuery(nil, "select '"+strings.Repeat("x", maxQuery)+"'")
	go conn.Write(text)
	expect(t, server, text, "query")
	answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	_, _ = server.Write(answer)
	expect(t, conn, answer, "answer")
	expect(t, server, inspecting(sqltext.StateSet|sqltext.StateLock|sqltext.StatePrepared|sqltext.StateTemp), "question")
	_, _ = server.Write(nothingFound())
	b.resets(server)
	b.first(func(c *client) {
		if c.server != nil || c.has.Pins != 0 {
			t.Errorf("it keeps its server for %v", c.has.Pins.Names())
		}
	})
}

// TestTheEndOfALateMessage does not give the server back unseen.
func TestTheEndOfALateMessage(t *testing.T) {
	for _, always := range []bool{false, true} {
		b := newBench(t)
		b.policy(func(conf *tenants.Tenant) { keeping(conf); conf.ResetAlways = always })
		server := b.server()
		conn := b.client(transactionMode)
		text := pgwire.AppendQuery(nil, "select pg_advisory_lock(1)")
		late := append(pgwire.AppendHeader(nil, pgwire.CopyData, 20_000), make([]byte, 20_000)...)
		if _, err := conn.Write(append(bytes.Clone(text), late[:18_000]...)); err != nil {
			t.Fatal(err)
		}
		expect(t, server, text, "query")
		expect(t, server, late[:18_000], "what came too early")
		answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
		_, _ = server.Write(answer)
		expect(t, conn, answer, "answer")
		if _, err := conn.Write(late[18_000:]); err != nil {
			t.Fatal(err)
		}
		expect(t, server, late[18_000:], "the rest of it")
		expect(t, server, inspecting(sqltext.StateLock), "question")
		_, _ = server.Write(nothingFound())
		if always {
			b.resets(server)
		}
		b.first(func(c *client) {
			if c.server != nil {
				t.Error("it keeps its server")
			}
		})
	}
}

// TestAlwaysReset holds for those who leave, too.
func TestAlwaysReset(t *testing.T) {
	for name, says := range map[string][]byte{
		"behind a query":   append(pgwire.AppendQuery(nil, "select hidden()"), pgwire.AppendTerminate(nil)...),
		"in a transaction": pgwire.AppendQuery(nil, "begin"),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.policy(func(conf *tenants.Tenant) { conf.ResetAlways = true })
			server := b.server()
			conn := b.client(transactionMode)
			if _, err := conn.Write(says); err != nil {
				t.Fatal(err)
			}
			typ, _ := readMessage(t, server)
			if typ != pgwire.Query {
				t.Fatalf("%q", typ)
			}
			if name == "in a transaction" {
				began := pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
				_, _ = server.Write(began)
				expect(t, conn, began, "answer")
				conn.Close()
				expect(t, server, pgwire.AppendQuery(nil, "ROLLBACK"), "rollback")
				_, _ = server.Write(pgwire.AppendReady(tagged(nil, "ROLLBACK"), 'I'))
			} else {
				_, _ = server.Write(pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I'))
			}
			b.resets(server)
		})
	}
}

// TestALibraryOfOneThatLeft goes with its server.
func TestALibraryOfOneThatLeft(t *testing.T) {
	for name, left := range map[string]bool{"before": false, "after it has left": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.policy(keeping)
			server := b.server()
			conn := b.client(transactionMode)
			begin, began := pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
			b.asks(conn, server, begin, begin, began, began)
			load, loaded := pgwire.AppendQuery(nil, "load 'x'"), pgwire.AppendReady(tagged(nil, "LOAD"), 'T')
			if left {
				if _, err := conn.Write(load); err != nil {
					t.Fatal(err)
				}
				expect(t, server, load, "load")
				conn.Close()
				b.settle()
				_, _ = server.Write(loaded)
			} else {
				b.asks(conn, server, load, load, loaded, loaded)
				conn.Close()
			}
			if rest, err := io.ReadAll(server); err != nil || bytes.Contains(rest, []byte("DISCARD")) {
				t.Errorf("the server was kept: %q, %v", rest, err)
			}
		})
	}
}

// TestAQuestionThatFails is asked again, and then the server is reset.
func TestAQuestionThatFails(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	conn := b.client(transactionMode)
	text, answer := pgwire.AppendQuery(nil, "select pg_advisory_lock(1)"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	failed := pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "57014", Message: "canceling statement"}).Append(nil), 'I')
	b.asks(conn, server, text, text, answer, answer)
	expect(t, server, inspecting(sqltext.StateLock), "question")
	_, _ = server.Write(failed)
	expect(t, server, inspecting(sqltext.StateLock), "the question again")
	row := append(pgwire.AppendHeader(nil, pgwire.DataRow, 2+4+13+8), 0, 3, 0, 0, 0, 13)
	row = append(append(row, "advisory_lock"...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	_, _ = server.Write(pgwire.AppendReady(tagged(append(noWaitFirst(), row...), "SELECT 1"), 'I'))
	b.first(func(c *client) {
		if c.has.Pins != sqltext.StateLock {
			t.Errorf("it keeps its server for %v", c.has.Pins.Names())
		}
	})
	unlock := pgwire.AppendQuery(nil, "select pg_advisory_unlock(1)")
	b.asks(conn, server, unlock, unlock, answer, answer)
	expect(t, server, inspecting(sqltext.StateLock), "question")
	_, _ = server.Write(nothingFound())
	b.asks(conn, server, text, text, answer, answer)
	for range lease.MaxTries {
		expect(t, server, inspecting(sqltext.StateLock), "question")
		_, _ = server.Write(failed)
	}
	b.resets(server)
	b.first(func(c *client) {
		if c.server != nil || c.has.Pins != 0 {
			t.Errorf("it keeps its server for %v", c.has.Pins.Names())
		}
	})
}

// TestNoQuestionInTheWayOfACancel: it waits for the one, and the other does not reach it.
func TestNoQuestionInTheWayOfACancel(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	conn := b.client(transactionMode)
	text, answer := pgwire.AppendQuery(nil, "select pg_advisory_lock(1)"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	if _, err := conn.Write(text); err != nil {
		t.Fatal(err)
	}
	expect(t, server, text, "query")
	b.first(func(c *client) { c.server.cancels++ })
	_, _ = server.Write(answer)
	expect(t, conn, answer, "answer")
	b.silent(server, "it is asked while a cancel is on its way")
	b.first(func(c *client) {
		c.server.cancels--
		c.server.cancelled()
	})
	expect(t, server, inspecting(sqltext.StateLock), "question")
	b.first(func(c *client) {
		result := ""
		c.cancel(func(r string) { result = r })
		if result != "idle" || c.server.cancels != 0 {
			t.Errorf("a cancel meanwhile: %s", result)
		}
	})
	_, _ = server.Write(nothingFound())
	b.first(func(c *client) {
		if c.server != nil {
			t.Error("it keeps its server")
		}
	})
}

// TestWhatFailedKeepsNoServer, nor does it have it reset.
func TestWhatFailedKeepsNoServer(t *testing.T) {
	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "26000", Message: "?"}).Append(nil)
	unknown := pgwire.AppendSync(pgwire.AppendExecute(pgwire.AppendBind(nil, "", "nosuch"), ""))
	computed := pgwire.AppendQuery(nil, "select set_config('a.' || 'b', 'x', false), 1 / 0")
	several := pgwire.AppendQuery(nil, `set U&"a.b" = 1; select 1 / 0`)
	for name, e := range map[string]struct {
		says, answer []byte
		asked        sqltext.State
	}{
		"a statement that there is not": {unknown, failed, 0},
		"a computed name":               {computed, failed, sqltext.StateSet},
		"behind a SET":                  {several, append(tagged(nil, "SET"), failed...), sqltext.StateSet},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.policy(keeping)
			server := b.server()
			conn := b.client(transactionMode)
			answer := pgwire.AppendReady(bytes.Clone(e.answer), 'I')
			b.asks(conn, server, e.says, e.says, answer, answer)
			if e.asked != 0 {
				expect(t, server, inspecting(e.asked), "question")
				_, _ = server.Write(nothingFound())
			}
			b.first(func(c *client) {
				if n := c.pool.books.Counts(); c.server != nil || c.has.Pins != 0 || n.Idle != 1 {
					t.Errorf("it keeps its server for %v: %+v", c.has.Pins.Names(), n)
				}
			})
		})
	}
}

// TestNamesInABind are those of what a statement sets.
func TestNamesInABind(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	conn := b.client(transactionMode)
	round := pgwire.AppendParse(nil, "", "select set_config($1, $2, $3)")
	round = pgwire.AppendBind(round, "", "", []byte("My.Own"), []byte("not a name. no"), []byte("f"))
	round = pgwire.AppendSync(pgwire.AppendExecute(round, ""))
	answer := pgwire.AppendReady(tagged(empty("12"), "SELECT 1"), 'I')
	b.asks(conn, server, round, round, answer, answer)
	expect(t, server, inspecting(sqltext.StateSet, "my.own"), "question")
	_, _ = server.Write(nothingFound())
	b.first(func(c *client) {
		if c.server != nil {
			t.Errorf("it keeps its server for %v", c.has.Pins.Names())
		}
	})
}

// TestTooManyNames keep the server, since they cannot all be set elsewhere.
func TestTooManyNames(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	conn := b.client(transactionMode)
	for i := range params.MaxTracked + 1 {
		text, answer := pgwire.AppendQuery(nil, fmt.Sprintf("set a.b%d = 1", i)), pgwire.AppendReady(tagged(nil, "SET"), 'I')
		b.asks(conn, server, text, text, answer, answer)
		var names []string
		b.first(func(c *client) { names = c.has.Names })
		expect(t, server, inspecting(sqltext.StateSet, names...), "question")
		out := noWaitFirst()
		for _, name := range names {
			row := append(binaryField(binaryField([]byte{0, 3}, "named"), name), 0, 0, 0, 1, '1')
			out = append(pgwire.AppendHeader(out, pgwire.DataRow, len(row)), row...)
		}
		_, _ = server.Write(pgwire.AppendReady(tagged(out, "SELECT 1"), 'I'))
	}
	b.first(func(c *client) {
		if c.server == nil || c.has.Pins != sqltext.StateSet {
			t.Errorf("it keeps its server for %v only", c.has.Pins.Names())
		}
	})
}

func binaryField(dst []byte, s string) []byte {
	return append(append(dst, 0, 0, 0, byte(len(s))), s...)
}

// TestPoliciesForSettings: none of them leaves what a client has set to others.
func TestPoliciesForSettings(t *testing.T) {
	text, answer := pgwire.AppendQuery(nil, "do $$ begin execute 'set ' || 'a.b = 1'; end $$"), pgwire.AppendReady(tagged(nil, "DO"), 'I')
	for _, policy := range []tenants.Policy{tenants.PolicyTrack, tenants.PolicyPin, tenants.PolicyReset, tenants.PolicyRefuse} {
		t.Run(string(policy), func(t *testing.T) {
			b := newBench(t)
			b.policy(func(conf *tenants.Tenant) {
				conf.State = map[tenants.StateKind]tenants.Policy{tenants.StateSet: policy}
			})
			server := b.server()
			conn := b.client(transactionMode)
			b.asks(conn, server, text, text, answer, answer)
			if policy == tenants.PolicyTrack || policy == tenants.PolicyPin {
				expect(t, server, inspecting(sqltext.StateSet), "question")
				_, _ = server.Write(nothingFound())
			}
			b.resets(server)
		})
	}
	t.Run("names", func(t *testing.T) {
		b := newBench(t)
		b.policy(func(conf *tenants.Tenant) {
			conf.State = map[tenants.StateKind]tenants.Policy{tenants.StateSet: tenants.PolicyPin}
		})
		server := b.server()
		conn := b.client(transactionMode)
		text, answer := pgwire.AppendQuery(nil, "set session.role = 1"), pgwire.AppendReady(tagged(nil, "SET"), 'I')
		b.asks(conn, server, text, text, answer, answer)
		expect(t, server, inspecting(sqltext.StateSet, "session.role"), "question")
		row := append(binaryField(binaryField([]byte{0, 3}, "named"), "session.role"), 0, 0, 0, 1, '1')
		out := append(pgwire.AppendHeader(noWaitFirst(), pgwire.DataRow, len(row)), row...)
		_, _ = server.Write(pgwire.AppendReady(tagged(out, "SELECT 1"), 'I'))
		b.first(func(c *client) {
			if c.has.Pins != sqltext.StateSet {
				t.Errorf("it keeps its server for %v", c.has.Pins.Names())
			}
		})
	})
}

// TestWhatFollowsAnAnswerToPostern: a server that says something of its own right behind what Postern has asked of it is
// cleaned at once. It was left alone until its time was over, and closed then.
func TestWhatFollowsAnAnswerToPostern(t *testing.T) {
	notice := (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: "psst"}).Append(nil)
	for name, c := range map[string]struct {
		mode                                  poolMode
		says, answer, heard, question, behind []byte
	}{
		"a question what was left": {transactionMode, pgwire.AppendQuery(nil, "select pg_advisory_lock(1)"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I'),
			pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I'), inspecting(sqltext.StateLock), nothingFound()},
		"a ROLLBACK": {statementMode, pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T'),
			errStatement.Append(tagged(nil, "BEGIN")), pgwire.AppendQuery(nil, "ROLLBACK"), pgwire.AppendReady(tagged(nil, "ROLLBACK"), 'I')},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.policy(keeping)
			server := b.server()
			conn := b.client(c.mode)
			b.asks(conn, server, c.says, c.says, c.answer, c.heard)
			expect(t, server, c.question, "what Postern asks")
			_, _ = server.Write(append(c.behind, notice...))
			b.settle()
			if n := b.counts(); n.Idle != 1 {
				t.Errorf("the server is not free: %+v", n)
			}
		})
	}
}
