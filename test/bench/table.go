// The tables of a report, as aligned text and as Markdown.

package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A table is a header and rows of as many fields. The first column is text, the others are numbers.
type table struct {
	header []string
	rows   [][]string
}

// tables makes the table of the throughput rows, that of two Posterns, those of the tracking, idle, wake and store rows, and those of
// measurements of their own; one without rows is left out.
func (r *report) tables() []table {
	bouncer := r.Environment.Versions["PgBouncer"]
	if !strings.HasPrefix(bouncer, "PgBouncer ") {
		bouncer = "PgBouncer " + bouncer
	}
	micros := "µs CPU"
	if r.Environment.CPUFrom == byTicks {
		micros += " by ticks"
	}
	load := table{header: []string{"", "direct tps", "ms", bouncer + " tps", "ms", micros, "Postern tps", "ms", micros, "CPU ratio", "tps ratio"}}
	change := table{header: []string{"", "against: tps", "ms", micros, "Postern tps", "ms", micros, "CPU ratio", "tps ratio"}}
	tracking := table{header: []string{"tracking: caches warm-cold", "scanner ns", "link and statements ns", "Postern " + micros, "scanner %", "link and statements %", "both %", "goal %"}}
	idle := table{header: []string{"", bouncer + " KiB/client", "Postern KiB/client", "memory ratio", "Postern goroutines before", "after"}}
	wake := table{header: []string{"", "first answer after a direct client's, ms", "last", "from the first knock to the last answer"}}
	store := table{header: []string{"tenants in a database", "read in s", "heap bytes each", "RSS bytes each", "goal of the heap", "change in force after ms (median)", "p99", "goal of p99", "worst"}}
	for _, s := range r.Summary {
		if s.row.own != nil {
			continue
		}
		d, b, p := s.Targets[direct], s.Targets[pgbouncer], s.Targets[postern]
		if s.row.tracks != "" {
			goal := "-"
			if s.row.tracks == "simple" {
				goal = fmt.Sprintf("<= %d", trackingGoal)
			}
			tracking.rows = append(tracking.rows, []string{s.row.title, showFromTo(p[scannerWarm], p[scannerCold]), showFromTo(p[linkWarm], p[linkCold]), show(p[cpu]),
				showShares(p, scannerWarm, scannerCold), showShares(p, linkWarm, linkCold), showShares(p, trackingWarm, trackingCold), goal})
			continue
		}
		if s.row.idle {
			idle.rows = append(idle.rows, []string{s.row.title, show(b[memory]), show(p[memory]), showRatio(s.Ratios[memory]),
				showCount(p[goroutinesBefore]), showCount(p[goroutinesAfter])})
			continue
		}
		if s.row.store {
			store.rows = append(store.rows, []string{number(float64(r.Options.Tenants), 0), show(p[tenantsRead]), show(p[tenantHeap]), show(p[tenantRSS]), fmt.Sprintf("<= %d", tenantGoal),
				showRatio(p[changeMedian]), showRatio(p[changeP99]), fmt.Sprintf("<= %d", changeGoal), showRatio(p[changeWorst])})
			continue
		}
		if s.row.wake > 0 {
			wake.rows = append(wake.rows, []string{s.row.title, showRatio(p[wakeFirst]), showRatio(p[wakeLast]), showRatio(p[wakeTotal])})
			continue
		}
		if o := s.Targets[against]; o != nil {
			change.rows = append(change.rows, []string{s.row.title, show(o[tps]), show(o[latency]), show(o[cpu]),
				show(p[tps]), show(p[latency]), show(p[cpu]), showRatio(s.Change[cpu]), showRatio(s.Change[tps])})
		}
		if d == nil && b == nil && s.Targets[against] != nil {
			continue
		}
		title := s.row.title
		if b != nil && s.row.elsewhere != nil && !preparesByDefault(bouncer) {
			title += " (PgBouncer: extended)"
		}
		load.rows = append(load.rows, []string{title, show(d[tps]), show(d[latency]), show(b[tps]), show(b[latency]), show(b[cpu]),
			show(p[tps]), show(p[latency]), show(p[cpu]), showRatio(s.Ratios[cpu]), showRatio(s.Ratios[tps])})
	}
	all := append([]table{load, change, tracking, idle, wake, store}, r.ownTables()...)
	return slices.DeleteFunc(all, func(t table) bool { return len(t.rows) == 0 })
}

// text writes the table in aligned columns.
func (t table) text(w io.Writer) {
	lines := slices.Concat([][]string{t.header}, t.rows)
	widths := make([]int, len(t.header))
	for _, line := range lines {
		for i, field := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(field))
		}
	}
	for _, line := range lines {
		for i, field := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(field))
			if i == 0 {
				fmt.Fprint(w, field, pad)
			} else {
				fmt.Fprint(w, "  ", pad, field)
			}
		}
		fmt.Fprintln(w)
	}
}

// markdown writes the table for a README.
func (t table) markdown(w io.Writer) {
	fmt.Fprintln(w, "| "+strings.Join(t.header, " | ")+" |")
	fmt.Fprintln(w, "| --- |"+strings.Repeat(" ---: |", len(t.header)-1))
	for _, row := range t.rows {
		fmt.Fprintln(w, "| "+strings.Join(row, " | ")+" |")
	}
}

// show prints a measured median with three significant digits or more, "-" for what was not measured.
func show(s *spread) string {
	if s == nil {
		return "-"
	}
	switch m := max(s.Median, -s.Median); {
	case m >= 100:
		return number(s.Median, 0)
	case m >= 10:
		return number(s.Median, 1)
	default:
		return number(s.Median, 2)
	}
}

// showCount prints the median of a number of things.
func showCount(s *spread) string {
	if s == nil {
		return "-"
	}
	return number(s.Median, 0)
}

// showRatio prints a number with the range of the rounds, which says how far to trust it.
func showRatio(s *spread) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.Median, s.Min, s.Max)
}

// showFromTo prints two medians as a range.
func showFromTo(from, to *spread) string {
	if from == nil || to == nil {
		return "-"
	}
	return show(from) + "-" + show(to)
}

// showShares prints what two times are of a transaction's CPU, in percent.
func showShares(of map[figure]*spread, from, to figure) string {
	a, b := of[from.ofCPU()], of[to.ofCPU()]
	if a == nil || b == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f-%.1f", 100*a.Median, 100*b.Median)
}

// number prints x with decimals and a comma every three digits.
func number(x float64, decimals int) string {
	s := strconv.FormatFloat(x, 'f', decimals, 64)
	sign := ""
	if digits, negative := strings.CutPrefix(s, "-"); negative {
		sign, s = "-", digits
	}
	whole, fraction, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		fraction = "." + fraction
	}
	return sign + whole + fraction
}
