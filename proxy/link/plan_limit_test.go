// What goes when there are too many statements, or too large ones, and how long names are.

package link

import (
	"fmt"
	"strings"
	"testing"
)

// Too many statements on a server: those go that were not used for longest, and
// come back when they are wanted.
func TestLimit(t *testing.T) {
	w := newWorld(t)
	w.Limit = 2
	for i, want := range []string{"as2", "as3", "c2 as4"} {
		w.wants("Parse", w.Parse(nil, fmt.Append(nil, "s", i), text(fmt.Sprint(i))), want)
	}
	w.sync()
	w.answer("1131Z", "")
	w.wants("held", w.Bind(nil, nil, []byte("s1")), "d3 as3")
	w.wants("gone, and the eldest goes", w.Bind(nil, nil, []byte("s0")), "c4 p5 d5 as5")
	w.sync()
	w.answer("tT231tT2Z", "")
	w.wants("used before", w.DescribeStatement(nil, []byte("s1")), "as3")
	w.wants("gone meanwhile", w.DescribeStatement(nil, []byte("s2")), "c5 p6 as6")
	w.sync()
	w.answer("tn31tnZ", "")
	if w.cache.n != 2 || !w.Free() {
		t.Errorf("%+v", w.cache)
	}
	// An eviction that is skipped has not happened.
	w.BindUnseen()
	w.wants("skipped", w.Bind(nil, nil, []byte("s0")), "c3 p7 d7 wait flush")
	w.sync()
	w.answer("EZ", "")
	w.wants("still there", w.Bind(nil, nil, []byte("s1")), "as3")
	w.wants("and still not", w.Bind(nil, nil, []byte("s0")), "c6 p8 d8 wait flush")
}

func TestLimitOfBytes(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", maxCacheBytes/2-100)
	w.wants("long", w.Parse(nil, []byte("a"), text(long+"a")), "as2")
	w.wants("long", w.Parse(nil, []byte("b"), text(long+"b")), "as3")
	w.sync()
	w.answer("11Z", "")
	w.turn(&Session{}) // clients have less
	w.wants("longer", w.Parse(nil, []byte("c"), text(long+"cc")), "c2 as4")
}

func TestLimitsOfAClient(t *testing.T) {
	w := newWorld(t)
	for i := range MaxNamed {
		if p := w.Parse(nil, fmt.Append(nil, i), text("q")); p.Do == TooMany {
			t.Fatalf("%d are too many", i)
		}
		w.sync()
		for w.Outstanding() > 0 {
			switch e := w.queue[w.head]; {
			case e.Kind == Sync:
				w.answer("Z", "")
			case e.Mode == Stand:
				w.answer("3", "")
			default:
				w.answer("1", "")
			}
		}
	}
	w.wants("one more", w.Parse(nil, []byte("more"), text("q")), "too many")
	w.wants("one that there is", w.Parse(nil, []byte("7"), text("q")), "as2")
	w.sync()
	w.answer("EZ", "")
	w.CloseStatement([]byte("7"))
	w.wants("after a Close", w.Parse(nil, []byte("more"), text("q")), "stand-in")

	w = newWorld(t)
	w.s.bytes = MaxNamedBytes - 10
	w.wants("too long together", w.Parse(nil, []byte("a"), text("select 1")), "too many")
	if w.stmts.unused != w.stmts.Len() {
		t.Error("a reference is left")
	}
}

func TestConfiguredLimitsOfAClient(t *testing.T) {
	w := newWorld(t)
	w.stmts.Limits = Limits{Named: 1, NamedBytes: len("a") + len(text("q"))}
	w.wants("longer than the limit", w.Parse(nil, []byte("ab"), text("q")), "too many")
	w.wants("as long as the limit", w.Parse(nil, []byte("a"), text("q")), "as2")
	w.wants("without a name", w.Parse(nil, nil, text("q")), "pass")
	w.stmts.Limits.NamedBytes = 0
	w.wants("more than the limit", w.Parse(nil, []byte("b"), text("q")), "too many")
}

// Only the first 63 bytes of a name count, as in Postgres.
func TestLongNames(t *testing.T) {
	w := newWorld(t)
	long := []byte(strings.Repeat("n", 70))
	w.wants("Parse", w.Parse(nil, long, text("q")), "as2")
	w.wants("another end", w.Bind(nil, nil, append(long[:63:63], "xyz"...)), "d2 as2")
	w.wants("shorter", w.Bind(nil, nil, long[:62]), "pass")
}
