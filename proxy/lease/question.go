// What Postern asks a server for itself: the messages, and the answers that they will get.

package lease

import (
	"strings"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// NoWait has a transaction wait for no other, whatever the session's transactions
// are by default: one that is serializable, read-only and deferrable waits until
// no serializable one writes. Unlike SET TRANSACTION it warns of nothing outside
// of a block, and it is over with the transaction.
const NoWait = "SET transaction_isolation TO 'read committed'"

// WithoutWaiting is a text for a Query of Postern's own to a session that has a
// set, whose transaction, too, waits for no other: even a DISCARD takes a snapshot.
func WithoutWaiting(has *params.Set, text string) string {
	if has.Defers() {
		return NoWait + "; " + text
	}
	return text
}

// Question is a row of messages of Postern's own, which are one transaction.
type Question struct {
	Out     []byte          // the messages
	Answers []link.Kind     // that they will get
	name    link.ServerName // of the statement
}

// Ask begins a question to the server of a holder. In session mode the unnamed
// statement is the client's, and nothing would bring it back.
func (h *Holder) Ask() Question {
	if h.Alone {
		return Question{name: link.Scratch}
	}
	return Question{name: link.Unnamed}
}

func (q *Question) parse(text string) {
	q.close() // one may be left
	q.Out = pgwire.AppendParse(q.Out, string(q.name.Append(nil)), text)
	q.Answers = append(q.Answers, link.Parse)
}

func (q *Question) execute(values ...[]byte) {
	q.Out = pgwire.AppendBind(q.Out, "", string(q.name.Append(nil)), values...)
	q.Out = pgwire.AppendExecute(q.Out, "")
	q.Answers = append(q.Answers, link.Bind, link.Execute)
}

// close leaves nothing that the client could see.
func (q *Question) close() {
	if q.name != link.Unnamed {
		q.Out = link.AppendClose(q.Out, q.name)
		q.Answers = append(q.Answers, link.Close)
	}
}

func (q *Question) end() {
	q.close()
	q.Out = pgwire.AppendSync(q.Out)
	q.Answers = append(q.Answers, link.Sync)
}

// Change carries changes out in one transaction. Values travel as Bind
// parameters, so that nothing needs quoting in whatever encoding and syntax the
// session has. set_config reads a value as a startup packet does (a list stays a
// list), and NULL means the default.
func (q *Question) Change(have *params.Set, list []params.Change) {
	if have.Defers() {
		q.parse(NoWait)
		q.execute()
	}
	q.parse("SELECT pg_catalog.set_config($1, $2, false)")
	for _, c := range list {
		if c.Value != nil {
			q.execute([]byte(c.Name), []byte(*c.Value))
		} else {
			q.execute([]byte(c.Name), nil)
		}
	}
	q.end()
}

// The parts of the question what there is, by kind. Everything is qualified:
// whose session it is may have put anything into its search_path.
const (
	askSet = `SELECT CASE WHEN source OPERATOR(pg_catalog.=) 'session' THEN 'set' ELSE 'unset' END, name, setting FROM pg_catalog.pg_settings` +
		` WHERE source OPERATOR(pg_catalog.=) 'session' OR name OPERATOR(pg_catalog.=) ANY ($1)` +
		` UNION ALL SELECT 'named', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n`
	askListen = `SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())`
	askTemp   = `SELECT 'temp', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend` + // all that a schema has, as for its DROP
		` WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())`
	askLock = `SELECT 'advisory_lock', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'` +
		` AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())`
	askCursor  = `SELECT 'cursor', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)`
	askPrepare = `SELECT 'prepare', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)`
	askNothing = `SELECT 'none', n, NULL FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n WHERE false`
)

// Inspect asks what there is of these kinds. names are parameters that
// pg_settings does not show.
func (q *Question) Inspect(kinds sqltext.State, names []string) {
	parts := []string{askNothing}
	for _, part := range [...]struct {
		kind sqltext.State
		text string
	}{{sqltext.StateSet, askSet}, {sqltext.StateListen, askListen}, {sqltext.StateTemp, askTemp}, {sqltext.StateLock, askLock},
		{sqltext.StateCursor, askCursor}, {sqltext.StatePrepared, askPrepare}} {
		if kinds&part.kind != 0 {
			parts = append(parts, part.text)
		}
	}
	q.parse(NoWait)
	q.execute()
	q.parse(strings.Join(parts, " UNION ALL "))
	q.execute(textArray(names))
	q.end()
}

// textArray is a list in the text form of text[].
func textArray(list []string) []byte {
	out := []byte{'{'}
	for i, s := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		for j := range len(s) {
			if s[j] == '"' || s[j] == '\\' {
				out = append(out, '\\')
			}
			out = append(out, s[j])
		}
		out = append(out, '"')
	}
	return append(out, '}')
}

// Discards are the texts that have a session with a set forget all of it, each
// alone in its transaction, as DISCARD ALL must be.
func Discards(has *params.Set) []string {
	if has.Defers() {
		return []string{"RESET " + params.Deferrable, "DISCARD ALL"}
	}
	return []string{"DISCARD ALL"}
}
