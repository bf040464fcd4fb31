// What a script consists of, and how it is written down.

package transcripts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

// A Script is the text of a conversation; see the package's documentation for the language.
type Script struct {
	Name string // theme/name
	Text string
}

// unique is what stands for a text that no other run has.
const unique = "@@"

// Steps parses the script for one run; id, of six characters, takes the place of each @@.
func (s Script) Steps(id string) ([]Step, error) {
	steps, err := Parse(strings.ReplaceAll(s.Text, unique, id))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return steps, nil
}

// A Step is one line of a script.
type Step struct {
	Session byte // 'A' to 'D'
	Action  Action
}

// String is the step's line.
func (s Step) String() string {
	if s.Session == 'A' {
		return s.Action.String()
	}
	return string(s.Session) + " " + s.Action.String()
}

// An Action is what a session does: Say, Raw, Bytes, Wait or Connect; or what somebody else does: Meanwhile. Its String is in the script language.
type Action interface{ String() string }

// Say sends a message.
type Say struct{ Message pgproto3.FrontendMessage }

// Raw sends a message of any type with any body, and the length that belongs to it.
type Raw struct {
	Kind byte
	Body string
}

// Bytes sends bytes as they are.
type Bytes string

// Wait sends what was said and reads, at least so many messages, until the server is quiet.
type Wait int

// Meanwhile is what another client does at once, on the server itself.
type Meanwhile string

// Connect logs in with startup parameters.
type Connect []Setting

// A Setting is a startup parameter.
type Setting struct{ Name, Value string }

// String is the action's line.
func (s Say) String() string {
	switch m := s.Message.(type) {
	case *pgproto3.Query:
		return line("Query", quote(m.String))
	case *pgproto3.Parse:
		return line("Parse", quote(m.Name), quote(m.Query), list(m.ParameterOIDs, number))
	case *pgproto3.Bind:
		return line("Bind", quote(m.DestinationPortal), quote(m.PreparedStatement), list(m.Parameters, value),
			list(m.ParameterFormatCodes, number), list(m.ResultFormatCodes, number))
	case *pgproto3.Describe:
		return line("Describe", string(m.ObjectType), quote(m.Name))
	case *pgproto3.Close:
		return line("Close", string(m.ObjectType), quote(m.Name))
	case *pgproto3.Execute:
		return line("Execute", quote(m.Portal), number(m.MaxRows))
	case *pgproto3.CopyData:
		return line("CopyData", quote(string(m.Data)))
	case *pgproto3.CopyFail:
		return line("CopyFail", quote(m.Message))
	case *pgproto3.FunctionCall:
		return line("FunctionCall", number(m.Function), list(m.Arguments, value), list(m.ArgFormatCodes, number), number(m.ResultFormatCode))
	}
	for word, m := range bare {
		if fmt.Sprintf("%T", m()) == fmt.Sprintf("%T", s.Message) {
			return word
		}
	}
	return fmt.Sprintf("# %T", s.Message)
}

// bare are the messages without a body.
var bare = map[string]func() pgproto3.FrontendMessage{
	"Sync":      func() pgproto3.FrontendMessage { return &pgproto3.Sync{} },
	"Flush":     func() pgproto3.FrontendMessage { return &pgproto3.Flush{} },
	"CopyDone":  func() pgproto3.FrontendMessage { return &pgproto3.CopyDone{} },
	"Terminate": func() pgproto3.FrontendMessage { return &pgproto3.Terminate{} },
}

// String is the action's line.
func (r Raw) String() string { return line("Raw", quote(string([]byte{r.Kind})), quote(r.Body)) }

// String is the action's line.
func (b Bytes) String() string { return line("Bytes", quote(string(b))) }

// String is the action's line.
func (m Meanwhile) String() string { return line("Meanwhile", quote(string(m))) }

// String is the action's line.
func (w Wait) String() string {
	if w == 0 {
		return "wait"
	}
	return fmt.Sprintf("wait %d", int(w))
}

// String is the action's line.
func (c Connect) String() string {
	words := []string{"Connect"}
	for _, s := range c {
		words = append(words, s.Name+"="+quote(s.Value))
	}
	return line(words...)
}

// line joins words; empty lists at the end are left out.
func line(words ...string) string {
	for len(words) > 1 && words[len(words)-1] == "[]" {
		words = words[:len(words)-1]
	}
	return strings.Join(words, " ")
}

func quote(s string) string { return strconv.Quote(s) }

// value is a parameter or null.
func value(b []byte) string {
	if b == nil {
		return "null"
	}
	return quote(string(b))
}

func number[N int16 | uint16 | uint32](n N) string { return strconv.Itoa(int(n)) }

func list[E any](all []E, write func(E) string) string {
	words := make([]string, len(all))
	for i, e := range all {
		words[i] = write(e)
	}
	return "[" + strings.Join(words, " ") + "]"
}

// Write is a whole script, for a file.
func Write(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// encode appends what an action sends.
func encode(dst []byte, a Action) ([]byte, error) {
	switch a := a.(type) {
	case Say:
		return a.Message.Encode(dst)
	case Raw:
		dst = append(dst, a.Kind)
		n := len(a.Body) + 4
		dst = append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		return append(dst, a.Body...), nil
	case Bytes:
		return append(dst, a...), nil
	}
	return nil, fmt.Errorf("%s sends nothing", a)
}
