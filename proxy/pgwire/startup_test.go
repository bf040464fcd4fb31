// Startup packets: what is read, what is accepted, and with which error the rest is refused.

package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// packet frames a startup packet; n replaces its length unless it is 0.
func packet(n, code uint32, body string) []byte {
	if n == 0 {
		n = uint32(8 + len(body))
	}
	b := binary.BigEndian.AppendUint32(nil, n)
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, body...)
}

// counted counts what is read through it.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func TestReadPacketRefuses(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, 20_000)
	for _, tc := range []struct {
		id   string
		in   []byte
		want error
		read int // bytes taken at most
	}{
		{"S01 nothing", nil, io.EOF, 0},
		{"S03 one byte", []byte{0}, io.ErrUnexpectedEOF, 1},
		{"S04 length 0, more follows", append([]byte{0, 0, 0, 0}, long...), ErrStartupLength, 4},
		{"S05 length 3", append([]byte{0, 0, 0, 3}, long...), ErrStartupLength, 4},
		{"S06 length 4", []byte{0, 0, 0, 4}, ErrStartupLength, 4},
		{"S07 length 7", append([]byte{0, 0, 0, 7}, long...), ErrStartupLength, 4},
		{"S08 length 10005", append(binary.BigEndian.AppendUint32(nil, 10_005), long...), ErrStartupLength, 4},
		{"S09 length 0x7fffffff", append([]byte{0x7f, 0xff, 0xff, 0xff}, long...), ErrStartupLength, 4},
		{"S10 length -1", append([]byte{0xff, 0xff, 0xff, 0xff}, long...), ErrStartupLength, 4},
		{"S11 HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ErrStartupLength, 4},
		{"TLS ClientHello", []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc}, ErrStartupLength, 4},
		{"code cut off", []byte{0, 0, 0, 8, 0, 3}, io.ErrUnexpectedEOF, 6},
		{"body cut off", packet(20, Version30, "user"), io.ErrUnexpectedEOF, 12},
		{"body missing", packet(20, Version30, ""), io.ErrUnexpectedEOF, 8},
	} {
		t.Run(tc.id, func(t *testing.T) {
			r := &counted{Reader: bytes.NewReader(tc.in)}
			_, body, err := ReadPacket(r)
			if !errors.Is(err, tc.want) && !(tc.want == io.ErrUnexpectedEOF && errors.Is(err, io.EOF)) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if body != nil || r.n > tc.read {
				t.Errorf("read %d bytes, want at most %d; body %q", r.n, tc.read, body)
			}
		})
	}
}

func TestReadPacketNeverTakesMore(t *testing.T) {
	for _, body := range []string{"", "\x00", "user\x00app\x00\x00", strings.Repeat("x", MaxStartup-4)} {
		in := packet(0, Version30, body)
		for _, tail := range []string{"", "p", "\x16\x03\x01"} {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r },
				"bytes": iotest.OneByteReader, // S45
				"halve": iotest.HalfReader,
				"eof":   iotest.DataErrReader,
			} {
				src := bytes.NewReader(append(bytes.Clone(in), tail...))
				r := &counted{Reader: src}
				code, got, err := ReadPacket(wrap(r))
				if name == "eof" { // that reader reads ahead by itself
					r.n = len(in)
				}
				if err != nil || code != Version30 || string(got) != body || r.n != len(in) {
					t.Errorf("%s, body of %d, tail %q: code %#x, %d bytes of body, %d read, %v", name, len(body), tail, code, len(got), r.n, err)
				}
			}
		}
	}
}

func TestReadPacketAllocatesNothingForAClaim(t *testing.T) {
	in := []byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}
	r := bytes.NewReader(in)
	if n := testing.AllocsPerRun(100, func() {
		r.Reset(in)
		_, _, _ = ReadPacket(r)
	}); n > 1 { // the eight bytes of the header
		t.Errorf("%v allocations for a refused length", n)
	}
}

func TestCancelKey(t *testing.T) {
	for _, tc := range []struct {
		n  int
		ok bool
	}{{0, false}, {4, false}, {7, false}, {8, true}, {36, true}, {4 + 256, true}, {4 + 257, false}} {
		body := append([]byte{0, 1, 2, 3}, bytes.Repeat([]byte{7}, max(0, tc.n-4))...)[:tc.n]
		pid, secret, ok := CancelKey(body)
		if ok != tc.ok {
			t.Errorf("body of %d: ok %v", tc.n, ok)
		}
		if ok && (pid != 0x010203 || len(secret) != tc.n-4) {
			t.Errorf("body of %d: pid %#x, secret of %d", tc.n, pid, len(secret))
		}
	}
}

