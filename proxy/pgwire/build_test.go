// Every message that is built here decodes with pgx's decoder as what was meant.

package pgwire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgproto3"
)

func decodeServer(t *testing.T, b []byte) pgproto3.BackendMessage {
	t.Helper()
	f := pgproto3.NewFrontend(bytes.NewReader(b), nil)
	m, err := f.Receive()
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if n := f.ReadBufferLen(); n != 0 {
		t.Fatalf("%q: %d bytes left over", b, n)
	}
	return m
}

func decodeClient(t *testing.T, b []byte) pgproto3.FrontendMessage {
	t.Helper()
	r := bytes.NewReader(b)
	m, err := pgproto3.NewBackend(r, nil).Receive()
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if size, status := ClientFrame(b); status != FrameOK || size != len(b) {
		t.Fatalf("%q is not one frame", b)
	}
	return m
}

func TestServerMessages(t *testing.T) {
	key := bytes.Repeat([]byte{0xab}, 32)
	for _, tc := range []struct {
		b    []byte
		want pgproto3.BackendMessage
	}{
		{AppendReady(nil, 'I'), &pgproto3.ReadyForQuery{TxStatus: 'I'}},
		{AppendReady(nil, 'E'), &pgproto3.ReadyForQuery{TxStatus: 'E'}},
		{AppendAuthenticationOk(nil), &pgproto3.AuthenticationOk{}},
		{AppendSASL(nil, []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}), &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}}},
		{AppendSASLContinue(nil, []byte("r=x,s=y,i=4096")), &pgproto3.AuthenticationSASLContinue{Data: []byte("r=x,s=y,i=4096")}},
		{AppendSASLFinal(nil, []byte("v=z")), &pgproto3.AuthenticationSASLFinal{Data: []byte("v=z")}},
		{AppendParameterStatus(nil, Param{"TimeZone", "UTC"}), &pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}},
		{AppendParameterStatus(nil, Param{"application_name", ""}), &pgproto3.ParameterStatus{Name: "application_name"}},
		{AppendBackendKeyData(nil, 0x7fffffff, key[:4]), &pgproto3.BackendKeyData{ProcessID: 0x7fffffff, SecretKey: key[:4]}},
		{AppendBackendKeyData(nil, 1, key), &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: key}},
		{AppendNegotiate(nil, Version32, nil), &pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: Version32}},
		{AppendNegotiate(nil, Version30, []string{"_pq_.a", "_pq_.b"}), &pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: Version30, UnrecognizedOptions: []string{"_pq_.a", "_pq_.b"}}},
		{(&Error{Fatal, "28000", "m", "d", "h", "f", "r"}).Append(nil), &pgproto3.ErrorResponse{Severity: Fatal, SeverityUnlocalized: Fatal, Code: "28000", Message: "m", Detail: "d", Hint: "h", File: "f", Routine: "r"}},
		{(&Error{Severity: Err, Code: "0A000", Message: "m"}).Append(nil), &pgproto3.ErrorResponse{Severity: Err, SeverityUnlocalized: Err, Code: "0A000", Message: "m"}},
		{(&Error{Severity: Notice, Code: "00000", Message: "m"}).Append(nil), &pgproto3.NoticeResponse{Severity: Notice, SeverityUnlocalized: Notice, Code: "00000", Message: "m"}},
	} {
		if d := cmp.Diff(tc.want, decodeServer(t, tc.b), cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(pgproto3.ErrorResponse{}, pgproto3.NoticeResponse{})); d != "" {
			t.Errorf("%q: %s", tc.b, d)
		}
	}
}

func TestClientMessages(t *testing.T) {
	for _, tc := range []struct {
		b    []byte
		want pgproto3.FrontendMessage
	}{
		{AppendQuery(nil, "select 1"), &pgproto3.Query{String: "select 1"}},
		{AppendQuery(nil, ""), &pgproto3.Query{}},
		{AppendSync(nil), &pgproto3.Sync{}},
		{AppendTerminate(nil), &pgproto3.Terminate{}},
		{AppendCopyFail(nil, "client left"), &pgproto3.CopyFail{Message: "client left"}},
		{AppendRefusal(nil), &pgproto3.Describe{ObjectType: '!'}},
		{AppendParse(nil, "s", "select $1"), &pgproto3.Parse{Name: "s", Query: "select $1"}},
		{AppendBind(nil, "p", "s"), &pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}},
		{AppendBind(nil, "", "", []byte("a"), nil, []byte{}), &pgproto3.Bind{Parameters: [][]byte{[]byte("a"), nil, {}}}},
		{AppendExecute(nil, "p"), &pgproto3.Execute{Portal: "p"}},
	} {
		got := decodeClient(t, tc.b)
		if d := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%q: %s", tc.b, d)
		}
		if b, ok := got.(*pgproto3.Bind); ok && len(b.Parameters) == 3 && (b.Parameters[1] != nil || b.Parameters[2] == nil) {
			t.Errorf("NULL and empty confused: %q", tc.b)
		}
	}
}

// Everything is appended: what was there stays, and nothing of it is counted.
func TestBuildersAppend(t *testing.T) {
	for name, f := range map[string]func([]byte) []byte{
		"ready":     func(b []byte) []byte { return AppendReady(b, 'I') },
		"ok":        AppendAuthenticationOk,
		"sasl":      func(b []byte) []byte { return AppendSASL(b, []string{"a"}) },
		"continue":  func(b []byte) []byte { return AppendSASLContinue(b, []byte("a")) },
		"parameter": func(b []byte) []byte { return AppendParameterStatus(b, Param{"a", "b"}) },
		"key":       func(b []byte) []byte { return AppendBackendKeyData(b, 1, []byte("abcd")) },
		"negotiate": func(b []byte) []byte { return AppendNegotiate(b, Version32, []string{"a"}) },
		"query":     func(b []byte) []byte { return AppendQuery(b, "x") },
		"sync":      AppendSync,
		"copyfail":  func(b []byte) []byte { return AppendCopyFail(b, "x") },
		"refusal":   AppendRefusal,
		"parse":     func(b []byte) []byte { return AppendParse(b, "", "x") },
		"bind":      func(b []byte) []byte { return AppendBind(b, "", "", nil) },
		"execute":   func(b []byte) []byte { return AppendExecute(b, "") },
		"error":     (&Error{Severity: Err, Message: "m"}).Append,
	} {
		alone, behind := f(nil), f([]byte("before"))
		if string(behind) != "before"+string(alone) {
			t.Errorf("%s: %q, alone %q", name, behind, alone)
		}
	}
}

func TestParseParameterStatus(t *testing.T) {
	p, ok := ParseParameterStatus([]byte("TimeZone\x00UTC\x00"))
	if !ok || p != (Param{"TimeZone", "UTC"}) {
		t.Errorf("%v %v", p, ok)
	}
	for _, bad := range []string{"", "a", "a\x00", "a\x00b", "a\x00b\x00c", "a\x00b\x00\x00", "\x00"} {
		if p, ok := ParseParameterStatus([]byte(bad)); ok {
			t.Errorf("%q taken for %v", bad, p)
		}
	}
}
