// Tests of the console's session: each message of the protocol, simple and extended, and what it answers.

package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/postern/postern/proxy/pgwire"
)

// fakeGate has one of everything.
type fakeGate struct {
	did   []Command
	fail  error
	asked int // how often for pools
	pools int
}

func (g *fakeGate) Version() string     { return "Postern test" }
func (g *fakeGate) Settings() []Setting { return []Setting{{"max_client_conn", "7", "9"}} }
func (g *fakeGate) Databases() []Database {
	return []Database{{Tenant: "acme", Name: "app", Host: "h", Port: 5432, PoolSize: 20, Paused: true}}
}
func (g *fakeGate) Pools() (out []Pool) {
	g.asked++
	for i := range g.pools {
		out = append(out, Pool{Tenant: "acme", Database: "app", User: fmt.Sprintf("u%d", i), ClientsActive: i, MaxWait: 1500 * time.Millisecond, Mode: "session"})
	}
	return out
}
func (g *fakeGate) Clients() []Socket {
	return []Socket{{Tenant: "acme", Database: "app", User: "u", State: "idle", Addr: "2001:db8::1", Port: 99, ID: 5},
		{Tenant: "acme", Database: "app", User: "u", State: "active", Addr: "192.0.2.1", Port: 99, ID: 6, PID: math.MaxUint32, Received: 3, Pins: []string{"temp", "listen"}}}
}
func (g *fakeGate) Servers() []Socket { return []Socket{{Server: true, Tenant: "acme", State: "new"}} }
func (g *fakeGate) Lists() Lists      { return Lists{Databases: 1} }
func (g *fakeGate) Users() []User     { return []User{{Tenant: "acme", Name: "u", PoolSize: 3}} }
func (g *fakeGate) Stats() []Stats {
	return []Stats{{"acme", Counters{100, 200, 300, 400, math.MaxInt64}, Counters{40, 80, 0, 400, 0}, 20 * time.Second}, {Name: "globex"}}
}
func (g *fakeGate) Memory() []Memory { return []Memory{{"heap", 1024, 1 << 22, 5}} }
func (g *fakeGate) Tenants() []Tenant {
	return []Tenant{{ID: "acme", Machine: "asleep", Needs: []string{"a", "b"}}}
}
func (g *fakeGate) Bans() []Ban {
	return []Ban{{"", "198.51.100.7", 1500 * time.Millisecond, 50}, {"acme", "2001:db8::/64", 2 * time.Minute, 10}}
}
func (g *fakeGate) Nodes() []Node {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []Node{{Name: "gate-1", Region: "ams", Address: "192.0.2.1:7947", Member: "alive", Since: at, Seen: at, Leaving: true, Protocol: 1, Applied: 7}, {Name: "gate-2"}}
}
func (g *fakeGate) Refusals() []Refusal {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []Refusal{{"acme", "198.51.100.7", "address", "enforce", "app", math.MaxInt64, at, at.Add(time.Minute)}, {Tenant: "acme", Address: "2001:db8::1", Reason: "address", Mode: "observe", Count: 1, First: at, Last: at}}
}
func (g *fakeGate) State() State { return State{Paused: true} }
func (g *fakeGate) Do(c Command) error {
	g.did = append(g.did, c)
	return g.fail
}

// talk sends messages to a session and returns what it answers, a word each.
func talk(t *testing.T, g Gate, messages ...pgproto3.FrontendMessage) []string {
	t.Helper()
	var out bytes.Buffer
	s := NewSession(g, &out)
	for _, m := range messages {
		b, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Handle(b[0], b[pgwire.HeaderSize:]); err != nil {
			t.Fatal(err)
		}
	}
	return decode(t, &out)
}

// decode reads answers with pgx's decoder.
func decode(t *testing.T, from io.Reader) (words []string) {
	t.Helper()
	front := pgproto3.NewFrontend(from, io.Discard)
	for {
		m, err := front.Receive()
		if err != nil {
			return words
		}
		switch m := m.(type) {
		case *pgproto3.RowDescription:
			words = append(words, fmt.Sprintf("T%d", len(m.Fields)))
		case *pgproto3.DataRow:
			var values []string
			for _, v := range m.Values {
				if v == nil {
					values = append(values, "-")
				} else {
					values = append(values, string(v))
				}
			}
			words = append(words, "D "+strings.Join(values, "|"))
		case *pgproto3.CommandComplete:
			words = append(words, "C "+string(m.CommandTag))
		case *pgproto3.ErrorResponse:
			words = append(words, "E "+m.Severity+" "+m.Code)
		case *pgproto3.NoticeResponse:
			words = append(words, "N "+m.Message)
		case *pgproto3.ReadyForQuery:
			words = append(words, "Z"+string(m.TxStatus))
		default:
			words = append(words, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
		}
	}
}

func ask(text string) pgproto3.FrontendMessage { return &pgproto3.Query{String: text} }
func prepare(name, text string) pgproto3.FrontendMessage {
	return &pgproto3.Parse{Name: name, Query: text}
}
func bindTo(portal, statement string, formats ...int16) pgproto3.FrontendMessage {
	return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement, ResultFormatCodes: formats}
}
func describe(kind byte, name string) pgproto3.FrontendMessage {
	return &pgproto3.Describe{ObjectType: kind, Name: name}
}
func fetch(portal string, most uint32) pgproto3.FrontendMessage {
	return &pgproto3.Execute{Portal: portal, MaxRows: most}
}

