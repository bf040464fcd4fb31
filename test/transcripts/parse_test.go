// Tests of the parser of scripts.

package transcripts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgproto3/v2"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Step
	}{
		{`Query "select 1"`, Step{'A', Say{&pgproto3.Query{String: "select 1"}}}},
		{"  B Query `raw \\n` # comment", Step{'B', Say{&pgproto3.Query{String: `raw \n`}}}},
		{`Query "ab"*3`, Step{'A', Say{&pgproto3.Query{String: "ababab"}}}},
		{`Query "# no comment"`, Step{'A', Say{&pgproto3.Query{String: "# no comment"}}}},
		{`Parse "s" "select $1"`, Step{'A', Say{&pgproto3.Parse{Name: "s", Query: "select $1"}}}},
		{`Parse "" "select $1, $2" [23, 25]`, Step{'A', Say{&pgproto3.Parse{Query: "select $1, $2", ParameterOIDs: []uint32{23, 25}}}}},
		{`Bind "p" "s" ["1" null ""] [0 1] [1]`, Step{'A', Say{&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s",
			Parameters: [][]byte{[]byte("1"), nil, {}}, ParameterFormatCodes: []int16{0, 1}, ResultFormatCodes: []int16{1}}}}},
		{`Bind "" "" [] [] [1]`, Step{'A', Say{&pgproto3.Bind{ResultFormatCodes: []int16{1}}}}},
		{`Describe S "s"`, Step{'A', Say{&pgproto3.Describe{ObjectType: 'S', Name: "s"}}}},
		{`Close P ""`, Step{'A', Say{&pgproto3.Close{ObjectType: 'P'}}}},
		{`Execute "p" 7`, Step{'A', Say{&pgproto3.Execute{Portal: "p", MaxRows: 7}}}},
		{`Sync`, Step{'A', Say{&pgproto3.Sync{}}}},
		{`C Flush`, Step{'C', Say{&pgproto3.Flush{}}}},
		{`CopyData "1\n"`, Step{'A', Say{&pgproto3.CopyData{Data: []byte("1\n")}}}},
		{`CopyFail "why"`, Step{'A', Say{&pgproto3.CopyFail{Message: "why"}}}},
		{`FunctionCall 1397 ["-5"] [0] 0`, Step{'A', Say{&pgproto3.FunctionCall{Function: 1397, Arguments: [][]byte{[]byte("-5")}, ArgFormatCodes: []uint16{0}}}}},
		{`Raw "~" "x\x00"`, Step{'A', Raw{'~', "x\x00"}}},
		{`Bytes "Q\x00"`, Step{'A', Bytes("Q\x00")}},
		{`Meanwhile "drop table t"`, Step{'A', Meanwhile("drop table t")}},
		{`wait`, Step{'A', Wait(0)}},
		{`D wait 3`, Step{'D', Wait(3)}},
		{`Connect a="1" b.c="2"`, Step{'A', Connect{{"a", "1"}, {"b.c", "2"}}}},
		{`Connect`, Step{'A', Connect(nil)}},
	} {
		got, err := Parse("\n# a comment\n" + tc.text + "\n")
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
		} else if diff := cmp.Diff([]Step{tc.want}, got); diff != "" {
			t.Errorf("%s: %s", tc.text, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"Query":                     "missing",
		"Query 1":                   "a string",
		`Query "a" "b"`:             "too much",
		`Query "a`:                  "does not end",
		`Query "a"*`:                "repeated",
		`Query "a"*999999999`:       "repeated",
		"Nonsense":                  "a message",
		"E Sync":                    "no session E",
		"A":                         "missing",
		"wait x":                    "a number",
		`Parse "" "" [x]`:           "a number",
		`Parse "" "" [1`:            "missing",
		`Bind "" "" "1"`:            "a list",
		"Describe statement \"s\"":  "S or P",
		`Execute "" -1`:             "a number",
		`Raw "QQ" ""`:               "one byte",
		"Connect a":                 "name=",
		"Connect a=":                "missing",
		"Sync now":                  "too much",
		`Bind "" "" [] [] [99999]`:  "a number",
		"FunctionCall 1 [] []":      "missing",
		"\"Query\" \"select 1\" []": "too much",
	} {
		if steps, err := Parse("Sync\n" + text); err == nil {
			t.Errorf("%s: no error, %v", text, steps)
		} else if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "line 2: ") {
			t.Errorf("%s: %v, want %q in line 2", text, err, want)
		}
	}
}

// What is written is read as the same, so that a random script can be saved.
func TestWrittenScriptsAreRead(t *testing.T) {
	like := taste{names: []string{"", "s \"\n"}, portals: []string{"", "p#"}, texts: append(plain, "a\x00\xff\"`"), sessions: "ABCD", copies: true, broken: true}
	rapid.Check(t, func(t *rapid.T) {
		s := like.script(t)
		steps, err := s.Steps("_00001")
		if err != nil {
			t.Fatal(err)
		}
		if again := Write(steps); again != strings.ReplaceAll(s.Text, unique, "_00001") {
			t.Fatalf("read and written again:\n%s\nbefore:\n%s", again, s.Text)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range families() {
		f.Add(s.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := Parse(text)
		if err != nil || len(text) > 1<<16 {
			return
		}
		again, err := Parse(Write(steps))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(steps, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
