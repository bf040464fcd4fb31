// COPY IN: which Syncs the server ignores, and what may be owed once it has failed.

package link

import "slices"

// While the server reads COPY data it ignores Sync. A COPY that fails is over
// at a point of the stream that only the server knows: the Syncs before it
// were ignored, those behind it are answered. Until the server's next answers
// tell, such a Sync stands in the queue and counts as slack: an answer to
// something behind it proves that it was ignored. Meanwhile the server is not
// free.

// enterCopyIn finds out how much of what was already sent belongs to the COPY
// of the head: everything up to the CopyDone or CopyFail.
func (l *Link) enterCopyIn() {
	rest := l.queue[l.head+1:]
	end := slices.IndexFunc(rest, func(e Entry) bool { return e.Kind == CopyEnd })
	l.copyIn = end < 0
	more := false // whether anything but a stray CopyEnd was sent behind it
	kept := rest[:0]
	for i, e := range rest {
		switch during := l.copyIn || i < end; {
		case i == end:
			continue
		case during && e.Kind == Sync:
			l.ignore()
			continue
		case during:
			// Not legal there: how the server takes it is its affair. If it lives on,
			// the COPY was over before, and what comes behind is not ignored.
			l.distrust()
			l.copyIn, end, more = false, -1, true
		default:
			more = more || e.Kind != CopyEnd
		}
		kept = append(kept, e)
	}
	clear(rest[len(kept):])
	l.queue = l.queue[:l.head+1+len(kept)]
	if more {
		return // what came last decides whether the exchange is open
	}
	if l.queue[l.head].Kind == Execute {
		l.open = true // no Sync has closed it
	} else if l.copyIn {
		l.open = false // a Flush in between was ignored
	}
}

// maxIgnored bounds the Syncs during one COPY that are remembered. Clients
// send one; whoever sends more than this keeps the server for himself.
const maxIgnored = 16

// ignore records a Sync sent during COPY IN.
func (l *Link) ignore() {
	if l.ignored == maxIgnored {
		l.distrust()
		return
	}
	l.ignored++
}

// addSlack puts the Syncs that were sent during a COPY that failed back into
// the queue, at index at.
func (l *Link) addSlack(at int) {
	for range l.ignored {
		l.queue = slices.Insert(l.queue, at, Entry{Kind: Sync})
	}
	l.slack, l.ignored = l.slack+l.ignored, 0
}

// dropSlack is called for an answer that is not to a Sync: the Syncs at the
// head that were not answered by now were ignored.
func (l *Link) dropSlack() {
	for ; l.slack > 0 && l.head < len(l.queue) && l.queue[l.head].Kind == Sync; l.slack-- {
		l.pop()
	}
	l.slack = 0
}

// boundSlack is called after a ReadyForQuery for a message of this kind. Only
// Syncs that stand at the head can still turn out to be ignored.
func (l *Link) boundSlack(kind Kind) {
	if l.slack == 0 {
		return
	}
	if l.skip && kind == Sync {
		l.skip, l.open = false, false // it was one of them
	}
	run := 0
	for _, e := range l.queue[l.head:] {
		if e.Kind == CopyEnd {
			continue // has no answer
		}
		if e.Kind != Sync || run == l.slack {
			break
		}
		run++
	}
	l.slack = run
}

// distrust gives up on knowing what the server owes. Its client may go on as
// long as the answers can be explained, and nobody else gets it.
func (l *Link) distrust() {
	l.doubt = true
	l.Forget()
}