// kv writes a startup body of names and values, with its terminator.
func kv(pairs ...string) string {
	return strings.Join(pairs, "\x00") + "\x00\x00"
}

func TestParseStartup(t *testing.T) {
	thousand := []string{"user", "app"}
	var many []Param
	for i := range 900 {
		thousand = append(thousand, fmt.Sprintf("p%03d", i), "v")
		many = append(many, Param{fmt.Sprintf("p%03d", i), "v"})
	}
	for _, tc := range []struct {
		id   string
		code uint32
		body string
		want Startup
	}{
		{"3.0", Version30, kv("user", "app"), Startup{Version: Version30, User: "app"}},
		{"3.1 speaks 3.0", 3<<16 | 1, kv("user", "app"), Startup{Version: Version30, Negotiate: true, User: "app"}},
		{"3.2", Version32, kv("user", "app"), Startup{Version: Version32, User: "app"}},
		{"S13 3.99", 3<<16 | 99, kv("user", "app"), Startup{Version: Version32, Negotiate: true, User: "app"}},
		{"3.9999", 3<<16 | 9999, kv("user", "app", "_pq_.test_protocol_negotiation", ""),
			Startup{Version: Version32, Negotiate: true, User: "app", Unrecognized: []string{"_pq_.test_protocol_negotiation"}}},
		{"S16 _pq_", Version30, kv("user", "app", "_pq_.foo", "1", "_pq_.", ""),
			Startup{Version: Version30, Negotiate: true, User: "app", Unrecognized: []string{"_pq_.foo", "_pq_."}}},
		{"database", Version30, kv("user", "app", "database", "db"), Startup{Version: Version30, User: "app", Database: "db"}},
		{"empty database is none", Version30, kv("database", "", "user", "app"), Startup{Version: Version30, User: "app"}},
		{"S23 not UTF-8", Version30, kv("user", "\xff\xfe"), Startup{Version: Version30, User: "\xff\xfe"}},
		{"S24 control bytes", Version30, kv("user", "a\n\x1b\x7f"), Startup{Version: Version30, User: "a\n\x1b\x7f"}},
		{"S25 900 parameters", Version30, kv(thousand...), Startup{Version: Version30, User: "app", Params: many}},
		{"S26 not truncated", Version30, kv("user", strings.Repeat("u", 300)), Startup{Version: Version30, User: strings.Repeat("u", 300)}},
		{"S27 replication=true", Version30, kv("user", "app", "replication", "true"), Startup{Version: Version30, User: "app", Replication: "true"}},
		{"S27 replication=database", Version30, kv("user", "app", "replication", "database"), Startup{Version: Version30, User: "app", Replication: "database"}},
		{"replication=off", Version30, kv("user", "app", "replication", "off"), Startup{Version: Version30, User: "app"}},
		{"S28 options", Version30, kv("user", "app", "options", "-c search_path=evil -c role=postgres --session-authorization=x"),
			Startup{Version: Version30, User: "app", Params: []Param{{"search_path", "evil"}, {"role", "postgres"}, {"session_authorization", "x"}}}},
		{"S29 unknown GUC", Version30, kv("user", "app", "no.such", "1"), Startup{Version: Version30, User: "app", Params: []Param{{"no.such", "1"}}}},
		{"options first, then parameters", Version30, kv("application_name", "a", "user", "app", "options", "reference=acme -c application_name=b"),
			Startup{Version: Version30, User: "app", References: []string{"acme"}, Params: []Param{{"application_name", "b"}, {"application_name", "a"}}}},
		{"a GUC named user in options", Version30, kv("user", "app", "options", "-c user=admin"),
			Startup{Version: Version30, User: "app", Params: []Param{{"user", "admin"}}}},
		{"names are exact", Version30, kv("User", "x", "user", "app", "users", "y", "_PQ_.a", ""),
			Startup{Version: Version30, User: "app", Params: []Param{{"User", "x"}, {"users", "y"}, {"_PQ_.a", ""}}}},
	} {
		t.Run(tc.id, func(t *testing.T) {
			got, err := ParseStartup(tc.code, []byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseStartupRefuses(t *testing.T) {
	const layout = "08P01"
	for _, tc := range []struct {
		id   string
		code uint32
		body string
		want string // SQLSTATE
	}{
		{"S12 2.0", 2 << 16, kv("user", "app"), "0A000"},
		{"0.0", 0, kv("user", "app"), "0A000"},
		{"S14 4.0", 4 << 16, kv("user", "app"), "0A000"},
		{"S15 1234.5681", 1234<<16 | 5681, "", "0A000"},
		{"S35 an SSLRequest where none may be", CodeSSL, "", "0A000"},
		{"S37 a second GSSENCRequest", CodeGSSENC, "", "0A000"},
		{"S17 no user", Version30, kv("database", "db"), "28000"},
		{"S17 nothing at all", Version30, "\x00", "28000"},
		{"S18 empty user", Version30, kv("user", ""), "28000"},
		{"S19 empty body", Version30, "", layout},
		{"S19 no terminator", Version30, "user\x00app\x00", layout},
		{"S19 value without its NUL", Version30, "user\x00app", layout},
		{"S20 bytes after the terminator", Version30, kv("user", "app") + "x", layout},
		{"S20 NUL after the terminator", Version30, kv("user", "app") + "\x00", layout},
		{"S20 a second list after the terminator", Version30, kv("user", "app") + kv("user", "admin"), layout},
		{"S21 key without value", Version30, "user\x00app\x00database\x00", layout},
		{"S21 key without NUL", Version30, "user\x00app\x00database", layout},
		{"S22 user twice", Version30, kv("user", "app", "user", "admin"), layout},
		{"S22 the same user twice", Version30, kv("user", "app", "user", "app"), layout},
		{"S22 database twice", Version30, kv("user", "app", "database", "a", "database", "b"), layout},
		{"S22 options twice", Version30, kv("user", "app", "options", "", "options", "-c a=b"), layout},
		{"S22 replication twice", Version30, kv("user", "app", "replication", "off", "replication", "true"), layout},
		{"S27 replication=bogus", Version30, kv("user", "app", "replication", "bogus"), "22023"},
		{"options without value", Version30, kv("user", "app", "options", "-c search_path"), "42601"},
		{"options with a switch", Version30, kv("user", "app", "options", "-d 5"), "0A000"},
	} {
		t.Run(tc.id, func(t *testing.T) {
			got, err := ParseStartup(tc.code, []byte(tc.body))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("accepted as %+v, %v", got, err)
			}
			if e.Code != tc.want || e.Severity != Fatal || e.Message == "" || got != nil {
				t.Errorf("%v, want %s", e, tc.want)
			}
		})
	}
}

// A startup message cut anywhere is never taken for another one.
func TestParseStartupCutAnywhere(t *testing.T) {
	body := kv("user", "app.acme", "database", "db", "application_name", "x", "options", "-c a=b")
	for i := range len(body) {
		if s, err := ParseStartup(Version30, []byte(body[:i])); err == nil {
			t.Errorf("cut at %d: accepted as %+v", i, s)
		}
	}
}

func TestReplication(t *testing.T) {
	for v, want := range map[string]string{
		"t": "true", "tr": "true", "TRUE": "true", "y": "true", "Yes": "true", "on": "true", "ON": "true", "1": "true",
		"f": "", "fal": "", "FALSE": "", "n": "", "no": "", "of": "", "off": "", "0": "",
		"database": "database",
	} {
		if got, err := parseReplication(v); err != nil || got != want {
			t.Errorf("%q: %q, %v", v, got, err)
		}
	}
	for _, v := range []string{"", "o", "O", "tru e", "truee", "Database", "data", "2", "10", "offf", "x", " true"} {
		if got, err := parseReplication(v); err == nil {
			t.Errorf("%q taken for %q", v, got)
		}
	}
}

func TestStartupBody(t *testing.T) {
	got, err := StartupBody([]Param{{"user", "a"}, {"x", ""}})
	if err != nil || string(got) != "user\x00a\x00x\x00\x00\x00" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := StartupBody(nil); err != nil || string(got) != "\x00" {
		t.Errorf("%q, %v", got, err)
	}
	for _, p := range []Param{{"", "x"}, {"a\x00b", ""}, {"application_name", "x\x00user\x00admin"}} {
		if _, err := StartupBody([]Param{{"user", "a"}, p}); err == nil {
			t.Errorf("%q accepted", p)
		}
	}
}
