// Every message that Postern builds, decoded by two implementations that are not ours and not each other's.

package test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v2 "github.com/jackc/pgproto3/v2"
	v5 "github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"

	"github.com/postern/postern/proxy/pgwire"
)

// built is one message. v5Only marks those of protocol 3.2, which pgproto3/v2
// does not know.
type built struct {
	builder string // the function that built it
	bytes   []byte
	client  bool
	v5Only  bool
}

// messages builds each message once with the texts that it is given.
func messages(text func() string, data func() []byte) []built {
	status := func(b byte) built { return built{builder: "AppendReady", bytes: pgwire.AppendReady(nil, b)} }
	severity := func(s string) built {
		e := pgwire.Error{Severity: s, Code: text(), Message: text(), Detail: text(), Hint: text()}
		return built{builder: "Append", bytes: e.Append(nil)}
	}
	return []built{
		status('I'), status('T'), status('E'),
		{builder: "AppendAuthenticationOk", bytes: pgwire.AppendAuthenticationOk(nil)},
		{builder: "AppendSASL", bytes: pgwire.AppendSASL(nil, []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"})},
		{builder: "AppendSASL", bytes: pgwire.AppendSASL(nil, []string{"SCRAM-SHA-256"})},
		{builder: "AppendSASLContinue", bytes: pgwire.AppendSASLContinue(nil, data())},
		{builder: "AppendSASLFinal", bytes: pgwire.AppendSASLFinal(nil, data())},
		{builder: "AppendParameterStatus", bytes: pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "n" + text(), Value: text()})},
		{builder: "AppendBackendKeyData", bytes: pgwire.AppendBackendKeyData(nil, 0x7fffffff, []byte{0xff, 0, 1, 2})},
		{builder: "AppendBackendKeyData", bytes: pgwire.AppendBackendKeyData(nil, 1, bytes.Repeat([]byte{0xee}, 32)), v5Only: true},
		{builder: "AppendNegotiate", bytes: pgwire.AppendNegotiate(nil, pgwire.Version32, nil), v5Only: true},
		{builder: "AppendNegotiate", bytes: pgwire.AppendNegotiate(nil, pgwire.Version30, []string{"_pq_.a", "_pq_." + text()}), v5Only: true},
		severity(pgwire.Fatal), severity(pgwire.Err), severity(pgwire.Notice),
		{builder: "AppendQuery", bytes: pgwire.AppendQuery(nil, text()), client: true},
		{builder: "AppendSync", bytes: pgwire.AppendSync(nil), client: true},
		{builder: "AppendTerminate", bytes: pgwire.AppendTerminate(nil), client: true},
		{builder: "AppendCopyFail", bytes: pgwire.AppendCopyFail(nil, text()), client: true},
		{builder: "AppendRefusal", bytes: pgwire.AppendRefusal(nil), client: true},
		{builder: "AppendParse", bytes: pgwire.AppendParse(nil, text(), text()), client: true},
		{builder: "AppendBind", bytes: pgwire.AppendBind(nil, text(), text()), client: true},
		{builder: "AppendBind", bytes: pgwire.AppendBind(nil, text(), text(), data(), nil, []byte{}), client: true},
		{builder: "AppendExecute", bytes: pgwire.AppendExecute(nil, text()), client: true},
	}
}

// notMessages are the builders of something else than a 3.0 message.
var notMessages = map[string]string{
	"AppendHeader": "the head of one, used by all the others",
	"AppendV2":     "protocol 2, which neither decoder knows",
	"AppendPacket": "what ReadPacket has read, of any kind; FuzzReadPacket compares",
}

func TestMessagesDecodeAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != 0 }))
		data := rapid.SliceOfN(rapid.Byte(), 1, 40)
		for _, m := range messages(
			func() string { return text.Draw(t, "text") },
			func() []byte { return data.Draw(t, "data") },
		) {
			if err := alike(m); err != nil {
				t.Fatalf("%s: %v\n%q", m.builder, err, m.bytes)
			}
		}
	})
}

// alike decodes a message with both libraries and encodes it again.
func alike(m built) error {
	if n := int(binary.BigEndian.Uint32(m.bytes[1:])); n != len(m.bytes)-1 {
		return fmt.Errorf("length %d in a message of %d", n, len(m.bytes))
	}
	new, newAgain, err := decodeV5(m)
	if err != nil {
		return fmt.Errorf("pgx: %w", err)
	}
	if d := cmp.Diff(m.bytes, newAgain); d != "" {
		return fmt.Errorf("pgx encodes it differently: %s", d)
	}
	if m.v5Only {
		return nil
	}
	old, oldAgain, err := decodeV2(m)
	if err != nil {
		return fmt.Errorf("pgproto3/v2: %w", err)
	}
	if d := cmp.Diff(m.bytes, oldAgain); d != "" {
		return fmt.Errorf("pgproto3/v2 encodes it differently: %s", d)
	}
	if d := cmp.Diff(old, new); d != "" {
		return fmt.Errorf("understood differently: %s", d)
	}
	return nil
}

// decodeV5 returns what pgx made of a message, as names and values.
func decodeV5(m built) (fields map[string]any, again []byte, err error) {
	var msg v5.Message
	if m.client {
		b := v5.NewBackend(bytes.NewReader(m.bytes), nil)
		msg, err = b.Receive()
	} else {
		f := v5.NewFrontend(bytes.NewReader(m.bytes), nil)
		msg, err = f.Receive()
	}
	if err != nil {
		return nil, nil, err
	}
	if again, err = msg.Encode(nil); err != nil {
		return nil, nil, err
	}
	fields, err = normal(msg)
	if key, ok := msg.(*v5.BackendKeyData); ok && len(key.SecretKey) == 4 { // the old one reads a number
		fields["SecretKey"] = float64(binary.BigEndian.Uint32(key.SecretKey))
	}
	return fields, again, err
}

// decodeV2 is decodeV5 for the older library.
func decodeV2(m built) (fields map[string]any, again []byte, err error) {
	r := v2.NewChunkReader(bytes.NewReader(m.bytes))
	var msg v2.Message
	if m.client {
		msg, err = v2.NewBackend(r, nil).Receive()
	} else {
		msg, err = v2.NewFrontend(r, nil).Receive()
	}
	if err != nil {
		return nil, nil, err
	}
	if again, err = msg.Encode(nil); err != nil {
		return nil, nil, err
	}
	fields, err = normal(msg)
	return fields, again, err
}

// normal turns a decoded message into names and values: both libraries write
// the same JSON for the same message.
func normal(msg any) (map[string]any, error) {
	b, err := json.Marshal(msg)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	return fields, json.Unmarshal(b, &fields)
}

// A builder that is added to pgwire is compared too.
func TestEveryBuilderIsCompared(t *testing.T) {
	covered := map[string]bool{}
	for _, m := range messages(func() string { return "x" }, func() []byte { return []byte("x") }) {
		covered[m.builder] = true
	}
	files, err := filepath.Glob("../proxy/pgwire/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Append") {
				continue
			}
			found++
			if !covered[fn.Name.Name] && notMessages[fn.Name.Name] == "" {
				t.Errorf("%s in %s is not compared", fn.Name.Name, name)
			}
		}
	}
	if found < len(covered) {
		t.Errorf("found %d builders only", found)
	}
}
