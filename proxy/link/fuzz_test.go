// A fuzz target: any messages in both directions leave the books in order.

package link

import (
	"testing"

	"github.com/postern/postern/proxy/sqltext"
)

// FuzzLink reads its input as a conversation in any order, sensible or not:
// nothing may panic, leak a statement, or call a server free that still owes.
func FuzzLink(f *testing.F) {
	f.Add([]byte("P1B2E7C9sZ"))
	f.Add([]byte{0, 1, 'Z', 5, 'C', 0x40, 'G', 8, 'C', 'Z', 0x80})
	tags := []string{"SELECT 1", "DEALLOCATE", "PREPARE", "DEALLOCATE ALL", "DISCARD ALL", "SET"}
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
				switch name := []byte{"ab\x00"[i%3]}[:min(1, i%4)]; {
				case e.Mode != Forward || i%5 == 0:
					l.Sent(Entry{Kind: e.Kind, Mode: e.Mode & Refused})
				case e.Kind == Parse:
					l.Parse(i%2, name, []byte{0, b, 0, 0, 0})
				case e.Kind == Bind:
					l.Bind(i%2, name[:0], name)
				case e.Kind == Describe:
					l.DescribeStatement(i%2, name)
				case e.Kind == Close:
					l.CloseStatement(name)
				case e.Kind == Execute:
					l.Execute(name[:0])
				case e.Kind == Query:
					l.Query([]byte("deallocate a"), sqltext.Deallocates)
				default:
					l.Sent(e)
				}
			case 1: // the server answers
				typ := types[int(b&0x3f)%len(types)]
				if v := l.Received(typ, "ITE?"[i%4]); v != Broken && typ == 'C' {
					l.Completed([]byte(tags[i%len(tags)]))
				} else if v != Broken && typ == 'E' {
					l.Failed("26000", "")
				}
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
		l.Close()
		for i := range sessions {
			sessions[i].Release(&stmts)
		}
		for body, s := range stmts.byBody {
			if s.refs != 0 {
				t.Fatalf("%d references to %q are left", s.refs, body)
			}
		}
	})
}
