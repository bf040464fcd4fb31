// Random clients and faithful servers: nothing is lost, nothing is broken, nothing is freed too early or too late.

package link

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// scripts are what statements are drawn from; those of COPY IN stand apart.
var (
	scripts = []string{"sel", "sel#2", "cmd", "", "err", "syn", "out", "susp", "dfr", "begin", "commit"}
	drops   = []string{"dealloc#a", "dealloc#b", "dealloc#a", "dealloc-all"}
	locals  = []string{"local#x", "local#y", "begin", "look", "look"}
	copies  = []string{"in", "in", "in!"}
)

// taste says what kind of client is drawn.
type taste struct {
	copies     bool // COPY IN at all
	copySyncs  bool // Sync while it lasts
	chaos      bool // anything at any time
	unreadable bool // messages that the server cannot read
	names      bool // more statements with a name than without
}

// name is which statement is meant.
func (like taste) name(t *rapid.T) string {
	names := []string{"", "", "", "", "", "", "a"}
	if like.names {
		names = []string{"", "a", "a", "b", "c", "postern_3"}
	}
	return rapid.SampledFrom(names).Draw(t, "name")
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
	if like.names {
		from = slices.Concat(from, drops, locals)
	}
	text := rapid.SampledFrom(from)
	odd := func(label string) bool { return rapid.IntRange(0, 7).Draw(t, label) == 7 }
	switch m.typ {
	case 'Q':
		m.text = text.Draw(t, "text")
		if second := text.Draw(t, "second"); odd("two") && !strings.Contains(m.text+second, "dealloc#") { // known only alone
			m.text += ";" + second
		}
		m.bad = like.unreadable && odd("unreadable")
	case 'P':
		m.text = text.Draw(t, "text")
		m.bad = like.unreadable && odd("unreadable")
		m.name = like.name(t)
	case 'B', 'D':
		m.bad = like.unreadable && odd("unreadable")
		m.name = like.name(t)
	case 'C':
		m.name = like.name(t)
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
	like  taste
	ended int // COPYs IN that it has ended
	// copySyncs counts the Syncs of a COPY that has not ended; doubtful says that
	// one with such Syncs failed, so that the link may give up on this server.
	copySyncs int
	doubtful  bool
	flushed   bool // a Flush was sent, and nothing behind it that ends an exchange
}

// mustEnd reports whether a COPY has begun, and perhaps failed, that the
// client has not ended: it cannot know better.
func (d *driver) mustEnd() bool { return d.direct.copies > d.ended }

func (d *driver) next(t *rapid.T, r *rig) {
	m := draw(t, d.like, d.mustEnd())
	if m.typ == 'P' && m.text == "look" && m.name == "" {
		m.text = "sel" // what was settled for an unnamed statement does not follow it
	}
	if st := d.direct.named[m.name]; st != nil && verb(*st) == "look" && d.direct.local != "" && *st != "look#"+d.direct.local {
		m.name = "none" // nor what was settled before a setting that the server lacks it under
	}
	d.sends(r, m)
}

func (d *driver) sends(r *rig, m sent) {
	inside := d.mustEnd()
	r.send(d.peer, m)
	switch m.typ {
	case 'c', 'f':
		if inside {
			d.ended++
		}
	case 'S':
		if inside {
			d.copySyncs++
		} else {
			d.flushed = false
		}
	case 'Q', 'F':
		d.flushed = false
	case 'H':
		d.flushed = true
	}
	if d.direct.failedCopy > 0 && d.copySyncs > 0 || d.copySyncs > maxIgnored {
		d.doubtful = true
	}
	if !d.mustEnd() {
		d.copySyncs = 0
	}
}

// end ends the COPYs that a client has begun.
func (d *driver) end(r *rig) {
	for d.mustEnd() {
		d.sends(r, sent{typ: 'f'})
	}
}

// finish has all clients end what they have begun and ask for something
// harmless some times: the first answer shows which Syncs were ignored, the
// others come in good order. Then everybody must have been answered as by a
// server of its own.
func finish(t rapid.TB, r *rig, ds ...*driver) {
	t.Helper()
	all := func(m sent) {
		for _, d := range ds {
			d.sends(r, m)
		}
		for again := true; again; {
			r.settle(t)
			again = r.closeDoubtful()
		}
	}
	for _, d := range ds {
		d.end(r)
	}
	for _, name := range []string{"a", "b", "c", "postern_3"} { // or some keep their servers
		all(sent{typ: 'S'})
		all(sent{typ: 'C', name: name})
	}
	for range 3 {
		all(sent{typ: 'S'})
		all(sent{typ: 'Q', text: "commit;sel"})
	}
	if r.over {
		return
	}
	for _, d := range ds {
		if len(d.pending) > 0 {
			t.Fatalf("%d messages are stuck, the first %+v; %+v, %+v", len(d.pending), d.pending[0], r.servers[0].link, r.servers[0].pgServer)
		}
		d.direct.flush()
		if diff := cmp.Diff(d.want(), d.got, cmp.AllowUnexported(answer{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("another stream than from a server of its own: %s", diff)
		}
	}
}

// work lets servers work and answers arrive in any order.
func work(t *rapid.T, r *rig) {
	for range rapid.IntRange(0, 6).Draw(t, "work") {
		s := r.servers[rapid.IntRange(0, len(r.servers)-1).Draw(t, "server")]
		if rapid.Bool().Draw(t, "deliver") {
			if len(s.out) > 0 && !r.over {
				r.deliver(t, s)
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
		for _, n := range c.named {
			used[n.stmt]++
		}
	}
	for _, s := range r.servers {
		for _, e := range s.link.queue[s.link.head:] {
			if e.Stmt != nil {
				used[e.Stmt]++
			}
			if e.named != nil && (e.Kind == Close || e.Mode == Doomed) {
				used[e.named.stmt]++
			}
			if e.held != nil && e.Kind == Close {
				used[e.held.stmt]++
			}
		}
		n, bytes := 0, 0
		for h := s.link.cache.newest; h != nil; h = h.elder {
			used[h.stmt]++
			n++
			bytes += len(h.stmt.Body)
		}
		if c := s.link.cache; n != c.n || bytes != c.bytes {
			t.Fatalf("%d statements of %d bytes are held, counted %d of %d", n, bytes, c.n, c.bytes)
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

// check is rapid.Check with enough tries for sequences this long.
func check(t *testing.T, property func(*rapid.T)) {
	for range 15 {
		if !t.Failed() {
			rapid.Check(t, property)
		}
	}
}

// One client on one server: Free says exactly when the server is idle.
func TestFreeIsExact(t *testing.T) {
	check(t, func(t *rapid.T) {
		like := taste{
			copies:     rapid.Bool().Draw(t, "copies"),
			copySyncs:  rapid.Bool().Draw(t, "copy syncs"),
			unreadable: rapid.Bool().Draw(t, "unreadable"),
			names:      rapid.Bool().Draw(t, "names"),
		}
		r := newRig(1, 1)
		r.pinned = true
		d := &driver{peer: r.clients[0], like: like}
		r.doubtful = func() bool { return d.doubtful }
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
		if finish(t, r, d); r.over {
			return
		}
		if s := r.servers[0]; !s.link.Free() && !s.link.doubt {
			t.Fatalf("not free in the end: %+v", s.link)
		}
		if l := r.servers[0].link; l.redefinitions != 0 || l.unsure || l.slack != 0 || l.changes != 0 || l.sealed || l.drops != 0 {
			t.Fatalf("something is left over: %+v", l)
		}
		checkReferences(t, r)
	})
}

// Many clients on few servers: everybody is answered as by a server of its own,
// and nobody runs another's statement.
func TestLeases(t *testing.T) {
	check(t, func(t *rapid.T) {
		like := taste{
			copies:     rapid.Bool().Draw(t, "copies"),
			copySyncs:  rapid.Bool().Draw(t, "copy syncs"),
			unreadable: rapid.Bool().Draw(t, "unreadable"),
			names:      rapid.Bool().Draw(t, "names"),
		}
		r := newRig(3, rapid.IntRange(1, 3).Draw(t, "servers"))
		r.setLimit(rapid.IntRange(1, 4).Draw(t, "limit"))
		var ds []*driver
		for _, c := range r.clients {
			ds = append(ds, &driver{peer: c, like: like})
		}
		r.doubtful = func() bool { return slices.ContainsFunc(ds, func(d *driver) bool { return d.doubtful }) }
		for range rapid.IntRange(1, 40).Draw(t, "messages") {
			d := ds[rapid.IntRange(0, len(ds)-1).Draw(t, "client")]
			if rapid.IntRange(0, 15).Draw(t, "leave") == 15 {
				r.leave(d.peer)
				*d = driver{peer: d.peer, like: like, doubtful: d.doubtful}
			}
			d.next(t, r)
			work(t, r)
		}
		if finish(t, r, ds...); r.over {
			return
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
	check(t, func(t *rapid.T) {
		r := newRig(1, 1)
		d := &driver{peer: r.clients[0], like: taste{copies: true, copySyncs: true, chaos: true, unreadable: true, names: true}}
		r.doubtful = func() bool { return true }
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
