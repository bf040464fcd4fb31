// Medians, ranges and ratios over the rounds of a run.

package main

import (
	"cmp"
	"slices"
)

// median returns the middle of xs, or the mean of the two middle values when their number is even. It is 0 for none.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(xs))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return s[mid-1] + (s[mid]-s[mid-1])/2
}

// trimmedMean returns the mean of xs without its largest hundredth: times in which something else had the processor.
// It sorts xs. It is 0 for none.
func trimmedMean(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	slices.Sort(xs)
	xs = xs[:len(xs)-len(xs)/100]
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// A spread is what the rounds of one figure came to.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf sums up xs; nil when there is nothing to sum up, which the reports show as "-".
func spreadOf(xs []float64) *spread {
	if len(xs) == 0 {
		return nil
	}
	return &spread{Median: median(xs), Min: slices.Min(xs), Max: slices.Max(xs)}
}

// A series is one figure round by round.
type series map[int]float64

// ratios divides a by b round by round. A round that one of them lacks, or whose divisor is 0, gives none.
func ratios(a, b series) series {
	out := series{}
	for round, x := range a {
		if d, ok := b[round]; ok && d != 0 {
			out[round] = x / d
		}
	}
	return out
}

// sortedKeys returns the keys of m in order, so that reports do not change with map order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
