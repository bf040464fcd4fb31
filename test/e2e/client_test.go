// Clients: pgx, hand-written messages, and the PROXY headers before them.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// dsn is how app reaches the gate. options are more key=value pairs.
func (g *gate) dsn(listener string, options ...string) string {
	return strings.Join(append([]string{"host=127.0.0.1", "port=" + g.port(listener), "user=app.acme", "password=pw-app", "sslmode=disable",
		"connect_timeout=60"}, options...), " ")
}

// configOf is pgx's configuration, as it comes: with named statements in every mode.
func configOf(t *testing.T, dsn string) *pgx.ConnConfig {
	t.Helper()
	conf, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// connect logs in with pgx, which is closed at the end of the test.
func (g *gate) connect(t *testing.T, listener string, options ...string) *pgx.Conn {
	t.Helper()
	return connectConfig(t, configOf(t, g.dsn(listener, options...)))
}

func connectConfig(t *testing.T, conf *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

// closeConn says goodbye; where nobody answers any more it does not wait long.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// value runs a query of one value and returns its text. It uses the simple protocol, which every pool mode knows.
func value(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	v, err := tryValue(t.Context(), conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func tryValue(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 || len(last.Rows[0]) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

// do runs statements in the simple protocol.
func do(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	value(t, conn, sql)
}

// sqlstate is the SQLSTATE in an error, or what else it is.
func sqlstate(err error) string {
	var e *pgconn.PgError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

// wantState fails unless err has the SQLSTATE.
func wantState(t *testing.T, err error, code string) {
	t.Helper()
	if got := sqlstate(err); got != code {
		t.Fatalf("got %s (%v), want %s", got, err, code)
	}
}

// script is a connection on which a test writes its own messages.
type script struct {
	t    *testing.T
	conn net.Conn
	*pgproto3.Frontend
	params map[string]string // ParameterStatus at login
	pid    uint32
	secret []byte
}

// script logs in and hands the connection to the test.
func (g *gate) script(t *testing.T, listener string, options ...string) *script {
	t.Helper()
	return scriptAs(t, g.dsn(listener, options...))
}

// scriptAs is script with a connection string of one's own.
func scriptAs(t *testing.T, dsn string) *script {
	t.Helper()
	s, err := hijack(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	s.t = t
	t.Cleanup(func() { s.conn.Close() })
	return s
}

func hijack(ctx context.Context, dsn string) (*script, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	h, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	return &script{conn: h.Conn, Frontend: h.Frontend, params: h.ParameterStatuses, pid: h.PID, secret: h.SecretKey}, nil
}

// say sends messages in one write.
func (s *script) say(messages ...pgproto3.FrontendMessage) {
	s.t.Helper()
	for _, m := range messages {
		s.Send(m)
	}
	if err := s.Flush(); err != nil {
		s.t.Fatalf("say: %v", err)
	}
}

// hear reads up to and with the nth ReadyForQuery and tells what came, in short: type letters as in the protocol, with the
// values of rows, the tags of commands, the codes of errors ("!" if FATAL), and the status. "EOF" ends what the gate has closed.
// The notice of a long wait is left out: on a slow computer any wait may be long.
func (s *script) hear(n int) string {
	s.t.Helper()
	got, err := s.tryHear(n)
	if err != nil {
		s.t.Fatalf("after %s: %v", got, err)
	}
	return got
}

// next reads one message.
func (s *script) next() string {
	s.t.Helper()
	word, err := s.tryNext()
	if err != nil {
		s.t.Fatal(err)
	}
	return word
}

// want says messages and compares all that is heard up to n times ReadyForQuery.
func (s *script) want(answer string, n int, messages ...pgproto3.FrontendMessage) {
	s.t.Helper()
	got, err := s.try(n, messages...)
	if err != nil || got != answer {
		s.t.Fatalf("got  %s (%v)\nwant %s", got, err, answer)
	}
}

// try is say and hear for goroutines that are not the test's.
func (s *script) try(n int, messages ...pgproto3.FrontendMessage) (string, error) {
	for _, m := range messages {
		s.Send(m)
	}
	if err := s.Flush(); err != nil {
		return "", err
	}
	return s.tryHear(n)
}

func (s *script) tryHear(n int) (string, error) {
	var out []string
	for n > 0 {
		word, err := s.tryNext()
		if err != nil {
			return strings.Join(out, " "), err
		}
		if word == longWait {
			continue
		}
		out = append(out, word)
		if word == "EOF" {
			break
		}
		if strings.HasPrefix(word, "Z:") {
			n--
		}
	}
	return strings.Join(out, " "), nil
}

// longWait is the notice after five seconds without a server or a machine.
const longWait = "N:00000"

func (s *script) tryNext() (string, error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(harness.Patience))
	m, err := s.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return "EOF", nil
		}
		return "", err
	}
	return word(m), nil
}

// word is a message in short.
func word(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.DataRow:
		var values []string
		for _, v := range m.Values {
			values = append(values, clip(string(v)))
		}
		return "D:" + strings.Join(values, ",")
	case *pgproto3.CommandComplete:
		return "C:" + strings.ReplaceAll(string(m.CommandTag), " ", "_")
	case *pgproto3.ErrorResponse:
		return "E:" + m.Code + ifFatal(m.Severity)
	case *pgproto3.NoticeResponse:
		return "N:" + m.Code
	case *pgproto3.ReadyForQuery:
		return "Z:" + string(m.TxStatus)
	case *pgproto3.ParameterStatus:
		return "S:" + m.Name + "=" + m.Value
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyData:
		return "d:" + clip(string(m.Data))
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.FunctionCallResponse:
		return "V:" + string(m.Result)
	case *pgproto3.NotificationResponse:
		return "A:" + m.Channel + "=" + m.Payload
	}
	return fmt.Sprintf("%T", m)
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "+" + strconv.Itoa(len(s)-40)
	}
	return strings.TrimSuffix(s, "\n")
}

func ifFatal(severity string) string {
	if severity == "FATAL" {
		return "!"
	}
	return ""
}

// Short names for what scripts say most.

func query(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }
func parse(name, sql string) pgproto3.FrontendMessage {
	return &pgproto3.Parse{Name: name, Query: sql}
}
func bind(statement string, values ...string) pgproto3.FrontendMessage {
	b := &pgproto3.Bind{PreparedStatement: statement}
	for _, v := range values {
		b.Parameters = append(b.Parameters, []byte(v))
	}
	return b
}
func execute() pgproto3.FrontendMessage { return &pgproto3.Execute{} }
func syncUp() pgproto3.FrontendMessage  { return &pgproto3.Sync{} }

// header is a PROXY header of the version (1 or 2) that names a client.
func header(version byte, client string) []byte {
	src := netip.AddrPortFrom(netip.MustParseAddr(client), 40000)
	dst := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 5432)
	if src.Addr().Is6() {
		dst = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::5"), 5432)
	}
	if version == 1 {
		return harness.V1(src, dst)
	}
	return harness.V2(src, dst)
}

func asPG(err error, target **pgconn.PgError) bool { return errors.As(err, target) }

// scriptDirect is a script with the server itself, without the gate.
func (g *gate) scriptDirect(t *testing.T) *script {
	t.Helper()
	h, err := g.direct(t).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	return &script{t: t, conn: h.Conn, Frontend: h.Frontend, params: h.ParameterStatuses, pid: h.PID, secret: h.SecretKey}
}

// connectBriefly logs in without a test that fails.
func connectBriefly(g *gate, listener string, options ...string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	return pgconn.Connect(ctx, g.dsn(listener, options...))
}
