// Random clients and faithful servers: nothing is lost, nothing is broken, nothing is freed too early or too late.

package link

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// scripts are what statements are drawn from; those of COPY IN stand apart.
var (
	scripts = []string{"sel", "sel#2", "cmd", "", "err", "syn", "out", "susp", "dfr", "begin", "commit"}
	copies  = []string{"in", "in", "in!"}
)

// taste says what kind of client is drawn.
type taste struct {
	copies     bool // COPY IN at all
	copySyncs  bool // Sync while it lasts
	chaos      bool // anything at any time
	unreadable bool // messages that the server cannot read
}

// draw is the next message of a client. mustEnd says that it has begun a COPY
// that it has not ended.
func draw(t *rapid.T, like taste, mustEnd bool) sent {
	types := []byte("QPBDEESSSSHCFPBES")
	if like.copies && (mustEnd || like.chaos) {
		inside := []byte("ddcccf")
		if like.copySyncs {
			inside = append(inside, "SSH"...)
		}
		if !like.chaos {
			types = inside
		} else {
			types = append(types, inside...)
		}
	} else if like.copies {
		types = append(types, "cfd"...) // late ones are ignored
	}
	m := sent{typ: rapid.SampledFrom(types).Draw(t, "type")}
	from := scripts
	if like.copies {
		from = append(append([]string(nil), scripts...), copies...)
	}
	text := rapid.SampledFrom(from)
	odd := func(label string) bool { return rapid.IntRange(0, 7).Draw(t, label) == 7 }
	switch m.typ {
	case 'Q':
		m.text = text.Draw(t, "text")
		if odd("two") {
			m.text += ";" + text.Draw(t, "second")
		}
		m.bad = like.unreadable && odd("unreadable")
	case 'P':
		m.text = text.Draw(t, "text")
		m.bad = like.unreadable && odd("unreadable")
		m.named = odd("named")
	case 'B', 'D':
		m.bad = like.unreadable && odd("unreadable")
		m.named = odd("named")
	case 'C':
		m.named = odd("named")
	case 'F':
		m.text = rapid.SampledFrom([]string{"", "err"}).Draw(t, "function")
	case 'd', 'c':
		m.bad = odd("bad data")
	}
	return m
}

// driver sends what one client draws.
type driver struct {
	*peer
	like    taste
	mustEnd bool
	// copySyncs counts the Syncs of a COPY that has not ended; doubtful says that
	// one with such Syncs failed, so that the link may give up on this server.
	copySyncs int
	doubtful  bool
	flushed   bool // a Flush was sent, and nothing behind it that ends an exchange
}

func (d *driver) next(t *rapid.T, r *rig) {
	m := draw(t, d.like, d.mustEnd)
	d.sends(r, m)
}

func (d *driver) sends(r *rig, m sent) {
	failed := d.direct.failedCopy
	inside := d.mustEnd
	r.send(d.peer, m)
	switch m.typ {
	case 'c', 'f':
		d.mustEnd = false
	case 'S':
		if inside {
			d.copySyncs++
		}
	case 'H':
		d.flushed = true
	}
	if m.typ == 'Q' || m.typ == 'F' || m.typ == 'S' && !inside {
		d.flushed = false
	}
	if d.direct.failedCopy > failed && m.typ != 'c' && m.typ != 'f' {
		d.mustEnd = true // it cannot know yet
	}
	if d.direct.copying != nil {
		d.mustEnd = true
	}
	if d.direct.failedCopy > 0 && d.copySyncs > 0 {
		d.doubtful = true
	}
	if !d.mustEnd && d.direct.failedCopy == failed {
		d.copySyncs = 0
	}
}

// finish ends what a client has begun, and asks for something harmless twice:
// the first answer shows what was ignored, the second comes in good order.
func (d *driver) finish(t rapid.TB, r *rig) {
	t.Helper()
	if d.mustEnd {
		d.sends(r, sent{typ: 'f'})
		if d.mustEnd { // the COPY behind that one
			d.sends(r, sent{typ: 'f'})
		}
	}
	for range 3 {
		r.settle(t)
		d.sends(r, sent{typ: 'S'})
		r.settle(t)
		d.sends(r, sent{typ: 'Q', text: "commit;sel"})
		r.settle(t)
	}
	if len(d.pending) > 0 {
		t.Fatalf("%d messages are stuck, the first %+v", len(d.pending), d.pending[0])
	}
	d.direct.flush()
	if diff := cmp.Diff(d.want(), d.got, cmp.AllowUnexported(answer{}), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("another stream than from a server of its own: %s", diff)
	}
}

