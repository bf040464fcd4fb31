// Prepared statements: the bytes that are put in, renamed and replaced, split at every byte.

package proxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
)

// exchange is what a client says and the server hears, and the answer as the
// server gives it and the client gets it.
type exchange struct {
	says, heard, answer, got []byte
}

// about builds a Describe or Close of a statement.
func about(dst []byte, typ byte, name string) []byte {
	dst = append(pgwire.AppendHeader(dst, typ, len(name)+2), 'S')
	return append(append(dst, name...), 0)
}

func tagged(dst []byte, tag string) []byte {
	return append(append(pgwire.AppendHeader(dst, pgwire.CommandComplete, len(tag)+1), tag...), 0)
}

// empty is messages without a body.
func empty(types string) (out []byte) {
	for _, c := range []byte(types) {
		out = pgwire.AppendHeader(out, c, 0)
	}
	return out
}

const selectSeven = "select $1::int"

// sevens are the answers to a Describe of it where its column is of this name.
func sevens(column string) []byte {
	out := append(pgwire.AppendHeader(nil, pgwire.ParameterDescription, 6), 0, 1, 0, 0, 0, 23)
	out = append(append(pgwire.AppendHeader(out, pgwire.RowDescription, 2+len(column)+1+18), 0, 1), column...)
	return append(out, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0)
}

// prepared has a client define and describe "mine", which becomes postern_2.
func (b *bench) prepared(client, server interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
}) {
	b.t.Helper()
	if _, err := client.Write(pgwire.AppendSync(about(pgwire.AppendParse(nil, "mine", selectSeven), pgwire.Describe, "mine"))); err != nil {
		b.t.Fatal(err)
	}
	expect(b.t, server, pgwire.AppendSync(about(pgwire.AppendParse(nil, "postern_2", selectSeven), pgwire.Describe, "postern_2")), "definition")
	done := pgwire.AppendReady(append(empty("1"), sevens("int4")...), 'I')
	if _, err := server.Write(done); err != nil {
		b.t.Fatal(err)
	}
	expect(b.t, client, done, "answer to it")
}

// exchanges are those of a client that has defined "mine". None of them leaves
// anything.
func exchanges() map[string]exchange {
	out := make(map[string]exchange)
	use := func(name string) []byte {
		m := pgwire.AppendBind(nil, "", name, []byte("7"))
		m = about(m, pgwire.Describe, name)
		m = append(pgwire.AppendHeader(m, pgwire.Describe, 2), 'P', 0)
		return pgwire.AppendSync(pgwire.AppendExecute(m, ""))
	}
	described := append(empty("2"), 't', 0, 0, 0, 6, 0, 0, 'n', 0, 0, 0, 4, 'n', 0, 0, 0, 4)
	described = pgwire.AppendReady(tagged(described, "SELECT 0"), 'I')
	out["use"] = exchange{use("mine"), use("postern_2"), described, described}

	long := pgwire.AppendBind(nil, "portal", "mine", bytes.Repeat([]byte("x"), 300))
	longer := pgwire.AppendBind(nil, "portal", "postern_2", bytes.Repeat([]byte("x"), 300))
	bound := pgwire.AppendReady(empty("2"), 'I')
	out["a long Bind to a portal"] = exchange{pgwire.AppendSync(long), pgwire.AppendSync(longer), bound, bound}

	wrong := func(name string) []byte {
		text := fmt.Sprintf(`bind message supplies 0 parameters, but prepared statement "%s" requires 1, not postern_23`, name)
		return pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "08P01", Message: text, Detail: name, Hint: "x" + name}).Append(nil), 'I')
	}
	out["an error"] = exchange{pgwire.AppendSync(pgwire.AppendBind(nil, "", "mine")), pgwire.AppendSync(pgwire.AppendBind(nil, "", "postern_2")),
		wrong("postern_2"), wrong("mine")}

	taken := func(name string) []byte {
		return pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "42P05", Message: `prepared statement "` + name + `" already exists`}).Append(nil), 'I')
	}
	out["a name that is taken"] = exchange{pgwire.AppendSync(pgwire.AppendParse(nil, "mine", "select 2")), pgwire.AppendSync(pgwire.AppendParse(nil, "postern_2", "select 2")),
		taken("postern_2"), taken("mine")}

	out["an equal statement, and away with it"] = exchange{
		pgwire.AppendSync(about(pgwire.AppendBind(pgwire.AppendParse(nil, "too", selectSeven), "", "too", []byte("7")), pgwire.Close, "too")),
		pgwire.AppendSync(about(pgwire.AppendBind(about(nil, pgwire.Close, "postern_0"), "", "postern_2", []byte("7")), pgwire.Close, "postern_0")),
		pgwire.AppendReady(empty("323"), 'I'), pgwire.AppendReady(empty("123"), 'I')}

	unknown := pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "26000", Message: `prepared statement "none" does not exist`}).Append(nil), 'I')
	out["an unknown name"] = exchange{pgwire.AppendSync(pgwire.AppendBind(nil, "", "none")), pgwire.AppendSync(pgwire.AppendBind(nil, "", "none")), unknown, unknown}
	ours := func(name string) []byte {
		return pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "26000", Message: `prepared statement "` + name + `" does not exist`}).Append(nil), 'I')
	}
	out["a name of ours"] = exchange{pgwire.AppendSync(about(nil, pgwire.Describe, "postern_2")), pgwire.AppendSync(about(nil, pgwire.Describe, "postern_0")),
		ours("postern_0"), ours("postern_2")}
	return out
}

