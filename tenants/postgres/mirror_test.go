package postgres

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// model is a store: what it has, its feed, and older backups of it.
type model struct {
	epoch   int
	head    int64
	rows    map[string]string // content by id
	changes map[string]change // of those that are gone, too
	backups []model
}

type change struct{ version, mark int64 }

func (m *model) copy() model {
	return model{epoch: m.epoch, head: m.head, rows: maps.Clone(m.rows), changes: maps.Clone(m.changes)}
}

func (m *model) at() head { return head{fmt.Sprint("epoch ", m.epoch), m.head} }

// node is a follower, with what it has in force instead of a directory.
type node struct {
	m     *mirror
	rows  map[string]string
	notes int  // notifications that wait
	lost  bool // its connection
	read  map[reading]int
	lied  bool // it has taken for reached what it does not have: others would be told that it is in force here
}

// sync does what Store.sync does, with a model for a database.
func (n *node) sync(s *model, compare bool) {
	take := func(id string) {
		if content, ok := s.rows[id]; ok {
			n.rows[id] = content
			n.m.has(id, s.changes[id].mark)
		} else {
			delete(n.rows, id)
			n.m.lacks(id)
		}
	}
	defer func() { n.lied = n.lied || n.m.at() != s.at() || !maps.Equal(n.rows, s.rows) }()
	compare, n.lost = compare || n.lost, false
	what := n.m.next(s.at(), compare)
	n.read[what]++
	switch what {
	case readNothing:
		return
	case readNewer:
		for id, c := range s.changes {
			if c.version > n.m.seen {
				take(id)
			}
		}
	case readMarks:
		all := make(map[string]int64)
		for id := range s.rows {
			all[id] = s.changes[id].mark
		}
		read, gone := n.m.differing(all)
		for _, id := range append(read, gone...) {
			take(id)
		}
	case readAll:
		for id := range s.rows {
			take(id)
		}
		for _, id := range n.m.missing(func(id string) bool { _, ok := s.rows[id]; return ok }) {
			take(id)
		}
	}
	n.m.reached(s.at())
}

// TestMirrorEndsEqual: whatever is changed in whatever order, and however many notifications are lost or doubled, two nodes end
// with what the store has, after one heartbeat.
func TestMirrorEndsEqual(t *testing.T) {
	total := make(map[reading]int)
	rapid.Check(t, func(t *rapid.T) {
		s := &model{rows: map[string]string{}, changes: map[string]change{}}
		nodes := []*node{{m: newMirror(), rows: map[string]string{}, read: total}, {m: newMirror(), rows: map[string]string{}, read: total}}
		content := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"edit", "edit", "edit", "backup", "restore", "compare", "deliver", "deliver", "reconnect"}).Draw(t, "step") {
			case "edit": // one transaction, perhaps of several tenants
				s.head++
				for range rapid.IntRange(1, 3).Draw(t, "tenants") {
					id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "tenant")
					if content++; rapid.IntRange(0, 3).Draw(t, "removed") == 0 {
						delete(s.rows, id)
					} else {
						s.rows[id] = fmt.Sprint(content)
					}
					s.changes[id] = change{s.head, int64(content)}
				}
				for _, n := range nodes {
					n.notes += rapid.IntRange(0, 2).Draw(t, "notified") // 0: lost
				}
			case "backup":
				s.backups = append(s.backups, s.copy())
			case "restore":
				if len(s.backups) > 0 {
					old := rapid.SampledFrom(s.backups).Draw(t, "backup")
					backups, epoch := s.backups, s.epoch+rapid.IntRange(0, 1).Draw(t, "told by its epoch") // a snapshot of disks is not
					*s = old.copy()
					s.backups, s.epoch = backups, epoch
					for _, n := range nodes {
						n.lost = true
					}
				}
			case "compare":
				rapid.SampledFrom(nodes).Draw(t, "node").sync(s, true)
			case "deliver":
				if n := rapid.SampledFrom(nodes).Draw(t, "node"); n.notes > 0 {
					n.notes--
					n.sync(s, false)
				}
			case "reconnect":
				n := rapid.SampledFrom(nodes).Draw(t, "node")
				n.notes = 0
				n.sync(s, true)
			}
		}
		for i, n := range nodes {
			n.sync(s, false)
			if n.lied {
				t.Fatalf("node %d has said that it has what it does not have", i)
			}
			if !maps.Equal(n.rows, s.rows) {
				t.Fatalf("node %d has %v, the store %v", i, n.rows, s.rows)
			}
			if !maps.Equal(n.m.marks, present(s)) {
				t.Fatalf("node %d knows the marks %v, the store has %v", i, n.m.marks, present(s))
			}
		}
	})
	for _, what := range []reading{readNothing, readNewer, readMarks, readAll} {
		if total[what] == 0 {
			t.Errorf("no run has read in way %d", what)
		}
	}
}

func present(s *model) map[string]int64 {
	all := make(map[string]int64)
	for id := range s.rows {
		all[id] = s.changes[id].mark
	}
	return all
}

// TestMirrorIsBehindNothing: a feed that is behind what was seen is read anew, even in the same epoch.
func TestMirrorIsBehindNothing(t *testing.T) {
	m := newMirror()
	m.reached(head{"e", 7})
	for h, want := range map[head]reading{{"e", 7}: readNothing, {"e", 8}: readNewer, {"e", 6}: readAll, {"f", 7}: readAll, {"f", 8}: readAll} {
		if got := m.next(h, false); got != want {
			t.Errorf("%v: %v, want %v", h, got, want)
		}
	}
	if got := m.next(head{"e", 7}, true); got != readMarks {
		t.Errorf("to compare: %v", got)
	}
}
