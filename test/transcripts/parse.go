// The parser of scripts.

package transcripts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

// maxText bounds what one string may grow to.
const maxText = 64 << 20

// Parse reads a script. The error names the line.
func Parse(text string) ([]Step, error) {
	var steps []Step
	for i, l := range strings.Split(text, "\n") {
		words, err := scan(l)
		if err == nil && len(words) > 0 {
			var s Step
			if s, err = parseStep(words); err == nil {
				steps = append(steps, s)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return steps, nil
}

// A word is a bare word, a number, a bracket, or a string.
type word struct {
	text   string
	quoted bool
}

// scan splits a line.
func scan(l string) ([]word, error) {
	var words []word
	for {
		l = strings.TrimLeft(l, " \t\r,")
		switch {
		case l == "" || l[0] == '#':
			return words, nil
		case l[0] == '"' || l[0] == '`':
			s, rest, err := scanString(l)
			if err != nil {
				return nil, err
			}
			words, l = append(words, word{s, true}), rest
		case l[0] == '[' || l[0] == ']':
			words, l = append(words, word{l[:1], false}), l[1:]
		default:
			n := strings.IndexAny(l, " \t\r,[]\"`#")
			if n < 0 {
				n = len(l)
			}
			words, l = append(words, word{l[:n], false}), l[n:]
		}
	}
}

// scanString reads a Go string, and perhaps how often it is repeated.
func scanString(l string) (s, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(l)
	if err != nil {
		return "", "", fmt.Errorf("a string that does not end, or has a wrong escape: %s", l)
	}
	if s, err = strconv.Unquote(quoted); err != nil {
		return "", "", err
	}
	rest = l[len(quoted):]
	if !strings.HasPrefix(rest, "*") {
		return s, rest, nil
	}
	n := 1
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	times, err := strconv.Atoi(rest[1:n])
	if err != nil || times*len(s) > maxText {
		return "", "", fmt.Errorf("a string cannot be repeated %q times", rest[1:n])
	}
	return strings.Repeat(s, times), rest[n:], nil
}

// A reader takes the words of a line one after the other; the first mistake stays.
type reader struct {
	words []word
	err   error
}

var errShort = errors.New("something is missing at the end")

func (r *reader) next() word {
	if r.err != nil {
		return word{}
	}
	if len(r.words) == 0 {
		r.err = errShort
		return word{}
	}
	w := r.words[0]
	r.words = r.words[1:]
	return w
}

func (r *reader) fail(want string, w word) {
	if r.err == nil {
		r.err = fmt.Errorf("want %s, got %q", want, w.text)
	}
}

func (r *reader) text() string {
	w := r.next()
	if !w.quoted {
		r.fail("a string", w)
	}
	return w.text
}

func (r *reader) number(bits int) uint64 {
	w := r.next()
	n, err := strconv.ParseUint(w.text, 10, bits)
	if w.quoted || err != nil {
		r.fail("a number", w)
	}
	return n
}

// each calls one for every element of a list, which may be left out at the end of a line.
func (r *reader) each(one func()) {
	if r.err == nil && len(r.words) == 0 {
		return
	}
	if w := r.next(); w.quoted || w.text != "[" {
		r.fail("a list", w)
	}
	for r.err == nil {
		if len(r.words) > 0 && r.words[0] == (word{"]", false}) {
			r.next()
			return
		}
		one()
	}
}

func (r *reader) values() (all [][]byte) {
	r.each(func() {
		if len(r.words) > 0 && r.words[0] == (word{"null", false}) {
			r.next()
			all = append(all, nil)
			return
		}
		all = append(all, []byte(r.text()))
	})
	return all
}

func (r *reader) formats() (all []int16) {
	r.each(func() { all = append(all, int16(r.number(15))) })
	return all
}

func (r *reader) kind() byte {
	w := r.next()
	if w.quoted || len(w.text) != 1 || w.text[0] < 'A' || w.text[0] > 'Z' { // another letter is wrong on purpose
		r.fail("S or P", w)
		return 0
	}
	return w.text[0]
}

func parseStep(words []word) (Step, error) {
	s := Step{Session: 'A'}
	if w := words[0]; !w.quoted && len(w.text) == 1 {
		if s.Session = w.text[0]; s.Session < 'A' || s.Session > 'D' {
			return s, fmt.Errorf("no session %s: they are A to D", w.text)
		}
		words = words[1:]
	}
	r := &reader{words: words}
	s.Action = parseAction(r)
	if r.err == nil && len(r.words) > 0 {
		r.err = fmt.Errorf("%q is too much", r.words[0].text)
	}
	return s, r.err
}

func parseAction(r *reader) Action {
	verb := r.next()
	switch verb.text {
	case "wait":
		if len(r.words) == 0 {
			return Wait(0)
		}
		return Wait(r.number(15))
	case "Raw":
		kind := r.text()
		if len(kind) != 1 {
			r.fail("a type of one byte", word{text: kind})
			return nil
		}
		return Raw{kind[0], r.text()}
	case "Bytes":
		return Bytes(r.text())
	case "Meanwhile":
		return Meanwhile(r.text())
	case "Connect":
		var c Connect
		for r.err == nil && len(r.words) > 0 {
			w := r.next()
			name, ok := strings.CutSuffix(w.text, "=")
			if !ok || w.quoted {
				r.fail("name=", w)
			}
			c = append(c, Setting{name, r.text()})
		}
		return c
	}
	m := parseMessage(r, verb)
	if m == nil {
		r.fail("a message", verb)
	}
	return Say{m}
}

func parseMessage(r *reader, verb word) pgproto3.FrontendMessage {
	if m, ok := bare[verb.text]; ok {
		return m()
	}
	switch verb.text {
	case "Query":
		return &pgproto3.Query{String: r.text()}
	case "Parse":
		m := &pgproto3.Parse{Name: r.text(), Query: r.text()}
		r.each(func() { m.ParameterOIDs = append(m.ParameterOIDs, uint32(r.number(32))) })
		return m
	case "Bind":
		return &pgproto3.Bind{DestinationPortal: r.text(), PreparedStatement: r.text(), Parameters: r.values(),
			ParameterFormatCodes: r.formats(), ResultFormatCodes: r.formats()}
	case "Describe":
		return &pgproto3.Describe{ObjectType: r.kind(), Name: r.text()}
	case "Close":
		return &pgproto3.Close{ObjectType: r.kind(), Name: r.text()}
	case "Execute":
		return &pgproto3.Execute{Portal: r.text(), MaxRows: uint32(r.number(32))}
	case "CopyData":
		return &pgproto3.CopyData{Data: []byte(r.text())}
	case "CopyFail":
		return &pgproto3.CopyFail{Message: r.text()}
	case "FunctionCall":
		m := &pgproto3.FunctionCall{Function: uint32(r.number(32)), Arguments: r.values()}
		r.each(func() { m.ArgFormatCodes = append(m.ArgFormatCodes, uint16(r.number(16))) })
		m.ResultFormatCode = uint16(r.number(16))
		return m
	}
	return nil
}
