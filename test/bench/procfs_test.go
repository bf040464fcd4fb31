// Tests of reading /proc and Prometheus text.

package main

import (
	"testing"
	"time"
)

func TestParseStatCPU(t *testing.T) {
	for name, tc := range map[string]struct {
		stat string
		want time.Duration
		bad  bool
	}{
		"plain":                       {stat: "12 (pgbouncer) S 1 12 12 0 -1 4194304 500 0 0 0 150 250 7 8 20 0 1 0 100 1 1\n", want: 4 * time.Second},
		"name with ) and spaces":      {stat: "12 (a ) b) S 1) S 1 12 12 0 -1 4194304 500 0 0 0 1 2 7 8 20 0 1 0 100 1 1\n", want: 30 * time.Millisecond},
		"children's time is not ours": {stat: "12 (x) R 1 12 12 0 -1 0 0 0 0 0 0 0 900 900 20 0 1 0 100 1 1\n", want: 0},
		"cut short":                   {stat: "12 (x) R 1 12", bad: true},
		"no name":                     {stat: "12 x R 1 12 12 0 -1 0 0 0 0 0 0 0 900", bad: true},
		"no number":                   {stat: "12 (x) R 1 12 12 0 -1 0 0 0 0 0 x 0 900 900 20\n", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStatCPU(tc.stat)
			if (err != nil) != tc.bad || got != tc.want {
				t.Errorf("got %v, %v; want %v, error %v", got, err, tc.want, tc.bad)
			}
		})
	}
}

func TestParseVmRSS(t *testing.T) {
	for name, tc := range map[string]struct {
		status string
		want   int64
		bad    bool
	}{
		"plain":      {status: "Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 5 kB\n", want: 1234 * 1024},
		"zombie":     {status: "Name:\tx\nState:\tZ (zombie)\n", bad: true},
		"other unit": {status: "VmRSS:\t 5 MB\n", bad: true},
		"no number":  {status: "VmRSS:\t five kB\n", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseVmRSS(tc.status)
			if (err != nil) != tc.bad || got != tc.want {
				t.Errorf("got %v, %v; want %v, error %v", got, err, tc.want, tc.bad)
			}
		})
	}
}

func TestParseGoroutines(t *testing.T) {
	got, err := parseSample("# HELP go_goroutines Number.\n# TYPE go_goroutines gauge\ngo_goroutines 17\ngo_goroutines_other 3\n", "go_goroutines")
	if err != nil || got != 17 {
		t.Errorf("got %v, %v; want 17", got, err)
	}
	if _, err := parseSample("go_goroutines_other 3\n", "go_goroutines"); err == nil {
		t.Error("found goroutines where there are none")
	}
}
