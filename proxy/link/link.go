// Link: the queue of outstanding answers, and the rule that says when a server is free.

package link

import (
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// MaxOutstanding is how many answers a server may owe before its client is
// not read any further. A server flushes its output every 8 KiB, and each
// answer is five bytes at least, so waiting here cannot block both sides.
const MaxOutstanding = 4096

// Verdict is what to do with a backend message.
type Verdict uint8

// The verdicts.
const (
	ToClient Verdict = iota
	AsParse          // the client gets a ParseComplete instead
	Swallow
	Replace // send the client Postern's own error instead: Refusal of Last
	Broken  // not explainable: close the server
)

// Link is what is known of one server connection, during its leases and between
// them. Make it with New.
type Link struct {
	queue  []Entry // outstanding answers, oldest at head
	head   int
	status byte // transaction status of the last ReadyForQuery; 0 counts as 'I'

	open     bool // extended messages were sent since the last Sync
	skip     bool // the server ignores everything up to Sync
	copyIn   bool // the server waits for COPY data
	ignored  int  // Syncs sent during the COPY IN at the head: ignored, unless it fails; see copy.go
	slack    int  // how many of the Syncs at the head may never be answered
	complete bool // a statement of the Query at the head is complete
	resets   bool // something was sent that may put parameters back, and not all is answered, or in a transaction
	doubt    bool // the count may be off: never lend this server to anybody else

	last Entry // the entry that the latest message was for

	// Unnamed statements; see unnamed.go.
	stmts   *Statements
	client  *Session // whose lease this is
	owner   *Session // who defined what the server holds
	unnamed *Stmt    // what the server holds, for comparison only
	shape   *shape   // of that, nil until it was described
	known   bool     // the server's unnamed statement is what the client expects
	// redefinitions counts the queue's entries that change it; unsure says that
	// a Sync was sent after the latest, so that what follows would run even if
	// that one is skipped.
	redefinitions int
	unsure        bool
	restored      restored // see told.go
	heed          heed

	// Named statements; see named.go.
	Limit   int // how many the server may hold; 0: DefaultLimit
	cache   cache
	changes int          // entries of the queue that would have to be undone
	sealed  bool         // a Sync was sent behind them
	drops   int          // Queries and Executes in the queue that may drop statements
	altered sqltext.Note // Alters, Rereads: what was done during this lease; see meaning.go
	alters  int          // entries of the queue that may do such
	unended bool         // tables were changed in a transaction that has not ended
	flushed bool         // a Flush was put in behind all that was sent
	puts    []Put

	// What an Execute will run; see portal.go.
	latest  *Stmt // the unnamed statement as of what was sent
	bound   bound // the unnamed portal
	portals bound // all named portals of this lease
}

// New returns the link of a server that has just logged in.
func New(stmts *Statements) *Link { return &Link{stmts: stmts} }

// Outstanding is how many entries the queue holds.
func (l *Link) Outstanding() int { return len(l.queue) - l.head }

// Status is the transaction status that the server last reported: 'I', 'T' or 'E'.
func (l *Link) Status() byte {
	if l.status == 0 {
		return 'I'
	}
	return l.status
}

// Free reports whether the server may go to somebody else: nothing is owed,
// no extended exchange is open, it is neither in COPY nor in a transaction.
func (l *Link) Free() bool {
	return l.Quiet() && l.Status() == 'I'
}

// Quiet reports whether the server owes nothing and waits for a new command,
// perhaps inside a transaction.
func (l *Link) Quiet() bool {
	return l.head == len(l.queue) && !l.open && !l.skip && !l.copyIn && !l.doubt
}

// NeedsSync reports whether only a Sync makes the server say that it is ready.
func (l *Link) NeedsSync() bool { return l.open || l.skip }

// CopyIn reports whether the server waits for COPY data.
func (l *Link) CopyIn() bool { return l.copyIn }

// Skipping reports whether the server ignores everything up to Sync.
func (l *Link) Skipping() bool { return l.skip }

// Resets reports whether the transaction that the server is about to end may
// have put parameters back to what they are by themselves: what the client asks
// for next is to run with those that it came with.
func (l *Link) Resets() bool {
	return l.resets && !l.NeedsSync() && !l.copyIn && l.AwaitsReady()
}

// Stuck reports whether the server may owe something, but certainly nothing that
// would tell: a Sync that a COPY may have ignored, or a count that is off.
func (l *Link) Stuck() bool {
	return !l.Quiet() && !l.NeedsSync() && !l.copyIn && !l.AwaitsReady()
}

// AwaitsReady reports whether a ReadyForQuery is certainly due.
func (l *Link) AwaitsReady() bool {
	due := 0
	for _, e := range l.queue[l.head:] {
		if e.Kind.readies() {
			if due++; due > l.slack {
				return true
			}
		}
	}
	return false
}

// Last is the entry that the message judged latest was for.
func (l *Link) Last() Entry { return l.last }

// Sent records that a frontend message goes to the server.
func (l *Link) Sent(e Entry) {
	switch e.Kind {
	case Sync:
		if l.copyIn {
			l.ignore()
			return
		}
		l.skip, l.open = false, false
		l.unsure, l.sealed = l.redefinitions > 0, l.changes > 0
	case CopyEnd:
		if l.copyIn {
			l.copyIn = false
			return
		}
		if l.Outstanding() == 0 {
			return // ignored by the server
		}
	default:
		if l.skip {
			l.stmts.Drop(e.Stmt)
			if l.slack > 0 {
				l.distrust() // one of those Syncs may have been answered before it
			}
			return // ignored by the server
		}
		if e.redefines() && e.Mode == Forward {
			// A Query that cannot be read leaves the old one in place.
			l.known, l.unsure = true, e.Kind == Query
			l.latest, l.restored = e.Stmt, agrees
		}
		if l.copyIn {
			// Ends the COPY with an error, and most likely the session: what comes
			// behind it is not ignored.
			l.distrust()
			l.copyIn = false
		}
		l.open = e.Kind.extended()
	}
	l.push(e)
}

// SentFlush records that a Flush goes to the server.
func (l *Link) SentFlush() {
	if !l.copyIn {
		l.open = true
	}
}

func (l *Link) push(e Entry) {
	if l.head > len(l.queue)/2 && len(l.queue) == cap(l.queue) {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, e)
	l.flushed = false
	l.resets = l.resets || e.Note&sqltext.Resets != 0 && (e.Kind == Query || e.Kind == Execute)
	if e.redefines() {
		l.redefinitions++
	}
	if e.changes() {
		l.changes++
	}
	if e.drops() {
		l.drops++
	}
	if e.alters() {
		l.alters++
	}
}

// pop removes the head and whatever behind it has no answer.
func (l *Link) pop() {
	l.drop()
	for l.head < len(l.queue) && l.queue[l.head].Kind == CopyEnd {
		l.drop()
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
}

// drop removes the head.
func (l *Link) drop() {
	e := &l.queue[l.head]
	if e.redefines() {
		if l.redefinitions--; l.redefinitions == 0 {
			l.unsure, l.known = false, l.hasUnnamed(l.client)
			if l.client != nil {
				l.latest = l.client.Unnamed
			}
		}
	}
	if e.changes() {
		l.confirm(e)
	}
	if e.drops() {
		l.drops--
	}
	if e.alters() {
		l.alters--
	}
	l.stmts.Drop(e.Stmt)
	l.queue[l.head] = Entry{}
	l.head++
}

// Asynchronous reports whether a backend message may come at any time and
// answers nothing.
func Asynchronous(typ byte) bool {
	return typ == pgwire.NoticeResponse || typ == pgwire.ParameterStatus || typ == pgwire.NotificationResponse
}

// Received judges a backend message that is not Asynchronous. status is the
// body of a ReadyForQuery and ignored otherwise.
func (l *Link) Received(typ, status byte) Verdict {
	if l.slack > 0 && typ != pgwire.ReadyForQuery {
		l.dropSlack()
	}
	if l.head == len(l.queue) {
		l.last = Entry{}
		if typ == pgwire.ErrorResponse {
			return ToClient // last words; the server closes next
		}
		return Broken
	}
	l.last = l.queue[l.head]
	h, ok := &l.last, true
	switch typ {
	case pgwire.DataRow, pgwire.CopyData, pgwire.CopyDone, pgwire.CopyOutResponse:
		ok = h.Kind == Query || h.Kind == Execute
	case pgwire.CommandComplete, pgwire.EmptyQueryResponse, pgwire.PortalSuspended, pgwire.CopyInResponse:
		ok = l.ran(h, typ)
	case pgwire.RowDescription, pgwire.NoData, pgwire.ParameterDescription:
		ok = l.described(h, typ)
	case pgwire.ParseComplete, pgwire.BindComplete, pgwire.CloseComplete:
		ok = l.accepted(h, typ)
	case pgwire.FunctionCallResponse:
		ok = h.Kind == FunctionCall
	case pgwire.ErrorResponse:
		l.failed(*h)
	case pgwire.ReadyForQuery:
		ok = l.ready(h, status)
	default:
		ok = false
	}
	if !ok {
		return Broken
	}
	return verdict(h.Mode, typ)
}

// accepted handles the answer to a Parse, Bind or Close, at the head.
func (l *Link) accepted(h *Entry, typ byte) (ok bool) {
	switch {
	case typ == pgwire.ParseComplete && h.Kind == Parse && h.Mode != Stand:
		if h.Mode == Doomed {
			l.usurped(*h)
		} else if h.named == nil && h.held == nil {
			l.defined(*h)
		}
	case typ == pgwire.BindComplete && h.Kind == Bind:
		if h.held != nil {
			l.tell(h, h.held.shape)
		}
	case typ == pgwire.CloseComplete && (h.Kind == Close || h.Mode == Stand):
		if h.redefines() {
			l.undefined(*h, true)
		}
	default:
		return false
	}
	l.pop()
	return true
}

// described handles one of the answers to a Describe at the head. A Query
// describes its rows, too.
func (l *Link) described(h *Entry, typ byte) (ok bool) {
	if h.Kind != Describe {
		return typ == pgwire.RowDescription && h.Kind == Query
	}
	l.heeds(h, typ)
	if typ != pgwire.ParameterDescription { // which the other two come behind
		l.pop()
	}
	return true
}

// ran handles what the statement of a Query or Execute at the head has come to:
// its end, a pause, or a COPY that wants data.
func (l *Link) ran(h *Entry, typ byte) (ok bool) {
	switch {
	case h.Kind != Execute && (h.Kind != Query || typ == pgwire.PortalSuspended):
		return false
	case typ == pgwire.CopyInResponse:
		l.enterCopyIn()
		return true
	case typ != pgwire.PortalSuspended:
		if l.copyIn {
			return false
		}
		l.ignored = 0
		l.complete = h.Kind == Query
	}
	if h.Kind == Execute {
		l.pop()
	}
	return true
}

// ready handles a ReadyForQuery for the head.
func (l *Link) ready(h *Entry, status byte) (ok bool) {
	if !h.Kind.readies() || l.copyIn || status != 'I' && status != 'T' && status != 'E' {
		return false
	}
	if l.status = status; l.unended && status == 'I' {
		l.unended = false
		l.stmts.changes++
	}
	if h.Kind == Query {
		l.undefined(*h, l.complete) // a simple query drops the unnamed statement
		l.complete = false
	}
	l.pop()
	l.boundSlack(h.Kind)
	l.resets = l.resets && (l.Outstanding() > 0 || status != 'I')
	return true
}

// verdict says who gets an answer, by the mode of its entry.
func verdict(mode Mode, typ byte) Verdict {
	switch mode {
	case Internal:
		return Swallow
	case Quiet:
		if typ != pgwire.ErrorResponse {
			return Swallow
		}
	case Refused:
		if typ == pgwire.ErrorResponse {
			return Replace
		}
		return Broken // it was bound to fail
	case Stand:
		if typ != pgwire.ErrorResponse {
			return AsParse
		}
	}
	return ToClient
}

// failed handles an ErrorResponse for the entry h at the head.
func (l *Link) failed(h Entry) {
	l.copyIn = false
	if !h.Kind.extended() {
		l.addSlack(l.head + 1) // ReadyForQuery follows
		return
	}
	if h.Stmt != nil {
		l.undefined(h, false) // dropped already, unless the Parse could not be read
	}
	end := l.head + 1
	for end < len(l.queue) && l.queue[end].Kind != Sync {
		end++
	}
	for i := end - 1; i >= l.head; i-- { // the latest change first
		l.undo(&l.queue[i])
	}
	l.drop()
	for l.head < len(l.queue) && l.queue[l.head].Kind != Sync {
		if l.ignored > 0 && l.queue[l.head].Kind != CopyEnd {
			l.distrust() // skipped, unless one of those Syncs is answered first
		}
		l.drop()
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
		l.skip = true
	}
	l.addSlack(l.head)
}