// work lets servers work and answers arrive in any order.
func work(t *rapid.T, r *rig) {
	for range rapid.IntRange(0, 6).Draw(t, "work") {
		s := rapid.SampledFrom(r.servers).Draw(t, "server")
		if rapid.Bool().Draw(t, "deliver") {
			if len(s.out) > 0 {
				if a, v := r.deliver(s); v == Broken {
					t.Fatalf("%v is said to be broken", a)
				}
			}
		} else if len(s.in) > 0 {
			s.step()
		}
		for _, s := range r.servers {
			if s.link.Free() && !s.idle() {
				t.Fatalf("said to be free: %+v", s.pgServer)
			}
		}
	}
}

// checkReferences fails when a definition was leaked or dropped too often.
func checkReferences(t rapid.TB, r *rig) {
	t.Helper()
	used := map[*Stmt]int{}
	for _, c := range r.clients {
		if c.Unnamed != nil {
			used[c.Unnamed]++
		}
	}
	for _, s := range r.servers {
		for _, e := range s.link.queue[s.link.head:] {
			if e.Stmt != nil {
				used[e.Stmt]++
			}
		}
	}
	unused := 0
	for _, st := range r.stmts.byBody {
		if st.refs != used[st] {
			t.Fatalf("%q has %d references, %d are held", st.Body, st.refs, used[st])
		}
		delete(used, st)
		if st.refs == 0 {
			unused++
		}
	}
	if len(used) > 0 {
		t.Fatalf("%d definitions in use are forgotten", len(used))
	}
	if unused != r.stmts.unused {
		t.Fatalf("%d unused definitions, counted %d", unused, r.stmts.unused)
	}
}

// One client on one server: Free says exactly when the server is idle.
func TestFreeIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		like := taste{
			copies:     rapid.Bool().Draw(t, "copies"),
			copySyncs:  rapid.Bool().Draw(t, "copy syncs"),
			unreadable: rapid.Bool().Draw(t, "unreadable"),
		}
		r := newRig(1, 1)
		r.pinned = true
		d := &driver{peer: r.clients[0], like: like}
		for range rapid.IntRange(1, 30).Draw(t, "messages") {
			d.next(t, r)
			work(t, r)
			if s := r.servers[0]; s.idle() && len(d.pending) == 0 && !s.link.Free() && !d.flushed && !d.doubtful {
				t.Fatalf("idle, and not said to be free: %+v", s.link)
			}
		}
		if r.servers[0].link.doubt && !d.doubtful {
			t.Fatal("doubt without a cause")
		}
		d.finish(t, r)
		if s := r.servers[0]; !s.link.Free() && !s.link.doubt {
			t.Fatalf("not free in the end: %+v", s.link)
		}
		if l := r.servers[0].link; l.redefinitions != 0 || l.unsure || l.slack != 0 && !l.doubt {
			t.Fatalf("something is left over: %+v", l)
		}
		checkReferences(t, r)
	})
}

// Many clients on few servers: everybody is answered as by a server of its own,
// and nobody runs another's statement.
func TestLeases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		like := taste{
			copies:     rapid.Bool().Draw(t, "copies"),
			copySyncs:  rapid.Bool().Draw(t, "copy syncs"),
			unreadable: rapid.Bool().Draw(t, "unreadable"),
		}
		r := newRig(3, rapid.IntRange(1, 3).Draw(t, "servers"))
		var ds []*driver
		for _, c := range r.clients {
			ds = append(ds, &driver{peer: c, like: like})
		}
		for range rapid.IntRange(1, 40).Draw(t, "messages") {
			rapid.SampledFrom(ds).Draw(t, "client").next(t, r)
			work(t, r)
		}
		// Those with a server first: the others may be waiting for them.
		for len(ds) > 0 {
			i := 0
			for i < len(ds)-1 && ds[i].server == nil {
				i++
			}
			d := ds[i]
			ds = append(ds[:i], ds[i+1:]...)
			d.finish(t, r)
			if s := d.server; s != nil {
				if !s.link.doubt {
					t.Fatalf("kept its server: %+v", s.link)
				}
				s.client, d.server = nil, nil // closed, and replaced
				s.link.End()
				s.pgServer, s.link = newServer(), New(&r.stmts)
				for _, c := range r.clients {
					r.pump(c)
				}
			}
		}
		for _, s := range r.servers {
			if !s.link.Free() {
				t.Fatalf("not free in the end: %+v", s.link)
			}
		}
		checkReferences(t, r)
	})
}

// A client that breaks every rule costs nobody but itself.
func TestChaos(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(1, 1)
		d := &driver{peer: r.clients[0], like: taste{copies: true, copySyncs: true, chaos: true, unreadable: true}}
		for range rapid.IntRange(1, 40).Draw(t, "messages") {
			d.next(t, r)
			work(t, r)
		}
		r.settle(t)
		for _, s := range r.servers {
			s.link.End()
		}
		checkReferences(t, r)
	})
}
