package cluster

import "testing"

// TestThreeNodes: who is in the store finds the others there, without being told where to look, and calls them.
func TestThreeNodes(t *testing.T) {
	s, keys := newStore(), keyFile(t, newKey())
	a, b, c := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t), echo(open(t, "c", s, keys)).run(t)
	together(t, a, b, c)
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "c", "b: hi")
	c.echoes(t, "a", "c: hi")
	for _, m := range a.Members() {
		if m.Region != "ams" || m.Protocol != Protocol || m.Leaving {
			t.Errorf("%+v", m)
		}
	}
}
