// Tests of the exchanges that the tracking rows measure, and of what is made of their times.

package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// Every row that tracks has its exchanges: all of them end with a server that may be lent again, whatever the client and
// the server were before, and hold nothing that grows.
func TestExchanges(t *testing.T) {
	for _, w := range allRows() {
		if w.tracks == "" {
			continue
		}
		t.Run(w.tracks, func(t *testing.T) {
			tr, err := newTracker(w.tracks)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.close()
			for i := range 2000 {
				if _, err := tr.exchange(i, 0); err != nil {
					t.Fatalf("exchange %d: %v", i, err)
				}
			}
			if n := tr.stmts.Len(); n > 1 {
				t.Errorf("%d statements are kept", n)
			}
			i := 0
			if n := testing.AllocsPerRun(100, func() { _, _ = tr.exchange(i, 0); i++ }); n > 0 {
				t.Errorf("%v allocations per exchange: a collector would run in between", n)
			}
		})
	}
	if _, err := newTracker("fast"); err == nil {
		t.Error("an unknown mode was taken")
	}
}

// Messages that do not make a transaction are told, not measured.
func TestExchangeIsChecked(t *testing.T) {
	for _, answers := range []string{"TDC", "TD1CZ", "12TDCZ"} {
		tr, err := newTracker("simple")
		if err != nil {
			t.Fatal(err)
		}
		tr.answers = answers
		if _, err := tr.exchange(0, 0); !errors.Is(err, errBooks) {
			t.Errorf("answers %s: %v", answers, err)
		}
		tr.close()
	}
}

// Only where the scanner runs for each transaction has it a time.
func TestTrackerRuns(t *testing.T) {
	for _, w := range allRows() {
		if w.tracks == "" {
			continue
		}
		tr, err := newTracker(w.tracks)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tr.run(t.Context(), 200, warmWalk)
		if err != nil || got.link <= 0 || (got.scanner > 0) != (w.tracks == "simple") {
			t.Errorf("%s: %+v, error %v", w.tracks, got, err)
		}
		tr.close()
	}
}

func TestTrackingIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := trackingCell(ctx, "simple"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// What a tracking row is set against runs with it, for Postern alone unless it was chosen itself.
func TestTrackingBringsItsRow(t *testing.T) {
	for list, want := range map[string]string{
		"tracking":              "simple(postern) tracking(postern)",
		"tracking,simple":       "simple(direct,pgbouncer,postern) tracking(postern)",
		"tracking-prepared,tls": "prepared(postern) tracking-prepared(postern) tls(direct,pgbouncer,postern)",
		"simple-plain,tracking": "simple(postern) simple-plain(pgbouncer,postern) tracking(postern)",
		"wake":                  "wake(postern)",
	} {
		rows, err := selectRows(list)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range rows {
			got = append(got, w.name+"("+strings.Join(w.targets, ",")+")")
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("-rows %s: %s, want %s", list, got, want)
		}
	}
	for _, w := range allRows() {
		if w.tracks == "" {
			continue
		}
		if _, err := selectRows(w.tracks); err != nil {
			t.Errorf("row %s has no row to be set against: %v", w.name, err)
		}
	}
}

// The shares are those of the rounds, and a round without CPU gives none.
func TestTrackingTable(t *testing.T) {
	opts, err := parseOptions([]string{"-rows", "tracking,tracking-extended"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{Options: publicOptions(opts)}
	for round, us := range []float64{10, 20, 40} {
		r.Cells = append(r.Cells,
			cell{round + 1, "simple", postern, figures{cpu: us}},
			cell{round + 1, "tracking", postern, figures{scannerWarm: 10 * us, scannerCold: 20 * us, linkWarm: 5 * us, linkCold: 10 * us,
				trackingWarm: 15 * us, trackingCold: 30 * us}},
			cell{round + 1, "tracking-extended", postern, figures{linkWarm: 100, linkCold: 200, trackingWarm: 100, trackingCold: 200}})
	}
	r.Cells = append(r.Cells, cell{4, "simple", postern, figures{cpu: 0}})
	r.summarize(opts)
	var b strings.Builder
	if err := r.print(&b, "markdown"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `-S` simple | 200-400 | 100-200 | 15.0 | 1.0-2.0 | 0.5-1.0 | 1.5-3.0 | <= 3 |\n",
		"| `-S` extended | - | 100-200 | - | - | - | - | - |\n", // the row extended has no cells here
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
