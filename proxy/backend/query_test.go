// Tests of queries of our own: rows come as they are, and hostile answers end within bounds.

package backend

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/proxy/pgwire"
)

const testLimit = 1 << 20

// answering logs a client in and answers its query with bytes.
func answering(b []byte) script {
	return func(c net.Conn) {
		afterProof(greeting())(c)
		readMessage(c)
		_, _ = c.Write(b)
	}
}

func encoded(all ...pgproto3.BackendMessage) (b []byte) {
	for _, m := range all {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err)
		}
	}
	return b
}

func dataRow(values ...[]byte) *pgproto3.DataRow { return &pgproto3.DataRow{Values: values} }

// ask runs a query and returns its rows, copied.
func ask(ctx context.Context, t *testing.T, s script, refuse error) (rows [][][]byte, err error) {
	t.Helper()
	c, err := Dial(within(t, patience), serve(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Query(ctx, "select", testLimit, func(row [][]byte) error {
		var kept [][]byte
		for _, v := range row {
			kept = append(kept, slices.Clone(v))
		}
		rows = append(rows, kept)
		return refuse
	})
	return rows, err
}

func TestQuery(t *testing.T) {
	rows, err := ask(t.Context(), t, answering(append(append(encoded(&pgproto3.RowDescription{}, dataRow([]byte("a"), nil, []byte{}), dataRow([]byte("b"))),
		(&pgwire.Error{Severity: pgwire.Notice, Message: "hello"}).Append(nil)...), encoded(&pgproto3.CommandComplete{}, &pgproto3.ReadyForQuery{TxStatus: 'I'})...)), nil)
	if err != nil || len(rows) != 2 || len(rows[0]) != 3 || string(rows[0][0]) != "a" || rows[0][1] != nil || rows[0][2] == nil || string(rows[1][0]) != "b" {
		t.Errorf("%q, %v", rows, err)
	}
}

func TestQuerySurvivesHostileServers(t *testing.T) {
	giant := dataRow(bytes.Repeat([]byte("x"), maxMessage))
	no := errors.New("no such row")
	refused := func(t *testing.T, err error) {
		t.Helper()
		var e *ServerError
		if !errors.As(err, &e) || e.Response.Code != "42883" || !e.Query || !Answered(err) || !strings.Contains(err.Error(), "refused the query") {
			t.Errorf("err = %v", err)
		}
	}
	for _, c := range []struct {
		name   string
		answer []byte
		refuse error
		wants  wants
	}{
		{"an error", (&pgwire.Error{Severity: "ERROR", Code: "42883", Message: "no such function"}).Append(nil), nil, refused},
		{"endless rows", bytes.Repeat(encoded(dataRow([]byte("x"))), 2*testLimit/16), nil, isViolation("more than 1048576 bytes")},
		{"endless notices", bytes.Repeat((&pgwire.Error{Severity: pgwire.Notice, Message: "hello"}).Append(nil), 100_000), nil, isViolation("more than 1048576 bytes")},
		{"a giant value", encoded(giant), nil, isViolation("claims")},
		{"a length of 1 GB", []byte("D\x40\x00\x00\x00"), nil, isViolation("claims 1073741824 bytes")},
		{"a row that is cut", message('D', "\x00\x02\x00\x00\x00\x01a"), nil, isViolation("malformed DataRow")},
		{"a row of 65535 columns", message('D', "\xff\xff"), nil, isViolation("malformed DataRow")},
		{"a copy", encoded(&pgproto3.CopyOutResponse{}), nil, isViolation("type 0x48")},
		{"authentication", pgwire.AppendAuthenticationOk(nil), nil, isViolation("type 0x52")},
		{"a row that is refused", encoded(dataRow([]byte("x"))), no, is(no)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ask(within(t, patience), t, answering(c.answer), c.refuse)
			if err == nil {
				t.Fatal("it is taken")
			}
			c.wants(t, err)
			if Retryable(err) {
				t.Errorf("may succeed later: %v", err)
			}
		})
	}
	for name, s := range map[string]script{
		"says nothing":         answering(nil),
		"stops within a row":   answering([]byte("D\x00\x00\x00\xff")),
		"does not end":         answering(encoded(dataRow([]byte("x")))),
		"one row, then nobody": func(c net.Conn) { answering(encoded(dataRow([]byte("x"))))(c); hangUp(c) },
	} {
		_, err := ask(within(t, 100*time.Millisecond), t, s, nil)
		if err == nil || !Retryable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
