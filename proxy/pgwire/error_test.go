// Error responses: hostile bodies are read without harm, ours are complete.

package pgwire

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseError(t *testing.T) {
	for _, tc := range []struct {
		id, body string
		want     Error
	}{
		{"as Postgres sends it", "SFATAL\x00VFATAL\x00C57P01\x00Mbye\x00Dd\x00Hh\x00Fpostgres.c\x00L1\x00Rx\x00\x00", Error{Severity: Fatal, Code: "57P01", Message: "bye", Detail: "d", Hint: "h"}},
		{"F03 F26 without SQLSTATE", "SERROR\x00Mboom\x00\x00", Error{Severity: "ERROR", Message: "boom"}},
		{"F27 empty body", "", Error{}},
		{"terminator only", "\x00", Error{}},
		{"localized severity", "SFATAAL\x00VFATAL\x00\x00", Error{Severity: "FATAL"}},
		{"localized severity, after", "VFATAL\x00SFATAAL\x00\x00", Error{Severity: "FATAL"}},
		{"before 9.6", "SFATAL\x00\x00", Error{Severity: "FATAL"}},
		{"no terminator", "SERROR\x00Mboom\x00", Error{Severity: "ERROR", Message: "boom"}},
		{"last field cut off", "SERROR\x00Mboo", Error{Severity: "ERROR"}},
		{"a code alone", "S", Error{}},
		{"bytes after the terminator", "SERROR\x00\x00Mevil\x00", Error{Severity: "ERROR"}},
		{"empty fields", "S\x00V\x00C\x00M\x00\x00", Error{}},
		{"unknown fields", "\xffx\x00Mm\x00\x00", Error{Message: "m"}},
		{"a field twice", "Ma\x00Mb\x00\x00", Error{Message: "b"}},
	} {
		if d := cmp.Diff(&tc.want, ParseError([]byte(tc.body))); d != "" {
			t.Errorf("%s: %s", tc.id, d)
		}
	}
}

func TestIsFatal(t *testing.T) {
	for s, want := range map[string]bool{"FATAL": true, "PANIC": true, "ERROR": false, "NOTICE": false, "": false, "fatal": false} {
		if got := (&Error{Severity: s}).IsFatal(); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestErrorString(t *testing.T) {
	e := &Error{Severity: Fatal, Code: "28000", Message: "no", Detail: "secret detail", Hint: "hint"}
	if got := e.Error(); got != "FATAL 28000: no" {
		t.Errorf("%q", got)
	}
}

func TestAppendV2(t *testing.T) {
	got := (&Error{Severity: Fatal, Message: "unsupported"}).AppendV2(nil)
	if string(got) != "EFATAL:  unsupported\n\x00" {
		t.Errorf("%q", got)
	}
}

// Whatever the texts hold, the message is one frame and its fields are read
// back, less the NULs.
func TestErrorRoundTrip(t *testing.T) {
	text := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte("aM\x00CZ\n\xff")), 0, 12), func(b []byte) string { return string(b) })
	rapid.Check(t, func(t *rapid.T) {
		e := Error{
			Severity: rapid.SampledFrom([]string{Fatal, Err, Notice}).Draw(t, "severity"),
			Code:     text.Draw(t, "code"), Message: text.Draw(t, "message"), Detail: text.Draw(t, "detail"), Hint: text.Draw(t, "hint"),
		}
		b := e.Append([]byte("prefix"))[len("prefix"):]
		size, status := ServerFrame(b)
		if status != FrameOK || size != len(b) {
			t.Fatalf("%q is not one frame", b)
		}
		if (b[0] == NoticeResponse) != (e.Severity == Notice) {
			t.Fatalf("type %q for %s", b[0], e.Severity)
		}
		clean := func(s string) string { return strings.ReplaceAll(s, "\x00", "") }
		want := &Error{Severity: e.Severity, Code: clean(e.Code), Message: clean(e.Message), Detail: clean(e.Detail), Hint: clean(e.Hint)}
		if d := cmp.Diff(want, ParseError(b[HeaderSize:])); d != "" {
			t.Fatal(d)
		}
	})
}
