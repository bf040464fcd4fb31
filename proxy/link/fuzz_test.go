package link

import "testing"

// FuzzLink reads its input as a conversation in any order, sensible or not:
// nothing may panic, leak a statement, or call a server free that still owes.
func FuzzLink(f *testing.F) {
	f.Add([]byte("P1B2E7C9sZ"))
	f.Add([]byte{0, 1, 'Z', 5, 'C', 0x40, 'G', 8, 'C', 'Z', 0x80})
	types := []byte("12CDEGHIKNSTVWZcdnst")
	f.Fuzz(func(t *testing.T, script []byte) {
		var stmts Statements
		var sessions [2]Session
		l := New(&stmts)
		l.Begin(&sessions[0])
		lent := true
		for i, b := range script {
			switch b >> 6 {
			case 0: // the client sends, or Postern does when there is none
				e := Entry{Kind: Kind(b & 0x3f % uint8(CopyEnd+1)), Mode: Mode(b >> 4 & 3)}
				if !lent {
					l.Sent(Entry{Kind: e.Kind, Mode: Internal})
					break
				}
				if e.Kind == Parse && e.Mode == Forward {
					e.Stmt = stmts.Intern([]byte{0, b, 0})
				}
				if e.Kind == Bind && !l.Unsure() {
					if stmt, needed := l.Restore(); needed && stmt != nil {
						l.Sent(Entry{Kind: Parse, Mode: Quiet, Stmt: stmts.Keep(stmt)})
					}
				}
				l.Sent(e)
			case 1: // the server answers
				l.Received(types[int(b&0x3f)%len(types)], "ITE?"[i%4])
			case 2:
				l.SentFlush()
			case 3: // the client leaves, another comes
				l.End()
				if lent = l.Free(); lent {
					l.Begin(&sessions[b&1])
				}
			}
			if l.Free() && (l.Outstanding() != 0 || l.Status() != 'I' || l.CopyIn() || l.Skipping() || l.NeedsSync() || l.AwaitsReady()) {
				t.Fatalf("free after %d of %x, and yet not", i+1, script)
			}
		}
		l.End()
		for i := range sessions {
			stmts.Drop(sessions[i].Unnamed)
		}
		for body, s := range stmts.byBody {
			if s.refs != 0 {
				t.Fatalf("%d references to %q are left", s.refs, body)
			}
		}
	})
}
