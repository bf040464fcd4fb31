// Replies as lines, and what differs between them.

package transcripts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgproto3/v2"
)

func TestRender(t *testing.T) {
	for _, tc := range []struct {
		message pgproto3.BackendMessage
		want    string
	}{
		{&pgproto3.ReadyForQuery{TxStatus: 'T'}, "ReadyForQuery T"},
		{&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, `CommandComplete "SELECT 1"`},
		{&pgproto3.DataRow{Values: [][]byte{[]byte("a\x00"), nil, {}}}, `DataRow "a\x00" null ""`},
		{&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a"), TableOID: 16390, TableAttributeNumber: 2, DataTypeOID: 23, DataTypeSize: 4, TypeModifier: -1, Format: 1}}},
			"RowDescription a:table=user/2:type=23/4/-1:format=1"},
		{&pgproto3.ParameterDescription{ParameterOIDs: []uint32{25, 99999}}, "ParameterDescription [25 user]"},
		{&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42601", Message: "no", Position: 3, File: "scan.l", Line: 7, Routine: "yyerror"},
			`ErrorResponse S="ERROR" C="42601" M="no" P="3"`},
		{&pgproto3.NotificationResponse{PID: 4711, Channel: "c", Payload: "p"}, `NotificationResponse "c" "p"`},
		{&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}, `ParameterStatus TimeZone="UTC"`},
		{&pgproto3.CopyInResponse{ColumnFormatCodes: []uint16{0, 0}}, "CopyInResponse 0 [0 0]"},
	} {
		b, err := tc.message.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := render(b[0], b[5:]); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
	long := make([]byte, 1000)
	one := render('d', long)
	long[500] = 1
	if one == render('d', long) {
		t.Error("long values that differ look the same")
	}
}

func TestDiff(t *testing.T) {
	turns := func(heard ...[]string) (tr Transcript) {
		for _, h := range heard {
			tr = append(tr, Turn{Session: 'A', Heard: h})
		}
		return tr
	}
	a, b, c := []string{"1", "2", "3"}, []string{"1", "3", "4"}, []string{"x"}
	for _, tc := range []struct {
		want, got Transcript
		diff      []string
	}{
		{turns(a, c), turns(a, c), nil},
		{turns(a, c), turns(b, c), []string{"@ turn 1", "- 2", "+ 4"}},
		{turns(a, c), turns(a), []string{"@ turn 2", "- x"}},
		{turns(a), turns(a, c), []string{"@ turn 2", "+ x"}},
		{turns(nil, a), turns(c, nil), []string{"@ turn 1", "+ x", "@ turn 2", "- 1", "- 2", "- 3"}},
	} {
		if diff := cmp.Diff(tc.diff, Diff(tc.want, tc.got)); diff != "" {
			t.Error(diff)
		}
	}
}

// TestJudge holds the rules for transcripts that differ.
func TestJudge(t *testing.T) {
	heard := func(lines ...string) Transcript { return Transcript{{Session: 'A', Heard: lines}} }
	for name, tc := range map[string]struct {
		mode        string
		truth, got  Transcript
		accepted    *Accepted
		wantProblem bool
	}{
		"equal":                           {transaction, heard("1"), heard("1"), nil, false},
		"different":                       {transaction, heard("1"), heard("2"), nil, true},
		"accepted":                        {transaction, heard("1"), heard("2"), &Accepted{"meant", []string{"@ turn 1", "- 1", "+ 2"}}, false},
		"otherwise than accepted":         {transaction, heard("1"), heard("3"), &Accepted{"meant", []string{"@ turn 1", "- 1", "+ 2"}}, true},
		"no more":                         {transaction, heard("1"), heard("1"), &Accepted{"meant", []string{"@ turn 1", "- 1", "+ 2"}}, true},
		"a block refused":                 {statement, heard(ready + "T"), heard(`ErrorResponse S="ERROR" C="0A000" M="no"`, ready+"I"), nil, false},
		"a block that is not refused":     {statement, heard(ready + "T"), heard(ready + "T"), nil, true},
		"a block refused where it may be": {transaction, heard(ready + "T"), heard(`ErrorResponse S="ERROR" C="0A000" M="no"`, ready+"I"), nil, true},
	} {
		if problem := judge(tc.mode, "theme/name", tc.truth, tc.got, tc.accepted); (problem != "") != tc.wantProblem {
			t.Errorf("%s: %q", name, problem)
		}
	}
}

func TestReadAccepted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, session, name+".txt")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/good", "# Because\n# it is.\n\n@ turn 1\n- 1\n")
	write("a/none", "@ turn 1\n- 1\n")
	if got, err := ReadAccepted(dir, session, "a/good"); err != nil || cmp.Diff(&Accepted{"Because it is. ", []string{"@ turn 1", "- 1"}}, got) != "" {
		t.Error(got, err)
	}
	if got, err := ReadAccepted(dir, session, "a/none"); err == nil {
		t.Error("without a reason:", got)
	}
	if got, err := ReadAccepted(dir, session, "a/other"); got != nil || err != nil {
		t.Error(got, err)
	}
}