var sync = &pgproto3.Sync{}

func TestSession(t *testing.T) {
	busy := fail("55000", "busy", "")
	for _, c := range []struct {
		name     string
		fail     error
		messages []pgproto3.FrontendMessage
		want     string
	}{
		{"show", nil, []pgproto3.FrontendMessage{ask("show version")}, "T1, D Postern test, C SHOW, ZI"},
		{"no rows", nil, []pgproto3.FrontendMessage{ask("show peers")}, "T4, C SHOW, ZI"},
		{"help", nil, []pgproto3.FrontendMessage{ask("show help")}, "N Console usage, C SHOW, ZI"},
		{"empty", nil, []pgproto3.FrontendMessage{ask("-- ping")}, "EmptyQueryResponse, ZI"},
		{"control", nil, []pgproto3.FrontendMessage{ask("pause acme")}, "C PAUSE, ZI"},
		{"control that fails", busy, []pgproto3.FrontendMessage{ask("pause acme"), ask("show version")}, "E ERROR 55000, ZI, T1, D Postern test, C SHOW, ZI"},
		{"control that fails for its own reason", errors.New("bad luck"), []pgproto3.FrontendMessage{ask("pause acme")}, "E ERROR XX000, ZI"},
		{"unknown", nil, []pgproto3.FrontendMessage{ask("reboot"), ask("show version")}, "E ERROR 42601, ZI, T1, D Postern test, C SHOW, ZI"},
		{"refused", nil, []pgproto3.FrontendMessage{ask("show fds"), ask("suspend"), ask("set a = b")}, "E ERROR 0A000, ZI, E ERROR 0A000, ZI, E ERROR 0A000, ZI"},
		{"a driver's own", nil, []pgproto3.FrontendMessage{ask("set DateStyle = 'ISO'"), ask("show timezone")}, "N SET ignored, C SET, ZI, T1, D UTC, C SHOW, ZI"},
		{"a function call", nil, []pgproto3.FrontendMessage{&pgproto3.FunctionCall{}}, "E ERROR 0A000, ZI"},
		{"COPY messages", nil, []pgproto3.FrontendMessage{&pgproto3.CopyDone{}, &pgproto3.CopyData{}, ask("show version")}, "T1, D Postern test, C SHOW, ZI"},

		{"extended", nil, []pgproto3.FrontendMessage{prepare("", "show version"), describe('S', ""), bindTo("", ""), describe('P', ""), fetch("", 0), sync},
			"ParseComplete, ParameterDescription, T1, BindComplete, T1, D Postern test, C SHOW, ZI"},
		{"extended control", nil, []pgproto3.FrontendMessage{prepare("p", "pause"), describe('S', "p"), bindTo("", "p"), describe('P', ""), fetch("", 0), sync},
			"ParseComplete, ParameterDescription, NoData, BindComplete, NoData, C PAUSE, ZI"},
		{"extended empty", nil, []pgproto3.FrontendMessage{prepare("", ""), bindTo("", ""), describe('P', ""), fetch("", 0), sync},
			"ParseComplete, BindComplete, NoData, EmptyQueryResponse, ZI"},
		{"some rows at a time", nil, []pgproto3.FrontendMessage{prepare("", "show state"), bindTo("x", ""), fetch("x", 2), fetch("x", 2), fetch("x", 2), sync},
			"ParseComplete, BindComplete, D active|no, D paused|yes, PortalSuspended, D suspended|no, C SHOW, C SHOW, ZI"},
		{"errors skip to Sync", nil, []pgproto3.FrontendMessage{prepare("", "reboot"), bindTo("", ""), fetch("", 0), sync, prepare("", "show version"), bindTo("", ""), fetch("", 0), sync},
			"E ERROR 42601, ZI, ParseComplete, BindComplete, D Postern test, C SHOW, ZI"},
		{"a control is executed once", nil, []pgproto3.FrontendMessage{prepare("", "pause"), bindTo("x", ""), fetch("x", 0), fetch("x", 0), sync},
			"ParseComplete, BindComplete, C PAUSE, E ERROR 34000, ZI"},
		{"no such statement", nil, []pgproto3.FrontendMessage{bindTo("", "x"), sync, describe('S', ""), sync}, "E ERROR 26000, ZI, E ERROR 26000, ZI"},
		{"no such portal", nil, []pgproto3.FrontendMessage{fetch("x", 0), sync, describe('P', ""), sync}, "E ERROR 34000, ZI, E ERROR 34000, ZI"},
		{"the unnamed portal ends with the Sync", nil, []pgproto3.FrontendMessage{prepare("", "show version"), bindTo("", ""), sync, fetch("", 0), sync},
			"ParseComplete, BindComplete, ZI, E ERROR 34000, ZI"},
		{"a name twice", nil, []pgproto3.FrontendMessage{prepare("a", "show version"), prepare("a", "show version"), sync}, "ParseComplete, E ERROR 42P05, ZI"},
		{"a closed name is free", nil, []pgproto3.FrontendMessage{prepare("a", "show version"), &pgproto3.Close{ObjectType: 'S', Name: "a"}, prepare("a", ""), sync},
			"ParseComplete, CloseComplete, ParseComplete, ZI"},
		{"parameters", nil, []pgproto3.FrontendMessage{prepare("", "show version"), &pgproto3.Bind{Parameters: [][]byte{[]byte("a")}}, sync}, "ParseComplete, E ERROR 08P01, ZI"},
		{"formats", nil, []pgproto3.FrontendMessage{prepare("", "show version"), bindTo("", "", 0, 1), sync, bindTo("", "", 2), sync}, "ParseComplete, E ERROR 08P01, ZI, E ERROR 22023, ZI"},
	} {
		g := &fakeGate{fail: c.fail}
		if diff := cmp.Diff(c.want, strings.Join(talk(t, g, c.messages...), ", ")); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, diff)
		}
		if len(g.did) > 1 {
			t.Errorf("%s: did %v", c.name, g.did)
		}
	}
}

