// What a message costs: nothing is allocated in the steady state.

package link

import "testing"

var body = []byte("\x00select abalance from pgbench_accounts where aid = $1\x00\x00\x00")

// round is what pgbench sends and gets in the extended protocol.
func round(l *Link) {
	l.Parse(nil, nil, body)
	if p := l.Bind(nil, nil, nil); p.Do != Pass || len(p.Puts) > 0 {
		panic("needed")
	}
	l.Sent(Entry{Kind: Describe})
	l.Execute(nil)
	l.Sent(Entry{Kind: Sync})
	for _, c := range "12TDCZ" {
		if l.Received(byte(c), 'I') != ToClient {
			panic("not for the client")
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var stmts Statements
	l := New(&stmts)
	s := []Session{{}, {}}
	turn := 0
	lease := func() { // two clients take turns
		turn++
		l.Begin(&s[turn%2])
		round(l)
		if !l.Free() {
			t.Fatal("not free")
		}
		l.End()
	}
	lease()
	if n := testing.AllocsPerRun(1000, lease); n != 0 {
		t.Errorf("%v allocations per round", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		l.Begin(&s[0])
		l.Sent(Entry{Kind: Query, Note: scanNote(body)})
		for _, c := range "TDCZ" {
			l.Received(byte(c), 'I')
		}
		l.End()
	}); n != 0 {
		t.Errorf("%v allocations per Query", n)
	}
}

// namedRound is what pgbench -M prepared and most drivers send.
func namedRound(l *Link, env any, name []byte) {
	p := l.Bind(env, nil, name)
	if p.Do != Rename || len(p.Puts) > 0 {
		panic("not held")
	}
	l.Sent(Entry{Kind: Describe})
	l.Execute(nil)
	l.Sent(Entry{Kind: Sync})
	for _, c := range "2TDCZ" {
		if l.Received(byte(c), 'I') != ToClient {
			panic("not for the client")
		}
		if c == 'C' {
			l.Completed(selected)
		}
	}
}

var (
	selected = []byte("SELECT 1")
	prepared = []byte("P_0")
)

// newNamed returns a link that holds a statement, and its client.
func newNamed() (*Link, *Session, any) {
	l, s, env := New(&Statements{}), &Session{}, &struct{ int }{}
	l.Begin(s)
	l.Parse(env, prepared, body)
	l.DescribeStatement(env, prepared)
	l.Sent(Entry{Kind: Sync})
	l.Received('1', 0)
	l.receives('t', "\x00\x00")
	l.receives('T', column("a", 23))
	l.Received('Z', 'I')
	l.End()
	return l, s, env
}

func TestNoAllocationsForNamed(t *testing.T) {
	l, s, env := newNamed()
	if n := testing.AllocsPerRun(1000, func() {
		l.Begin(s)
		namedRound(l, env, prepared)
		l.End()
	}); n != 0 {
		t.Errorf("%v allocations per round", n)
	}
}

func BenchmarkNamedRound(b *testing.B) {
	l, s, env := newNamed()
	l.Begin(s)
	b.ReportAllocs()
	for b.Loop() {
		namedRound(l, env, prepared)
	}
}

func BenchmarkExtendedRound(b *testing.B) {
	var stmts Statements
	l := New(&stmts)
	l.Begin(&Session{})
	b.ReportAllocs()
	for b.Loop() {
		round(l)
	}
}

func BenchmarkQuery(b *testing.B) {
	l := New(&Statements{})
	l.Begin(&Session{})
	b.ReportAllocs()
	for b.Loop() {
		l.Sent(Entry{Kind: Query})
		for _, c := range [...]byte{'T', 'D', 'C', 'Z'} {
			l.Received(c, 'I')
		}
	}
}

// A pipeline as deep as it may be.
func BenchmarkDeepPipeline(b *testing.B) {
	l := New(&Statements{})
	for range MaxOutstanding - 1 {
		l.Sent(Entry{Kind: Query})
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Sent(Entry{Kind: Query})
		l.Received('C', 0)
		l.Received('Z', 'I')
	}
}
