// Tests of medians and ratios.

package main

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []float64
		want float64
	}{
		{"none", nil, 0},
		{"one", []float64{7}, 7},
		{"odd, unsorted", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 3, 2}, 2.5},
		{"an outlier does not move it", []float64{10, 11, 12, 13, 9000}, 12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := median(tc.in); got != tc.want {
				t.Errorf("median(%v) = %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

// At most half of the values lie on either side of a median, it does not depend on their order, and it leaves them alone.
func TestMedianProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64Range(-1e9, 1e9), 1, 20).Draw(t, "xs")
		kept := append([]float64(nil), xs...)
		m := median(xs)
		if diff := cmp.Diff(kept, xs); diff != "" {
			t.Fatalf("the argument changed:\n%s", diff)
		}
		var below, above int
		for _, x := range xs {
			if x < m {
				below++
			}
			if x > m {
				above++
			}
		}
		if 2*below > len(xs) || 2*above > len(xs) {
			t.Fatalf("median %v of %v: %d below, %d above", m, xs, below, above)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
		if again := median(kept); again != m {
			t.Fatalf("median %v, after shuffling %v", m, again)
		}
	})
}

// Of a hundred times the longest, which was interrupted, does not count.
func TestTrimmedMean(t *testing.T) {
	xs := []float64{1e6}
	for range 99 {
		xs = append(xs, 2)
	}
	for _, tc := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{1, 2, 6}, 3}, {xs, 2}} {
		if got := trimmedMean(tc.in); got != tc.want {
			t.Errorf("trimmedMean of %d values: %v, want %v", len(tc.in), got, tc.want)
		}
	}
}

func TestSpreadOf(t *testing.T) {
	if got := spreadOf(nil); got != nil {
		t.Errorf("spread of nothing: %v", got)
	}
	if diff := cmp.Diff(&spread{Median: 2, Min: 1, Max: 9}, spreadOf([]float64{9, 1, 2})); diff != "" {
		t.Errorf("spread (-want +got):\n%s", diff)
	}
}

func TestRatiosPairRounds(t *testing.T) {
	got := ratios(series{3: 30, 1: 10, 2: 5}, series{1: 20, 3: 10, 4: 1})
	if diff := cmp.Diff(series{1: 0.5, 3: 3}, got); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
	if got := ratios(series{1: 1}, series{1: 0}); len(got) > 0 {
		t.Errorf("divided by zero: %v", got)
	}
}