func TestNamedStatementsSplitAtEveryByteInBothDirections(t *testing.T) {
	for name, e := range exchanges() {
		for _, mode := range []poolMode{transactionMode, statementMode} {
			t.Run(fmt.Sprint(name, " in mode ", mode), func(t *testing.T) {
				b := newBench(t)
				server := b.server()
				client := b.client(mode)
				b.prepared(client, server)
				for at := range max(len(e.says), len(e.answer)) {
					b.split(client, e.says, min(at, len(e.says)))
					expect(t, server, e.heard, fmt.Sprintf("request split at %d", at))
					b.split(server, e.answer, min(at, len(e.answer)))
					expect(t, client, e.got, fmt.Sprintf("answer split at %d", at))
				}
				if n := b.counts(); n.Idle != 1 {
					t.Fatalf("the server was not kept: %+v", n)
				}
			})
		}
	}
}

// DEALLOCATE of what the protocol has prepared, and the same again.
func TestDeallocateSplitAtEveryByte(t *testing.T) {
	says := pgwire.AppendQuery(nil, "DEALLOCATE mine")
	for at := range says {
		b := newBench(t)
		server := b.server()
		client := b.client(transactionMode)
		b.prepared(client, server)
		b.split(client, says, at)
		expect(t, server, pgwire.AppendQuery(nil, link.Dropping(3)), "request")
		answer := tagged(tagged(nil, "PREPARE"), "DEALLOCATE")
		b.split(server, pgwire.AppendReady(answer, 'I'), at)
		expect(t, client, pgwire.AppendReady(tagged(nil, "DEALLOCATE"), 'I'), "answer")
		b.split(client, says, at)
		expect(t, server, says, "what there is no more")
	}
}

// A server that lacks a statement is sent it first, with the types that the
// client was told of, and has to say what it is. That is not for the client,
// which gets what it was told of, or an error.
func TestStatementsFollowTheirClient(t *testing.T) {
	for column, want := range map[string]bool{"int4": true, "int5": false} {
		for at := range len(sevens(column)) {
			testStatementsFollowTheirClient(t, column, want, at)
		}
	}
}

