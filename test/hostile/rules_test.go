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
	settle = patience
	// growth is how much memory a group may leave behind, in bytes: caches and the collector's slack, under the race
	// detector, too, which the runtime returns to the system in minutes; on a busy computer that was up to 50 MiB. It is
	// the coarse half of R8: TestMemory is the fine one.
	growth = 128 << 20
	// briefly is the server_idle of gates whose rows may dial, so that what they dialed is gone again while one waits. The
	// neighbour asks far more often, also where everything stands still for a moment.
	briefly = 3 * time.Second
)

// brief is the timeouts of such a gate.
var brief = harness.Map{"server_idle": briefly.String()}

// state is what the rules compare.
type state struct {
	metrics     map[string]float64
	descriptors int
}

func (g *gate) state(t *testing.T) state {
	t.Helper()
	return state{g.Metrics(t), g.FDs(t)}
}

// baseline is the state before a group. A scrape counts its own goroutines, of which there are one or two more or less by
// chance. Afterwards the rules look until the number is right, so the most of some scrapes is what it was.
func (g *gate) baseline(t *testing.T) state {
	t.Helper()
	const scrapes = 5
	before := g.state(t)
	for range scrapes - 1 {
		before.metrics["go_goroutines"] = max(before.metrics["go_goroutines"], float64(g.Goroutines(t)))
	}
	return before
}

// guard runs a group of rows and checks the rules around it. dials is how many server connections the group may ask for:
// none, unless its rows log in well to where no server connection waits. Then the gate must have the timeouts of brief.
func (g *gate) guard(t *testing.T, dials int, group func()) {
	t.Helper()
	g.goodLogin(t)
	n := g.neighbour(t)
	// What the good logins need is there before anything is counted, or, where it does not stay, gone again.
	harness.Eventually(t, briefly+settle, "the tenants' server connections are counted", func() bool { // by the loops, when they get to it
		now := g.Metrics(t)
		return (servers(now, "acme", "") == 0) == g.brief && servers(now, "globex", "") > 0
	})
	before := g.baseline(t)

	group()

	g.goodLogin(t) // R3
	g.orderly(t, settle, func(now state) string { return g.disorder(before, now, dials) })
	const memory = "process_resident_memory_bytes"
	if b, a := before.metrics[memory], g.Metrics(t)[memory]; a > b+g.growth {
		t.Errorf("R8: memory grew from %.0f to %.0f MiB", b/(1<<20), a/(1<<20))
	}
	if dials > 0 {
		g.orderly(t, briefly+settle, func(now state) string { return remains(before, now) })
	}
	n.judge(t)
	g.judgeLog(t)
}

// orderly waits until nothing is out of order.
func (g *gate) orderly(t *testing.T, limit time.Duration, look func(now state) string) {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		why := look(g.state(t))
		if why == "" {
			return
		}
		if time.Now().After(end) {
			t.Error(why)
			return
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// goodLogin is a visit of acme's user.
func (g *gate) goodLogin(t *testing.T) {
	t.Helper()
	p := g.login(t, "acme", g.freshClient())
	p.selectOne()
	p.quit()
}

// guarded are the tenants whose server connections are watched.
var guarded = []string{"acme", "globex", "walled", "sixonly", "secure", "retired", "choosy", "narrow"}

// disorder says what is not as it was, or nothing. Server connections that a group was free to ask for may be there, idle;
// each accounts for a descriptor and for nothing else. No other may come, and none may go.
func (g *gate) disorder(before, after state, dials int) string {
	if n := after.metrics["postern_panics_total"]; n != 0 {
		return fmt.Sprintf("R1: %v panics", n)
	}
	gained := 0.0
	for _, tenant := range guarded {
		b, a := servers(before.metrics, tenant, ""), servers(after.metrics, tenant, "")
		if a < b || a > b+float64(dials) {
			return fmt.Sprintf("R4: %s had %v server connections, has %v", tenant, b, a)
		}
		if busy := a - servers(after.metrics, tenant, "idle"); busy > 0 && tenant != "globex" { // whose neighbour is at work
			return fmt.Sprintf("R4: %v server connections of %s are not idle", busy, tenant)
		}
		gained += a - b
	}
	asked := 0.0
	for series, a := range after.metrics {
		b := before.metrics[series]
		name, _, _ := strings.Cut(series, "{")
		switch {
		case name == "postern_client_connections" && a != b && !strings.Contains(series, "globex"):
			return fmt.Sprintf("R5: %s was %v, is %v", series, b, a)
		case name == "postern_server_logins_total":
			asked += a - b
		case name == "postern_wakes_total" && a != b:
			return fmt.Sprintf("R9: %s was %v, is %v", series, b, a)
		}
	}
	if asked > float64(dials) {
		return fmt.Sprintf("R9: %v server logins, %d may be", asked, dials)
	}
	if b, a := before.metrics["go_goroutines"], after.metrics["go_goroutines"]; a > b {
		return fmt.Sprintf("R5: %v goroutines were, %v are", b, a)
	}
	if b, a := float64(before.descriptors), float64(after.descriptors); a > b+gained {
		return fmt.Sprintf("R5: %v descriptors were open, %v are, with %v more server connections", b, a, gained)
	}
	return ""
}

// remains says what is left of a group that was free to dial, after the time for which server connections may be idle.
func remains(before, after state) string {
	for _, tenant := range guarded {
		if b, a := servers(before.metrics, tenant, ""), servers(after.metrics, tenant, ""); a > b {
			return fmt.Sprintf("R4: %s had %v server connections, still has %v", tenant, b, a)
		}
	}
	if after.descriptors > before.descriptors {
		return fmt.Sprintf("R5: %d descriptors were open, %d still are", before.descriptors, after.descriptors)
	}
	return ""
}

// servers counts a tenant's server connections in one state, or in any ("").
func servers(scrape map[string]float64, tenant, state string) (n float64) {
	for series, value := range scrape {
		labels, ok := strings.CutPrefix(series, "postern_server_connections{")
		if ok && strings.Contains(labels, fmt.Sprintf("tenant=%q", tenant)) && (state == "" || strings.Contains(labels, fmt.Sprintf("state=%q", state))) {
			n += value
		}
	}
	return n
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
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			break // the rest is on its way
		}
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
