// The rules that hold around every group of rows.

package hostile

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern/postern/test/harness"
)

const (
	// settle is how long the gate may take to have forgotten a group.
	settle = 5 * time.Second
	// neighbourWait is the slowest answer that the neighbour accepts. It is generous because the machines that run
	// tests are busy; a neighbour who is really blocked waits longer.
	neighbourWait = 2 * time.Second
	// growth is how much memory a group may leave behind, in bytes: caches and the collector's slack, under the race
	// detector, too. One buffer of a claimed gigabyte would be 16 times as much.
	growth = 64 << 20
)

// guard runs a group of rows and checks the rules around it. dials says that the group's rows log in well and to where
// no server connection waits, so that dialing is right.
func (g *gate) guard(t *testing.T, dials bool, group func()) {
	t.Helper()
	// What the good logins below need is there before anything is counted.
	g.goodLogin(t)
	n := g.neighbour(t)
	harness.Eventually(t, settle, "the tenants' server connections are counted", func() bool { // by the loops, when they get to it
		now := g.Metrics(t)
		return servers(now, "acme") > 0 && servers(now, "globex") > 0
	})
	before := g.Metrics(t)
	descriptors := g.FDs(t)

	group()

	g.goodLogin(t) // R3
	var why string
	for end := time.Now().Add(settle); ; {
		if why = disorder(before, g.Metrics(t), descriptors, g.FDs(t), dials); why == "" {
			break
		}
		if time.Now().After(end) {
			t.Error(why)
			break
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
	n.judge(t)
	g.judgeLog(t)
}

// goodLogin is a visit of acme's user.
func (g *gate) goodLogin(t *testing.T) {
	t.Helper()
	p := g.login(t, "acme", g.freshClient())
	p.selectOne()
	p.quit()
}

// disorder says what is not as it was, or nothing.
func disorder(before, after map[string]float64, descriptorsBefore, descriptorsAfter int, dials bool) string {
	if n := after["postern_panics_total"]; n != 0 {
		return fmt.Sprintf("R1: %v panics", n)
	}
	for _, tenant := range []string{"acme", "globex", "walled", "sixonly", "secure"} {
		if b, a := servers(before, tenant), servers(after, tenant); a != b && !dials {
			return fmt.Sprintf("R4: %s had %v server connections, has %v", tenant, b, a)
		}
	}
	for series := range after {
		if strings.HasPrefix(series, "postern_client_connections") && after[series] != before[series] && !strings.Contains(series, "globex") {
			return fmt.Sprintf("R5: %s was %v, is %v", series, before[series], after[series])
		}
		if strings.HasPrefix(series, "postern_server_logins_total") && after[series] != before[series] && !dials {
			return fmt.Sprintf("R9: %s was %v, is %v", series, before[series], after[series])
		}
	}
	if b, a := before["go_goroutines"], after["go_goroutines"]; a > b && !dials {
		return fmt.Sprintf("R5: %v goroutines were, %v are", b, a)
	}
	if descriptorsAfter > descriptorsBefore && !dials {
		return fmt.Sprintf("R5: %d descriptors were open, %d are", descriptorsBefore, descriptorsAfter)
	}
	const memory = "process_resident_memory_bytes"
	if b, a := before[memory], after[memory]; a > b+growth {
		return fmt.Sprintf("R8: memory grew from %.0f to %.0f MiB", b/(1<<20), a/(1<<20))
	}
	return ""
}

// servers counts a tenant's server connections in whatever state: the neighbour's is busy now and idle then.
func servers(scrape map[string]float64, tenant string) (n float64) {
	for _, state := range []string{"active", "idle", "login", "cleaning"} {
		n += scrape[fmt.Sprintf("postern_server_connections{state=%q,tenant=%q}", state, tenant)]
	}
	return n
}

// neighbour is the session of the second tenant that asks all the while.
type neighbour struct {
	stop   chan struct{}
	result chan error
}

func (g *gate) neighbour(t *testing.T) *neighbour {
	t.Helper()
	p := g.login(t, "globex", g.freshClient())
	p.selectOne() // its server connection is there now
	n := &neighbour{stop: make(chan struct{}), result: make(chan error, 1)}
	tick := time.NewTicker(20 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for asked := 0; ; asked++ {
			select {
			case <-n.stop:
				p.Close()
				n.result <- nil
				return
			case <-tick.C:
			}
			began := time.Now()
			p.send(query("select 1"))
			for _, want := range []byte("TDCZ") {
				kind, body, err := p.message()
				if err != nil || kind != want {
					n.result <- fmt.Errorf("question %d: message %q %q, %v; want %q", asked, kind, body, err, want)
					return
				}
			}
			if took := time.Since(began); took > neighbourWait {
				n.result <- fmt.Errorf("question %d took %v", asked, took)
				return
			}
		}
	}()
	return n
}

func (n *neighbour) judge(t *testing.T) {
	t.Helper()
	close(n.stop)
	if err := <-n.result; err != nil {
		t.Errorf("R2: the neighbour: %v", err)
	}
}

// counters keeps of a scrape what rows may move: how handshakes ended.
func counters(scrape map[string]float64) map[string]float64 {
	maps.DeleteFunc(scrape, func(series string, _ float64) bool {
		for _, name := range []string{"postern_proxy_headers_total", "postern_refusals_total", "postern_cancels_total", "postern_logins_total"} {
			if strings.HasPrefix(series, name+"{") {
				return false
			}
		}
		return true
	})
	return scrape
}

// moved checks R6: since before, exactly these counters moved, each as often as it is named.
func (g *gate) moved(t testing.TB, before map[string]float64, want ...string) {
	t.Helper()
	wanted := make(map[string]float64)
	for _, series := range want {
		wanted[series]++
	}
	for end := time.Now().Add(patience); ; {
		got := make(map[string]float64)
		for series, n := range counters(g.Metrics(t)) {
			if d := n - before[series]; d != 0 {
				got[series] = d
			}
		}
		if maps.Equal(got, wanted) {
			return
		}
		if time.Now().After(end) {
			t.Errorf("R6: counters moved: %v, want %v", got, wanted)
			return
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// judgeLog checks R7.
func (g *gate) judgeLog(t testing.TB) {
	t.Helper()
	for line := range strings.Lines(g.Log().String()) {
		line = strings.TrimSuffix(line, "\n")
		if !json.Valid([]byte(line)) {
			t.Errorf("R7: not JSON: %q", line)
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("R7: control characters: %q", line)
		}
		if s := g.secretIn(line); s != "" {
			t.Errorf("R7: %s in: %s", s, line)
		}
		if len(line) > 4096 {
			t.Errorf("R7: a line of %d bytes: %.200q", len(line), line)
		}
	}
}
