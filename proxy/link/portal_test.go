// What an Execute may run, by what was bound.

package link

import (
	"slices"
	"testing"
)

// TestVacatesThroughPortals: an Execute runs what was bound.
func TestVacatesThroughPortals(t *testing.T) {
	w := New(&Statements{})
	w.Begin(&Session{})
	body := func(text string) []byte { return append([]byte("\x00"+text), 0, 0, 0) }
	w.Parse(nil, nil, body("drop database shop"))
	w.Bind(nil, nil, nil)
	w.Bind(nil, []byte("p"), nil)
	w.Parse(nil, []byte("s"), body("alter database store rename to x"))
	w.Bind(nil, []byte("q"), []byte("s"))
	if got := w.Vacates(nil); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("unnamed portal: %q", got)
	}
	if got := w.Vacates([]byte("q")); !slices.Equal(got, []string{"shop", "store"}) {
		t.Errorf("named portals, of which it may be any: %q", got)
	}
	w.Parse(nil, nil, body("select 1"))
	w.Bind(nil, nil, nil)
	if got := w.Vacates(nil); got != nil {
		t.Errorf("a select: %q", got)
	}
}