func testStatementsFollowTheirClient(t *testing.T, column string, same bool, at int) {
	t.Helper()
	b := newBench(t)
	first := b.server()
	client, other := b.client(transactionMode), b.client(transactionMode)
	b.prepared(client, first)
	begin := pgwire.AppendQuery(nil, "begin")
	if _, err := other.Write(begin); err != nil {
		t.Fatal(err)
	}
	expect(t, first, begin, "the other's transaction")
	second := b.server()
	use := func(name string) []byte {
		return pgwire.AppendSync(pgwire.AppendExecute(pgwire.AppendBind(nil, "", name, []byte("7")), ""))
	}
	if _, err := client.Write(use("mine")); err != nil {
		t.Fatal(err)
	}
	definition := pgwire.AppendParse(nil, "postern_2", selectSeven)
	definition = append(definition[:len(definition)-2], 0, 1, 0, 0, 0, 23)
	pgwire.PutLength(definition)
	expect(t, second, pgwire.AppendHeader(about(definition, pgwire.Describe, "postern_2"), pgwire.Flush, 0), "its definition")
	b.split(second, append(empty("1"), sevens(column)...), 5+at)
	if !same {
		expect(t, second, pgwire.AppendSync(append(pgwire.AppendRefusal(nil), pgwire.AppendExecute(nil, "")...)), "what fails")
		b.split(second, pgwire.AppendReady((&pgwire.Error{Severity: pgwire.Err, Code: "08P01", Message: "?"}).Append(nil), 'I'), 0)
		expect(t, client, pgwire.AppendReady(errChanged.Append(nil), 'I'), "as Postgres says it")
		return
	}
	expect(t, second, use("postern_2"), "what was asked")
	b.split(second, pgwire.AppendReady(tagged(empty("2"), "SELECT 1"), 'I'), 3)
	expect(t, client, pgwire.AppendReady(tagged(empty("2"), "SELECT 1"), 'I'), "without the answer to that")
	if _, err := client.Write(use("mine")); err != nil {
		t.Fatal(err)
	}
	expect(t, second, use("postern_2"), "the second time")
}

// A message that waits for what a DEALLOCATE will have done in an exchange that
// is still open must not wait for ever: the server is asked to answer.
func TestFlushIsPutIn(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	b.prepared(client, server)
	drop := pgwire.AppendExecute(pgwire.AppendBind(pgwire.AppendParse(nil, "", "deallocate all"), "", ""), "")
	if _, err := client.Write(pgwire.AppendSync(pgwire.AppendBind(drop, "", "mine"))); err != nil {
		t.Fatal(err)
	}
	expect(t, server, pgwire.AppendHeader(bytes.Clone(drop), pgwire.Flush, 0), "with a Flush")
	answer := tagged(empty("12"), "DEALLOCATE ALL")
	if _, err := server.Write(answer); err != nil {
		t.Fatal(err)
	}
	expect(t, client, answer, "its answer")
	expect(t, server, pgwire.AppendSync(pgwire.AppendBind(nil, "", "mine")), "which is unknown now")
}

func TestTooManyStatements(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	b.prepared(client, server)
	long := strings.Repeat("x", maxStatement-100)
	for i := range link.MaxNamedBytes / maxStatement {
		name := fmt.Sprint("long", i)
		if _, err := client.Write(pgwire.AppendSync(pgwire.AppendParse(nil, name, name+long))); err != nil {
			t.Fatal(err)
		}
		var answer []byte
		for typ := byte(0); typ != pgwire.Sync; {
			switch typ, _ = readMessage(t, server); typ {
			case pgwire.Parse:
				answer = append(answer, empty("1")...)
			case pgwire.Close: // it may not hold all of them
				answer = append(answer, empty("3")...)
			}
		}
		if _, err := server.Write(pgwire.AppendReady(answer, 'I')); err != nil {
			t.Fatal(err)
		}
		if typ, body := readMessage(t, client); typ != pgwire.ParseComplete {
			t.Fatalf("%d: %q %v", i, typ, pgwire.ParseError(body))
		}
		_, _ = readMessage(t, client)
	}
	if _, err := client.Write(pgwire.AppendSync(pgwire.AppendParse(nil, "more", long))); err != nil {
		t.Fatal(err)
	}
	expect(t, server, pgwire.AppendSync(pgwire.AppendRefusal(nil)), "in its place")
	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "42601", Message: "?"}).Append(nil)
	if _, err := server.Write(pgwire.AppendReady(failed, 'I')); err != nil {
		t.Fatal(err)
	}
	expect(t, client, pgwire.AppendReady(errManyNamed(link.Limits{}.OrDefault()).Append(nil), 'I'), "refusal")
}

func TestRoutine(t *testing.T) {
	for body, want := range map[string]string{
		"": "", "\x00": "", "SERROR\x00RStorePreparedStatement\x00\x00": "StorePreparedStatement", "RX": "", "\x00RX\x00": "", "MRX\x00RY\x00\x00": "Y",
	} {
		if got := routine([]byte(body)); got != want {
			t.Errorf("%q: %q", body, got)
		}
	}
}
