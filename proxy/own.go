// What Postern asks a server for itself: how the messages are put together, and how long they may take.

package proxy

import (
	"time"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
)

// ownFor is how long a server may take over what Postern asks it between two
// transactions of its client. The client waits meanwhile, and can cancel
// nothing.
const ownFor = 30 * time.Second

// unhindered has a transaction wait for no other, whatever the session's
// transactions are by default: one that is serializable, read-only and
// deferrable waits until no serializable one writes. Unlike SET TRANSACTION it
// warns of nothing outside of a block, and it is over with the transaction.
const unhindered = "SET transaction_isolation TO 'read committed'"

// unhindered is a text for a Query of Postern's own, whose transaction, too,
// waits for no other: even a DISCARD takes a snapshot.
func (s *server) unhindered(text string) string {
	if s.params.Defers() {
		return unhindered + "; " + text
	}
	return text
}

// own is a row of messages of Postern's own, which are one transaction.
type own struct {
	out   []byte
	kinds []link.Kind     // of the answers
	name  link.ServerName // of the statement
}

// own begins what is to be asked. In session mode the unnamed statement is the
// client's, and nothing would bring it back.
func (s *server) own() own {
	if s.client.mode == sessionMode {
		return own{name: link.Scratch}
	}
	return own{name: link.Unnamed}
}

func (o *own) parse(text string) {
	o.close() // one may be left
	o.out = pgwire.AppendParse(o.out, string(o.name.Append(nil)), text)
	o.kinds = append(o.kinds, link.Parse)
}

func (o *own) execute(values ...[]byte) {
	o.out = pgwire.AppendBind(o.out, "", string(o.name.Append(nil)), values...)
	o.out = pgwire.AppendExecute(o.out, "")
	o.kinds = append(o.kinds, link.Bind, link.Execute)
}

// close leaves nothing that the client could see.
func (o *own) close() {
	if o.name != link.Unnamed {
		o.out = appendClose(o.out, o.name)
		o.kinds = append(o.kinds, link.Close)
	}
}

func (o *own) end() {
	o.close()
	o.out = pgwire.AppendSync(o.out)
	o.kinds = append(o.kinds, link.Sync)
}

// askOwn sends it. The client waits for the end.
func (s *server) askOwn(o own) {
	s.link.Forget()
	for _, kind := range o.kinds {
		s.link.Sent(link.Entry{Kind: kind, Mode: link.Internal})
	}
	s.clocks.own = s.loop.Now()
	s.conn.Write(o.out)
}

// rollBack ends a transaction block in statement mode. Where the client is in
// the middle of a message, which must be one that the server ignores, its end
// comes first: see feed. A cancel request that is on its way would hit it: see
// cancelled.
func (s *server) rollBack() {
	if s.cancels > 0 {
		return
	}
	s.clocks.own = s.loop.Now()
	s.ask("ROLLBACK")
}

// sweepOwn ends servers that do not answer what Postern has asked them.
func (t *tenant) sweepOwn(now time.Time) {
	for s := range t.servers {
		busy := s.preparing || s.look.running || s.punishing && !s.link.Quiet()
		if busy && s.client != nil && now.Sub(s.clocks.own) >= ownFor {
			s.lost("no answer to a question of Postern's own")
		}
	}
}
