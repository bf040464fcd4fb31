// DISCARD SEQUENCES in front of a client's message, so that currval and lastval show nothing of others.

package link

// DiscardSequences is the text that has a server forget which numbers were
// drawn from sequences in its session.
const DiscardSequences = "DISCARD SEQUENCES"

// SentDiscard records that DiscardSequences goes to the server, as a Query of
// Postern's own.
func (l *Link) SentDiscard() {
	l.Forget()
	l.Sent(Entry{Kind: Query, Mode: Internal})
}

// SentDiscardWithin records the same for the middle of an extended exchange,
// where a Query would end the transaction that the client has in it, and its
// unnamed portal: a statement Scratch and a portal of that name are defined,
// run and closed. If that fails, so would what comes behind it, and the error
// is the client's.
func (l *Link) SentDiscardWithin() {
	for _, kind := range [...]Kind{Close, Parse, Bind, Execute, Close, Close} {
		l.Sent(Entry{Kind: kind, Mode: Quiet})
	}
}
