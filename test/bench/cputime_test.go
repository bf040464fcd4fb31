// Tests of the CPU time of a process, on recorded files.

package main

import (
	"testing"
	"testing/fstest"
	"time"
)

// recorded is /proc with one process, 4242: its stat with so many ticks of user and system time, and its threads' schedstat.
func recorded(utime, stime string, schedstat map[string]string) fstest.MapFS {
	proc := fstest.MapFS{"4242/stat": {Data: []byte("4242 (postern) S 1 4242 4242 0 -1 1077936384 2811 0 3 0 " + utime + " " + stime + " 77 88 20 0 9 0 1697032 1 1\n")}}
	for tid, line := range schedstat {
		proc["4242/task/"+tid+"/schedstat"] = &fstest.MapFile{Data: []byte(line)}
	}
	return proc
}

func TestCPUSince(t *testing.T) {
	type proc = map[string]string
	for name, tc := range map[string]struct {
		source        string
		before, after fstest.MapFS
		want          time.Duration
		doubt         string
	}{
		"the sum over the threads": {bySchedstat,
			recorded("20", "80", proc{"4242": "13806281 604311 95\n", "4243": "981512003 88123311 40122\n"}),
			recorded("60", "240", proc{"4242": "14806281 604311 96\n", "4243": "2980512003 188123311 80122\n"}),
			2 * time.Second, ""},
		"a thread that is new": {bySchedstat,
			recorded("0", "0", proc{"4242": "0 0 1\n"}),
			recorded("10", "10", proc{"4242": "1000000 0 2\n", "4250": "199000000 5 9\n"}),
			200 * time.Millisecond, ""},
		"a new thread with the id of one that ended": {bySchedstat,
			recorded("0", "4", proc{"4242": "1000000 0 2\n", "4243": "40000000 0 3\n"}),
			recorded("0", "7", proc{"4242": "2000000 0 4\n", "4243": "29000000 5 9\n"}),
			30 * time.Millisecond, ""},
		"children and steps of ticks make no doubt": {bySchedstat,
			recorded("1", "1", proc{"4242": "49999999 0 2\n"}),
			recorded("1", "1", proc{"4242": "89999999 0 3\n"}),
			40 * time.Millisecond, ""},
		"a thread that ended takes its time along": {bySchedstat,
			recorded("10", "10", proc{"4242": "100000000 0 2\n", "4243": "100000000 5 9\n"}),
			recorded("60", "50", proc{"4242": "200000000 0 2\n"}),
			100 * time.Millisecond, "the threads ran for 100ms, by clock ticks the process for 900ms; 1 threads ended meanwhile"},
		"ticks that saw nothing": {bySchedstat,
			recorded("10", "10", proc{"4242": "100000000 0 2\n"}),
			recorded("10", "10", proc{"4242": "900000000 0 2\n"}),
			800 * time.Millisecond, "the threads ran for 800ms, by clock ticks the process for 0s; 0 threads ended meanwhile"},
		"no schedstat": {byTicks, recorded("10", "10", nil), recorded("60", "50", nil), 900 * time.Millisecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := readCPU(tc.before, 4242, tc.source)
			if err != nil {
				t.Fatal(err)
			}
			after, err := readCPU(tc.after, 4242, tc.source)
			if err != nil {
				t.Fatal(err)
			}
			if used, doubt := after.since(before); used != tc.want || doubt != tc.doubt {
				t.Errorf("got %v, %q; want %v, %q", used, doubt, tc.want, tc.doubt)
			}
		})
	}
}

// What is not there or is no schedstat is an error, never a smaller sum.
func TestReadCPURefuses(t *testing.T) {
	noFile := recorded("1", "1", nil)
	noFile["4242/task/4242/stat"] = &fstest.MapFile{Data: []byte("x")}
	for name, proc := range map[string]fstest.MapFS{
		"no process":        {},
		"no task folder":    recorded("1", "1", nil),
		"no schedstat file": noFile,
		"cut short":         recorded("1", "1", map[string]string{"4242": "13806281 604311\n"}),
		"no number":         recorded("1", "1", map[string]string{"4242": "much 0 1\n"}),
		"less than nothing": recorded("1", "1", map[string]string{"4242": "-1 0 1\n"}),
		"no stat":           {"4242/task/4242/schedstat": {Data: []byte("1 0 1\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := readCPU(proc, 4242, bySchedstat); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A kernel without schedstat is named where the figures stand.
func TestTicksAreNamed(t *testing.T) {
	r := sampleReport(t)
	if got := r.tables()[0].header[5]; got != "µs CPU" {
		t.Errorf("heading %q", got)
	}
	r.Environment.CPUFrom = byTicks
	if got := r.tables()[0].header[5]; got != "µs CPU by ticks" {
		t.Errorf("heading %q", got)
	}
}
