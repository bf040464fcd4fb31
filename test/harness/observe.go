// What a running gate shows of itself: log, metrics, and what the kernel counts for its process.

package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Log collects what a process writes. Its methods may be called from any goroutine.
type Log struct {
	mu  sync.Mutex
	raw bytes.Buffer
}

func newLog() *Log { return new(Log) }

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raw.Write(p)
}

// String is all of it as it was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raw.String()
}

// Contains searches the text, for what must not be in a log in any form.
func (l *Log) Contains(text string) bool { return strings.Contains(l.String(), text) }

// Entries are the whole lines that are JSON objects, oldest first.
func (l *Log) Entries() (out []Map) {
	for line := range strings.Lines(l.String()) {
		var entry Map
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &entry) == nil {
			out = append(out, entry)
		}
	}
	return out
}

// Find returns the entries with a message whose attributes have all the given values, compared as text.
func (l *Log) Find(msg string, attrs Map) (out []Map) {
next:
	for _, e := range l.Entries() {
		if e["msg"] != msg {
			continue
		}
		for name, want := range attrs {
			if got, ok := e[name]; !ok || fmt.Sprint(got) != fmt.Sprint(want) {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}

// scrapeLimit bounds one admin request of an observer.
const scrapeLimit = Patience

func (g *Gate) request(t testing.TB, ctx context.Context, method, path string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, g.AdminURL()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+g.Token)
	req.Close = true // a kept connection would be a descriptor of the gate's
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// Metrics are the values on /metrics by series, written as there: name{label="value",...}.
func (g *Gate) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	status, page := g.request(t, ctx, http.MethodGet, "/metrics", nil)
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d: %s", status, page)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ') // label values may hold spaces
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if at < 0 || err != nil {
			t.Fatalf("/metrics: not a sample: %q", line)
		}
		values[line[:at]] = value
	}
	return values
}

// Metric is the sum over the series of a name that have the given labels; 0 if there is none.
func (g *Gate) Metric(t testing.TB, name string, labels map[string]string) (sum float64) {
	t.Helper()
next:
	for series, value := range g.Metrics(t) {
		rest, ok := strings.CutPrefix(series, name)
		if !ok || rest != "" && rest[0] != '{' {
			continue
		}
		for label, want := range labels {
			pair := label + "=" + strconv.Quote(want)
			if !strings.Contains(rest, "{"+pair) && !strings.Contains(rest, ","+pair) {
				continue next
			}
		}
		sum += value
	}
	return sum
}

// Goroutines is how many the gate has, the one that answers this included.
func (g *Gate) Goroutines(t testing.TB) int {
	t.Helper()
	n, ok := g.Metrics(t)["go_goroutines"]
	if !ok {
		t.Fatal("/metrics has no go_goroutines")
	}
	return int(n)
}

// FDs is how many descriptors the gate has open (Linux).
func (g *Gate) FDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(g.proc("fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// RSS is the gate's resident memory in bytes (Linux).
func (g *Gate) RSS(t testing.TB) int64 {
	t.Helper()
	content, err := os.ReadFile(g.proc("statm"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(content)) // size, resident, ... in pages
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// WatchPeakRSS begins a new watch for [Gate.PeakRSS] (Linux).
func (g *Gate) WatchPeakRSS(t testing.TB) {
	t.Helper()
	const resetPeak = "5" // proc(5), /proc/pid/clear_refs
	if err := os.WriteFile(g.proc("clear_refs"), []byte(resetPeak), 0); err != nil {
		t.Fatal(err)
	}
}

// PeakRSS is the most resident memory in bytes that the gate had at any time since WatchPeakRSS, or since its start (Linux).
func (g *Gate) PeakRSS(t testing.TB) int64 {
	t.Helper()
	content, err := os.ReadFile(g.proc("status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(content), "\nVmHWM:")
	var kB int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kB); err != nil {
		t.Fatalf("no VmHWM: %v", err)
	}
	return kB << 10
}

func (g *Gate) proc(name string) string { return filepath.Join("/proc", strconv.Itoa(g.PID()), name) }
