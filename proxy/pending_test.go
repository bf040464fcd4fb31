// The memory of unfinished messages is bounded.

package proxy

import (
	"net"
	"testing"

	"github.com/postern/postern/proxy/pgwire"
)

// pendingIs fails unless so many bytes are counted, by the gate and by the tenant alike.
func (b *bench) pendingIs(want func(n int64) bool, what string) {
	b.t.Helper()
	b.settle()
	b.tenant.call(func() {
		if held, own := b.gate.pending.held.Load(), b.tenant.pending; held != own || !want(own) {
			b.t.Errorf("%s: %d bytes are counted, %d of the tenant", what, held, own)
		}
	})
}

func none(n int64) bool { return n == 0 }

// TestUnfinishedMessagesAreBounded over all clients: who goes beyond is told, what others have stays, and it is counted no
// longer than it is there.
func TestUnfinishedMessagesAreBounded(t *testing.T) {
	b := newBench(t)
	b.gate.opts.Limits.Pending = 4 << 20 // of which the tenant may have half
	b.server()
	parse := func(size int) []byte { return pgwire.AppendParse(nil, "", string(make([]byte, size))) }
	var clients []net.Conn
	send := func(data []byte) net.Conn {
		client := b.client(transactionMode)
		clients = append(clients, client)
		if _, err := client.Write(data); err != nil {
			t.Fatal(err)
		}
		b.settle()
		return client
	}
	send(parse(10 << 10)[:9<<10])
	b.pendingIs(none, "little")
	large := parse(900 << 10)
	first := send(large[:800<<10])
	b.pendingIs(func(n int64) bool { return n >= 800<<10 && n <= 2<<20 }, "one large")
	second := send(large[:800<<10])
	b.pendingIs(func(n int64) bool { return n >= 1600<<10 && n <= 2<<20 }, "two")
	third := send(large[:400<<10])
	told := third
	if typ, body := readMessage(t, told); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "53200" {
		t.Errorf("got %q %q, want to be told that it is too much", typ, body)
	}
	ended(t, told, "the client that went beyond")
	second.Close()
	b.pendingIs(func(n int64) bool { return n >= 800<<10 && n <= 1<<20 }, "one left")
	if _, err := first.Write(large[800<<10:]); err != nil {
		t.Fatal(err)
	}
	b.pendingIs(none, "it has become complete")
	for _, c := range clients {
		c.Close()
	}
	b.pendingIs(none, "all have left")
}
