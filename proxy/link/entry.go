// Entry, one outstanding answer: to which message, and what happens to it.

package link

import "github.com/postern/postern/proxy/sqltext"

// Kind is the frontend message that an answer is due for.
type Kind uint8

// The kinds. CopyEnd marks a CopyDone or CopyFail that was sent before it was
// known whether the server is in COPY IN; it has no answer of its own.
const (
	Query Kind = iota
	FunctionCall
	Parse
	Bind
	Describe
	Close
	Execute
	Sync
	CopyEnd
)

// extended reports whether an error at this kind makes the server skip to Sync.
func (k Kind) extended() bool { return k >= Parse && k <= Execute }

// readies reports whether a ReadyForQuery is the end of the answer.
func (k Kind) readies() bool { return k == Query || k == FunctionCall || k == Sync }

// Mode says what happens to an answer.
type Mode uint8

// The modes.
const (
	Forward Mode = iota // the client gets it
	// Quiet: Postern asked on the client's behalf (a statement parsed again). A
	// success is swallowed; an error is the client's.
	Quiet
	// Internal: Postern asked for itself. Nothing reaches the client.
	Internal
	// Refused: the message stands in for one of the client's that Postern does
	// not allow. The server's error is replaced by Postern's own.
	Refused
	// Stand: a Close of nothing stands in for the client's Parse of a statement
	// that the server holds already. Its CloseComplete becomes a ParseComplete,
	// so that the answer comes at its place in a pipeline, or is skipped with it.
	Stand
	// Doomed: a Parse under a name that is taken. It fails, and the error is the
	// client's.
	Doomed
)

// Entry is one outstanding answer.
type Entry struct {
	Kind    Kind
	Mode    Mode
	Note    sqltext.Note // Query, Execute: what sqltext.Scan said of the text
	Refusal uint8        // Refused: which one, the caller's affair
	Stmt    *Stmt        // an unnamed Parse: what it defines; the link owns the reference

	// What is said of named statements; see named.go.
	named *Name      // the client's name that this is about
	held  *held      // Parse: what the server holds from here on; Close: no longer; Bind, Describe: what they use
	name  ServerName // what stands in the place of the client's name; Close: Unnamed for the unnamed statement
}
