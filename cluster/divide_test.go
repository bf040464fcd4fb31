package cluster

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDivide(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit int
		of    []share
		turn  int
		want  []int
	}{
		{"nobody wants anything", 5, []share{{0, 0}, {0, 0}}, 0, []int{0, 0}},
		{"one alone", 5, []share{{0, 9}, {0, 0}}, 0, []int{5, 0}},
		{"enough for all", 9, []share{{0, 2}, {0, 3}}, 0, []int{2, 3}},
		{"evenly", 9, []share{{9, 9}, {0, 9}, {0, 9}}, 0, []int{3, 3, 3}},
		{"who needs less than an even share has it", 10, []share{{0, 1}, {0, 9}, {0, 9}}, 0, []int{1, 5, 4}},
		{"the odd one stays where it is", 10, []share{{3, 9}, {3, 9}, {4, 9}}, 1, []int{3, 3, 4}},
		{"idle ones stay while nobody wants them", 10, []share{{6, 0}, {0, 3}}, 0, []int{6, 3}},
		{"and go as far as they are wanted", 10, []share{{6, 0}, {0, 7}}, 0, []int{3, 7}},
		{"busy ones stay, idle ones go", 10, []share{{6, 4}, {0, 7}}, 0, []int{4, 6}},
		{"turns: the first", 1, []share{{0, 2}, {1, 5}, {0, 1}}, 0, []int{1, 0, 0}},
		{"turns: the last", 1, []share{{0, 2}, {1, 5}, {0, 1}}, 2, []int{0, 0, 1}},
		{"turns: two, past the end", 2, []share{{0, 2}, {1, 5}, {0, 1}}, 2, []int{1, 0, 1}},
		{"turns: not of who wants nothing", 1, []share{{1, 0}, {0, 5}, {0, 1}}, 0, []int{0, 1, 0}},
		{"nothing to divide", 0, []share{{2, 2}}, 0, []int{0}},
		{"less than nothing", -3, []share{{2, 2}, {0, 1}}, 0, []int{0, 0}},
	} {
		if got := divide(tc.limit, tc.of, tc.turn); !slices.Equal(got, tc.want) {
			t.Errorf("%s: divide(%d, %v, %d) = %v, want %v", tc.name, tc.limit, tc.of, tc.turn, got, tc.want)
		}
	}
}

// What holds of every division: it is within the limit, none has more than it could use or has, none starves while others have two, and
// nothing that is wanted is left.
func TestDivideIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := make([]share, rapid.IntRange(1, 8).Draw(t, "nodes"))
		for i := range of {
			of[i] = share{rapid.IntRange(0, 12).Draw(t, "held"), rapid.IntRange(0, 12).Draw(t, "wanted")}
		}
		limit, turn := rapid.IntRange(0, 30).Draw(t, "limit"), rapid.IntRange(0, len(of)-1).Draw(t, "turn")
		got := divide(limit, of, turn)
		sum, wanted, wanting := 0, 0, 0
		for i, n := range got {
			sum, wanted, wanting = sum+n, wanted+of[i].wanted, wanting+min(of[i].wanted, 1)
			if n < 0 || n > max(of[i].held, of[i].wanted) {
				t.Fatalf("node %d of %v has %d of %v", i, of, n, got)
			}
			for j, m := range got {
				if n < of[i].wanted && m > n+1 && m > 1 {
					t.Fatalf("node %d wants more than %d of %v, while node %d has %d", i, n, got, j, m)
				}
			}
		}
		if sum > limit {
			t.Fatalf("%v is more than %d", got, limit)
		}
		if sum < min(limit, wanted) && (wanting <= limit || sum < limit) {
			t.Fatalf("%v of %d, although %v want more", got, limit, of)
		}
	})
}

// Each of up to eight nodes has its turn within two seconds, for at least 200 ms.
func TestTurns(t *testing.T) {
	start := time.Date(2026, 11, 30, 12, 0, 0, 123456789, time.UTC)
	for n := 1; n <= 8; n++ {
		had := make([]time.Duration, n)
		for now, end := start, start.Add(2*time.Second); now.Before(end); {
			turn, left := turnOf(n, now)
			if left <= 0 || left > longestTurn {
				t.Fatalf("of %d: %v left", n, left)
			}
			had[turn] += left
			now = now.Add(left)
		}
		for i, d := range had {
			if d < leastTurn {
				t.Errorf("of %d nodes, node %d had %v within two seconds", n, i, d)
			}
		}
	}
	if turn, _ := turnOf(0, start); turn != 0 {
		t.Error(turn)
	}
}
