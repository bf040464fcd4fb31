// What a run found: every cell, and the summary that the tables are made of.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A figure is one kind of number that a cell yields. Its unit is in its name.
type figure string

const (
	tps              figure = "tps"
	latency          figure = "latency_ms"             // average per transaction
	cpu              figure = "cpu_us_per_transaction" // the pooler's process
	transactions     figure = "transactions"
	memory           figure = "rss_kib_per_client"
	scannerWarm      figure = "scanner_warm_ns" // per transaction; warm and cold: see tracking.go
	scannerCold      figure = "scanner_cold_ns"
	linkWarm         figure = "link_warm_ns" // the link and the statements
	linkCold         figure = "link_cold_ns"
	trackingWarm     figure = "tracking_warm_ns" // both
	trackingCold     figure = "tracking_cold_ns"
	wakeFirst        figure = "wake_first_ms" // first answer, after that of a client that dials the machine itself
	wakeLast         figure = "wake_last_ms"
	wakeTotal        figure = "wake_total_ms"         // from the first knock to the last answer
	tenantHeap       figure = "heap_bytes_per_tenant" // what the collector leaves, after loads and changes
	tenantRSS        figure = "rss_bytes_per_tenant"
	tenantsRead      figure = "read_seconds"     // from the start to the last tenant
	changeMedian     figure = "change_median_ms" // from the commit to the end of a session
	changeP99        figure = "change_p99_ms"
	changeWorst      figure = "change_worst_ms"
	goroutinesBefore figure = "goroutines_before" // before the idle clients came
	goroutinesAfter  figure = "goroutines_after"  // while they are there
)

// ofCPU is the figure of what f, a time, is of a transaction's CPU.
func (f figure) ofCPU() figure { return f + "_of_cpu" }

// figures are what one cell came to; what does not apply is not in it.
type figures map[figure]float64

// A cell is one row for one target in one round.
type cell struct {
	Round   int     `json:"round"`
	Row     string  `json:"row"`
	Target  string  `json:"target"`
	Figures figures `json:"figures"`
}

// String is the progress line of a cell.
func (c cell) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "round %d %-17s %-10s", c.Round, c.Row, c.Target)
	for _, f := range sortedKeys(c.Figures) {
		fmt.Fprintf(&b, " %s=%.4g", f, c.Figures[f])
	}
	return b.String()
}

// A rowSummary is a row over all rounds.
type rowSummary struct {
	Row     string                        `json:"row"`
	Targets map[string]map[figure]*spread `json:"targets"`
	// Ratios are Postern's figure divided by PgBouncer's, round by round.
	Ratios map[figure]*spread `json:"postern_to_pgbouncer"`
	// Change are Postern's figures divided by those of the other one, likewise.
	Change map[figure]*spread `json:"postern_to_against,omitempty"`

	row row
}

// runOptions are the options as the report shows them.
type runOptions struct {
	Rounds      int `json:"rounds"`
	Seconds     int `json:"seconds_per_cell"`
	Scale       int `json:"scale"`
	IdleClients int `json:"idle_clients"`
	Tenants     int `json:"tenants"`
}

func publicOptions(o options) runOptions {
	return runOptions{Rounds: o.rounds, Seconds: o.seconds, Scale: o.scale, IdleClients: o.idleClients, Tenants: o.tenants}
}

// A report is everything that a run found.
type report struct {
	Environment environment  `json:"environment"`
	Options     runOptions   `json:"options"`
	Doubts      []string     `json:"doubts,omitempty"` // about CPU times
	Summary     []rowSummary `json:"summary"`
	Cells       []cell       `json:"cells"`
}

// seriesOf gathers the cells of a row by target and figure.
func (r *report) seriesOf(row string) map[string]map[figure]series {
	all := map[string]map[figure]series{}
	for _, c := range r.Cells {
		if c.Row != row {
			continue
		}
		if all[c.Target] == nil {
			all[c.Target] = map[figure]series{}
		}
		for f, v := range c.Figures {
			if all[c.Target][f] == nil {
				all[c.Target][f] = series{}
			}
			all[c.Target][f][c.Round] = v
		}
	}
	return all
}

// summarize fills in the summary from the cells, in the order of the rows.
func (r *report) summarize(opts options) {
	for _, w := range opts.rows {
		s := rowSummary{Row: w.name, row: w, Targets: map[string]map[figure]*spread{}}
		all := r.seriesOf(w.name)
		if own := all[postern]; own != nil && w.tracks != "" {
			addShares(own, r.seriesOf(w.tracks)[postern][cpu])
		}
		for t, byFigure := range all {
			s.Targets[t] = map[figure]*spread{}
			for f, byRound := range byFigure {
				s.Targets[t][f] = spreadOf(slices.Collect(maps.Values(byRound)))
			}
		}
		s.Ratios = ratiosOf(all[postern], all[pgbouncer])
		s.Change = ratiosOf(all[postern], all[against])
		r.Summary = append(r.Summary, s)
	}
}

// ratiosOf divides one target's figures by another's.
func ratiosOf(of, by map[figure]series) map[figure]*spread {
	out := map[figure]*spread{}
	for _, f := range []figure{tps, latency, cpu, memory} {
		if q := spreadOf(slices.Collect(maps.Values(ratios(of[f], by[f])))); q != nil {
			out[f] = q
		}
	}
	return out
}

// addShares adds, for each time that tracking takes, what it is of a transaction's CPU in the same round, which is in µs.
func addShares(own map[figure]series, perTransaction series) {
	whole := series{}
	for round, us := range perTransaction {
		whole[round] = us * 1000
	}
	for f, times := range maps.Clone(own) {
		own[f.ofCPU()] = ratios(times, whole)
	}
	own[cpu] = perTransaction
}

// print writes the report in one of the formats of options.output.
func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	var b strings.Builder
	for _, t := range r.tables() {
		if format == "markdown" {
			t.markdown(&b)
		} else {
			t.text(&b)
		}
		b.WriteString("\n")
	}
	b.WriteString(r.footnote())
	_, err := io.WriteString(w, b.String())
	return err
}

// footnote says what the figures were measured on.
func (r *report) footnote() string {
	e, o := r.Environment, r.Options
	var versions []string
	for _, name := range sortedKeys(e.Versions) {
		versions = append(versions, e.Versions[name])
	}
	sends := ""
	if e.IOUring != "" {
		sends = "Postern has io_uring: " + e.IOUring + ".\n"
	}
	counted := "CPU is the threads' run time (schedstat)."
	if e.CPUFrom == byTicks {
		counted = "CPU is counted in clock ticks of /proc/PID/stat: this kernel has no schedstat."
	}
	for _, doubt := range r.Doubts {
		counted += "\nDoubtful: " + doubt
	}
	return fmt.Sprintf("%s: %s, %d cores (%s), load %s before and %s after.\n%s.\n%s%s\n%d rounds of %d s per cell, interleaved; scale %d; %s idle clients. "+
		"Medians; a ratio is the median of the rounds' own ratios. Absolute figures drift with the computer: compare the ratios.\n",
		e.Time.Format(time.DateTime), e.Uname, e.Cores, e.CPU, e.LoadBefore, e.LoadAfter, strings.Join(versions, "; "), sends, counted, o.Rounds, o.Seconds, o.Scale, number(float64(o.IdleClients), 0))
}
