// The options string: splitting, escapes, every form of a setting.

package pgwire

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSplitOptions(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{" \t\n\v\f\r", nil},
		{"a", []string{"a"}},
		{"  a  b\tc\nd ", []string{"a", "b", "c", "d"}},
		{`a\ b c`, []string{"a b", "c"}},
		{`a\\b`, []string{`a\b`}},
		{`a\\ b`, []string{`a\`, "b"}},
		{`a\\\ b`, []string{`a\ b`}},
		{`\a`, []string{"a"}},
		{`\ `, []string{" "}},
		{`\ \ `, []string{"  "}},
		{`a\`, []string{"a"}},      // a last backslash takes nothing
		{`\`, []string{""}},        // and still makes a word
		{`a \`, []string{"a", ""}}, // as Postgres does
		{`"a b"`, []string{`"a`, `b"`}},
		{`'a b'`, []string{`'a`, `b'`}},
		{"a\u00a0b", []string{"a\u00a0b"}}, // only ASCII white space
		{"\xff \xfe", []string{"\xff", "\xfe"}},
	} {
		if d := cmp.Diff(tc.want, SplitOptions(tc.in)); d != "" {
			t.Errorf("%q: %s", tc.in, d)
		}
	}
}

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct {
		in     string
		refs   []string
		params []Param
	}{
		{"", nil, nil},
		{"-c a=b", nil, []Param{{"a", "b"}}},
		{"-ca=b", nil, []Param{{"a", "b"}}},
		{"--a=b", nil, []Param{{"a", "b"}}},
		{"--log-min-duration=0", nil, []Param{{"log_min_duration", "0"}}},
		{"-c log-x=a-b", nil, []Param{{"log_x", "a-b"}}},
		{"-c a=", nil, []Param{{"a", ""}}},
		{"-c a==b=c", nil, []Param{{"a", "=b=c"}}},
		{`-c search_path=a,\ b\\c`, nil, []Param{{"search_path", `a, b\c`}}},
		{"-c  \t a=b", nil, []Param{{"a", "b"}}},
		{"-c -c=x", nil, []Param{{"_c", "x"}}}, // the word after -c is its value, whatever it looks like
		{"-c A.b=1 -c a=2 -c a=3", nil, []Param{{"A.b", "1"}, {"a", "2"}, {"a", "3"}}},
		{"reference=acme", []string{"acme"}, nil},
		{"project=acme", []string{"acme"}, nil},
		{"-c reference=acme", []string{"acme"}, nil},
		{"-creference=acme", []string{"acme"}, nil},
		{"--reference=acme", []string{"acme"}, nil},
		{"--project=acme", []string{"acme"}, nil},
		{"reference=", []string{""}, nil},
		{"reference=a project=b -c a=1", []string{"a", "b"}, []Param{{"a", "1"}}},
		{"-c references=x", nil, []Param{{"references", "x"}}},
	} {
		refs, params, err := ParseOptions(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
		}
		if d := cmp.Diff(tc.refs, refs) + cmp.Diff(tc.params, params); d != "" {
			t.Errorf("%q: %s", tc.in, d)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for in, code := range map[string]string{
		"-c":                    "42601",
		"-c a=b -c":             "42601",
		"-c a":                  "42601",
		"--a":                   "42601",
		"--":                    "42601",
		"-c =b":                 "42601",
		"--=b":                  "42601",
		"-ca":                   "42601",
		"-c reference":          "42601",
		"-d 3":                  "0A000",
		"-B 1000":               "0A000",
		"-":                     "0A000",
		"a=b":                   "0A000",
		"Reference=acme":        "0A000",
		"reference":             "0A000",
		`\`:                     "0A000",
		"-C a=b":                "0A000",
		"-c a=b; drop":          "0A000",
		"-c search_path=a, b":   "0A000", // the blank ends the setting
		"reference=acme stray":  "0A000",
		"-e -fs -tparser -W100": "0A000",
	} {
		refs, params, err := ParseOptions(in)
		var e *Error
		if !errors.As(err, &e) || e.Code != code || e.Severity != Fatal {
			t.Errorf("%q: %v, want %s", in, err, code)
		}
		if refs != nil || params != nil {
			t.Errorf("%q: refused, yet %v %v", in, refs, params)
		}
	}
}

// escape writes a word so that SplitOptions gives it back.
func escape(word string) string {
	var b strings.Builder
	for i := range len(word) {
		if isSpace(word[i]) || word[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(word[i])
	}
	return b.String()
}

// What is escaped as the manual says comes back unchanged.
func TestOptionsRoundTrip(t *testing.T) {
	word := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte("ab=\\ \t\n-\"'\xffü;")), 1, 8), func(b []byte) string { return string(b) })
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(word).Draw(t, "words")
		var escaped []string
		for _, w := range words {
			escaped = append(escaped, escape(w))
		}
		got := SplitOptions(strings.Join(escaped, rapid.SampledFrom([]string{" ", "\n", " \t "}).Draw(t, "blank")))
		if len(got) != len(words) {
			t.Fatalf("%q from %q", got, words)
		}
		for i := range got {
			if got[i] != words[i] {
				t.Fatalf("%q from %q", got, words)
			}
		}
	})
}