// TestRows of every table, as text.
func TestRows(t *testing.T) {
	for what, want := range map[string][]string{
		"config":         {"D max_client_conn|7|9|no"},
		"databases":      {"D acme/app|h|5432|acme/app|-|20|0|0|0|-|-|0|0|0|0|1|0|0"},
		"pools":          {"D acme/app|u0|0|0|0|0|0|0|0|0|0|0|0|1|500000|session|-"},
		"users":          {"D u.acme|        3||-|0|0|0|0"},
		"mem":            {"D heap|1024|4194304|5|4294972416"},
		"stats_totals":   {"D acme|100|200|300|400|9223372036854775807|0|0|0|0|0|0", "D globex|0|0|0|0|0|0|0|0|0|0|0"},
		"stats_averages": {"D acme|3|6|15|0|461168601842738816|0|0|0|0|0|0", "D globex|0|0|0|0|0|0|0|0|0|0|0"},
		"bans":           {"D -|198.51.100.7|2|50", "D acme|2001:db8::/64|120|10"},
		"nodes":          {"D gate-1|ams|192.0.2.1:7947|alive|2026-01-02 03:04:05 UTC|2026-01-02 03:04:05 UTC|0|1|1|7", "D gate-2|-|-|-|-|-|0|0|0|0"},
		"refusals": {"D acme|198.51.100.7|address|enforce|app|9223372036854775807|2026-01-02 03:04:05 UTC|2026-01-02 03:05:05 UTC",
			"D acme|2001:db8::1|address|observe|-|1|2026-01-02 03:04:05 UTC|2026-01-02 03:04:05 UTC"},
		"tenants":        {"D acme|asleep|-|-|0|0|0|0|0|0|0|0|0|0|a, b"},
		"pins":           {"D 192.0.2.1:99|acme|u|app|temp,listen||6|-1"},
		"servers":        {"D S||acme/|none|new||0||0|||0|0|0|||0|||0|0"},
		"active_sockets": {"D C|u|acme/app|none|cl_active|192.0.2.1|99||0|||0|0|0|||-1|||0|6|3|0|0|0|0|3|0"},
	} {
		got := talk(t, &fakeGate{pools: 1}, ask("show "+what))
		got = slices.DeleteFunc(got, func(word string) bool { return !strings.HasPrefix(word, "D ") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("SHOW %s (-want +got)\n%s", what, diff)
		}
	}
	// Every table has as many values as columns, or appendRow panics.
	for name := range shows {
		_ = talk(t, &fakeGate{pools: 2}, ask("show "+name))
	}
}

// TestBinary is read back by pgx's own types.
func TestBinary(t *testing.T) {
	types := pgtype.NewMap()
	for _, c := range []struct {
		oid uint32
		n   int64
	}{{typeInt4, 0}, {typeInt4, 7}, {typeInt4, -1}, {typeInt8, 1 << 40}, {typeNumeric, 0}, {typeNumeric, 1}, {typeNumeric, 9999}, {typeNumeric, 10000},
		{typeNumeric, 100_000_000}, {typeNumeric, 123_456_789_012}, {typeNumeric, math.MaxInt64}} {
		for _, inBinary := range []bool{false, true} {
			format := int16(0)
			if inBinary {
				format = 1
			}
			if c.oid == typeNumeric {
				var got pgtype.Numeric
				if err := types.Scan(c.oid, format, appendValue(nil, c.oid, c.n, inBinary), &got); err != nil {
					t.Errorf("%+v: %v", c, err)
				} else if n, err := got.Int64Value(); err != nil || n.Int64 != c.n {
					t.Errorf("%+v in binary %v is read as %v, %v", c, inBinary, n, err)
				}
				continue
			}
			var got int64
			if err := types.Scan(c.oid, format, appendValue(nil, c.oid, c.n, inBinary), &got); err != nil || got != c.n {
				t.Errorf("%+v in binary %v is read as %v, %v", c, inBinary, got, err)
			}
		}
	}
}

// TestLongAnswer is sent in parts, and asked for once.
func TestLongAnswer(t *testing.T) {
	g := &fakeGate{pools: 5000}
	w := &parts{}
	s := NewSession(g, w)
	if err := s.Handle(pgwire.Query, []byte("show pools\x00")); err != nil {
		t.Fatal(err)
	}
	words := decode(t, bytes.NewReader(w.all))
	if len(words) != 5003 || words[5002] != "ZI" || g.asked != 1 {
		t.Errorf("%d messages, asked %d times", len(words), g.asked)
	}
	if w.n < 3 || w.largest > 2*flushAt {
		t.Errorf("%d parts, the largest of %d bytes", w.n, w.largest)
	}
}

type parts struct {
	all        []byte
	n, largest int
}

func (w *parts) Write(p []byte) (int, error) {
	w.all = append(w.all, p...)
	w.n, w.largest = w.n+1, max(w.largest, len(p))
	return len(p), nil
}

// TestLimits of what a session may keep, and its end.
func TestLimits(t *testing.T) {
	s := NewSession(&fakeGate{}, io.Discard)
	for i := range 3 * maxNamed {
		b, _ := prepare(fmt.Sprintf("s%d", i), "show version").(*pgproto3.Parse).Encode(nil)
		_ = s.Handle(b[0], b[pgwire.HeaderSize:])
		s.skipping = false
	}
	if len(s.statements) != maxNamed {
		t.Errorf("%d statements", len(s.statements))
	}
	if err := s.Handle(pgwire.Terminate, nil); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	broken := NewSession(&fakeGate{}, brokenWriter{})
	if err := broken.Handle(pgwire.Query, []byte("show version\x00")); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// FuzzSession: whatever a client sends, its session answers in whole messages and goes on.
func FuzzSession(f *testing.F) {
	add := func(messages ...pgproto3.FrontendMessage) {
		var all []byte
		for _, m := range messages {
			all, _ = m.Encode(all)
		}
		f.Add(all)
	}
	add(ask("show pools"), prepare("a", "show stats"), describe('S', "a"), bindTo("p", "a", 1), fetch("p", 1), sync)
	add(&pgproto3.Bind{ParameterFormatCodes: []int16{1}, Parameters: [][]byte{nil, []byte("x")}}, &pgproto3.Close{ObjectType: 'P'}, &pgproto3.Flush{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		s := NewSession(&fakeGate{pools: 2}, &out)
		for len(data) > 0 {
			size, status := pgwire.ClientFrame(data)
			if status != pgwire.FrameOK || size > len(data) || size > MaxMessage {
				break
			}
			if err := s.Handle(data[0], data[pgwire.HeaderSize:size]); errors.Is(err, ErrEnded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			data = data[size:]
		}
		out.Reset()
		if err := s.Handle(pgwire.Query, []byte("show version\x00")); err != nil {
			t.Fatal(err)
		}
		if words := decode(t, &out); len(words) < 4 || words[len(words)-1] != "ZI" || words[len(words)-3] != "D Postern test" {
			t.Errorf("then it answers %v", words)
		}
	})
}
