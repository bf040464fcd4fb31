// Tests of the choice of rows, the summary and the tables.

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		bad  bool
	}{
		"defaults":       {args: nil},
		"chosen":         {args: []string{"-rows", "tls, simple", "-targets", "postern"}},
		"unknown row":    {args: []string{"-rows", "simple,fast"}, bad: true},
		"unknown target": {args: []string{"-targets", "odyssey"}, bad: true},
		"no rounds":      {args: []string{"-rounds", "0"}, bad: true},
		"two formats":    {args: []string{"-markdown", "-json"}, bad: true},
		"stray argument": {args: []string{"simple"}, bad: true},
		"unknown flag":   {args: []string{"-fast"}, bad: true},
		"few tenants":    {args: []string{"-tenants", "3"}, bad: true},
		"against":        {args: []string{"-against", "old", "-rows", "simple,one"}},

		"nothing to compare":  {args: []string{"-against", "old", "-rows", "simple,idle"}, bad: true},
		"nobody to compare":   {args: []string{"-against", "old", "-targets", "pgbouncer"}, bad: true},
		"no rounds, compared": {args: []string{"-against", "old", "-rounds", "-1"}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseOptions(tc.args, io.Discard); (err != nil) != tc.bad {
				t.Errorf("error %v, want one: %v", err, tc.bad)
			}
		})
	}
	o, err := parseOptions([]string{"-rows", "tls,simple", "-targets", "postern,direct"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.rows) != 2 || o.rows[0].name != "simple" || o.rows[1].name != "tls" {
		t.Errorf("rows %v, want simple and tls in the table's order", o.rows)
	}
	if diff := cmp.Diff([]string{direct, postern}, o.targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

// Two Posterns are compared alone and in more rounds, unless the command line says otherwise; what only a whole table has is
// left out.
func TestParseAgainst(t *testing.T) {
	for name, tc := range map[string]struct {
		args    []string
		targets []string
		rounds  int
	}{
		"without":       {nil, allTargets(), 5},
		"alone":         {[]string{"-against", "old"}, []string{against, postern}, 7},
		"beside others": {[]string{"-against", "old", "-targets", "postern,pgbouncer", "-rounds", "9"}, []string{pgbouncer, postern, against}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(tc.args, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.targets, o.targets); diff != "" || o.rounds != tc.rounds {
				t.Errorf("%d rounds, targets (-want +got):\n%s", o.rounds, diff)
			}
			for _, w := range o.rows {
				if o.against != "" && (w.idle || w.wake > 0 || w.tracks != "" || w.wide || w.store || w.own != nil) {
					t.Errorf("row %s is compared", w.name)
				}
			}
		})
	}
}

// The table of two Posterns has the ratios of the rounds, and a run of them alone no other table.
func TestAgainst(t *testing.T) {
	opts, err := parseOptions([]string{"-rows", "simple", "-against", "old"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{Options: publicOptions(opts)}
	for round, slow := range []float64{1, 2, 4} {
		r.Cells = append(r.Cells,
			cell{round + 1, "simple", against, figures{tps: 12000 / slow, latency: 2 * slow, cpu: 20 * slow}},
			cell{round + 1, "simple", postern, figures{tps: 18000 / slow, latency: 1.5 * slow, cpu: 20*slow + 2*float64(round)}},
		)
	}
	r.summarize(opts)
	tables := r.tables()
	if len(tables) != 1 {
		t.Fatalf("%d tables", len(tables))
	}
	want := [][]string{
		{"", "against: tps", "ms", "µs CPU", "Postern tps", "ms", "µs CPU", "CPU ratio", "tps ratio"},
		{"`-S` simple", "6,000", "4.00", "40.0", "9,000", "3.00", "42.0", "1.05 (1.00-1.05)", "1.50 (1.50-1.50)"},
	}
	if diff := cmp.Diff(want, append([][]string{tables[0].header}, tables[0].rows...)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// Which PgBouncer was met stands in the table, and what it cannot do, too.
func TestVersionInTable(t *testing.T) {
	opts, err := parseOptions([]string{"-rows", "prepared"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string][2]string{
		"PgBouncer 1.26.1": {"PgBouncer 1.26.1 tps", "`-S` prepared"},
		"PgBouncer 1.18.0": {"PgBouncer 1.18.0 tps", "`-S` prepared (PgBouncer: extended)"},
		"unknown":          {"PgBouncer unknown tps", "`-S` prepared (PgBouncer: extended)"},
	} {
		r := &report{Environment: environment{Versions: map[string]string{"PgBouncer": version}},
			Cells: []cell{{1, "prepared", pgbouncer, figures{tps: 1}}, {1, "prepared", postern, figures{tps: 1}}}}
		r.summarize(opts)
		got := r.tables()[0]
		if got.header[3] != want[0] || got.rows[0][0] != want[1] {
			t.Errorf("%s: heading %q, row %q", version, got.header[3], got.rows[0][0])
		}
	}
}

// Every target is the first of a round equally often, and a round leaves none out.
func TestRotate(t *testing.T) {
	first := map[string]int{}
	for round := range 6 {
		got := rotate(allTargets(), round)
		first[got[0]]++
		if len(got) != 3 || got[0] == got[1] || got[1] == got[2] || got[0] == got[2] {
			t.Errorf("round %d: %v", round, got)
		}
	}
	if diff := cmp.Diff(map[string]int{direct: 2, pgbouncer: 2, postern: 2}, first); diff != "" {
		t.Errorf("who was first (-want +got):\n%s", diff)
	}
}

// sampleReport has three rounds in which the computer gets slower but Postern always takes half of PgBouncer's CPU.
func sampleReport(t *testing.T) *report {
	t.Helper()
	opts, err := parseOptions([]string{"-rows", "simple,idle", "-rounds", "3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{Options: publicOptions(opts), Environment: environment{Versions: map[string]string{"Postern": "postern 1", "PgBouncer": "PgBouncer 1.26.1"}}}
	for round, slow := range []float64{1, 2, 4} {
		r.Cells = append(r.Cells,
			cell{round + 1, "simple", direct, figures{tps: 24000 / slow, latency: 1.25 * slow}},
			cell{round + 1, "simple", pgbouncer, figures{tps: 12000 / slow, latency: 2 * slow, cpu: 20 * slow}},
			cell{round + 1, "simple", postern, figures{tps: 18000 / slow, latency: 1.5 * slow, cpu: 10 * slow}},
			cell{round + 1, "idle", pgbouncer, figures{memory: 0.5}},
			cell{round + 1, "idle", postern, figures{memory: 2, goroutinesBefore: 14, goroutinesAfter: 14}},
		)
	}
	r.summarize(opts)
	return r
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport(t).print(&b, "text"); err != nil {
		t.Fatal(err)
	}
	want := `
             direct tps    ms  PgBouncer 1.26.1 tps    ms  µs CPU  Postern tps    ms  µs CPU         CPU ratio         tps ratio
` + "`-S` simple" + `      12,000  2.50          6,000  4.00    40.0        9,000  3.00    20.0  0.50 (0.50-0.50)  1.50 (1.50-1.50)

              PgBouncer 1.26.1 KiB/client  Postern KiB/client      memory ratio  Postern goroutines before  after
idle clients                  0.50                2.00  4.00 (4.00-4.00)                         14     14
`
	if got := "\n" + b.String(); !strings.HasPrefix(strip(got), strip(want)) {
		t.Errorf("text is\n%s\nwant\n%s", got, want)
	}
	// Columns line up: every line of a table is as wide as the others.
	lines := strings.Split(b.String(), "\n")
	if a, b := len([]rune(lines[0])), len([]rune(lines[1])); a != b {
		t.Errorf("lines of %d and %d columns", a, b)
	}
}

// strip takes the padding away, which is checked by the lines' widths.
func strip(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport(t).print(&b, "markdown"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
		"| `-S` simple | 12,000 | 2.50 | 6,000 | 4.00 | 40.0 | 9,000 | 3.00 | 20.0 | 0.50 (0.50-0.50) | 1.50 (1.50-1.50) |\n",
		"| idle clients | 0.50 | 2.00 | 4.00 (4.00-4.00) | 14 | 14 |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport(t).print(&b, "json"); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Summary []struct {
			Row    string
			Ratios map[string]spread `json:"postern_to_pgbouncer"`
		}
		Cells []cell
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Cells) != 15 || len(got.Summary) != 2 || got.Summary[0].Ratios["cpu_us_per_transaction"].Median != 0.5 {
		t.Errorf("JSON is\n%s", b.String())
	}
}

func TestNumber(t *testing.T) {
	for _, tc := range []struct {
		x        float64
		decimals int
		want     string
	}{
		{0, 0, "0"}, {999, 0, "999"}, {1000, 0, "1,000"}, {1234567.8, 1, "1,234,567.8"}, {-1234, 0, "-1,234"}, {-0.5, 2, "-0.50"},
	} {
		if got := number(tc.x, tc.decimals); got != tc.want {
			t.Errorf("number(%v, %d) = %q, want %q", tc.x, tc.decimals, got, tc.want)
		}
	}
}
