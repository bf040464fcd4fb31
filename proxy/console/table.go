// Tables: columns, rows, and how they look on the wire, as text and in binary.

package console

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// Types by their OID in pg_type.
const (
	typeText    = 25
	typeInt8    = 20
	typeInt4    = 23
	typeNumeric = 1700
)

// Column is a column's name and the OID of its type.
type Column struct {
	Name string
	Type uint32
}

// columns reads a list of names. A name is text unless it says otherwise: :4
// and :8 are integers of so many bytes, :n is numeric.
func columns(list string) (out []Column) {
	for _, entry := range strings.Fields(list) {
		name, kind, _ := strings.Cut(entry, ":")
		out = append(out, Column{name, map[string]uint32{"": typeText, "4": typeInt4, "8": typeInt8, "n": typeNumeric}[kind]})
	}
	return out
}

// table is an answer. row returns the values of row i, of n, one per column:
// string, int, int64, uint64, bool (1 or 0), or nil for NULL.
type table struct {
	n   int
	row func(i int) []any
}

// tableOf makes a table of a list, a row for each of its members.
func tableOf[T any](list []T, row func(*T) []any) table {
	return table{len(list), func(i int) []any { return row(&list[i]) }}
}

func width(oid uint32) int16 {
	switch oid {
	case typeInt4:
		return 4
	case typeInt8:
		return 8
	}
	return -1
}

// formats are the result formats of a Bind: none is all text, one is for all columns.
type formats []int16

func (f formats) of(column int) int16 {
	switch {
	case len(f) == 0:
		return 0
	case len(f) == 1:
		return f[0]
	}
	return f[column]
}

// appendRowDescription appends a RowDescription.
func appendRowDescription(dst []byte, list []Column, f formats) []byte {
	start := len(dst)
	dst = pgwire.AppendHeader(dst, pgwire.RowDescription, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(list)))
	for i, c := range list {
		dst = append(append(dst, c.Name...), 0)
		dst = append(dst, 0, 0, 0, 0, 0, 0) // of no table
		dst = binary.BigEndian.AppendUint32(dst, c.Type)
		dst = binary.BigEndian.AppendUint16(dst, uint16(width(c.Type)))
		dst = binary.BigEndian.AppendUint32(dst, 1<<32-1) // no modifier
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.of(i)))
	}
	pgwire.PutLength(dst[start:])
	return dst
}

// appendRow appends a DataRow.
func appendRow(dst []byte, list []Column, values []any, f formats) []byte {
	if len(values) != len(list) {
		panic(fmt.Sprintf("BUG: console: %d values for %d columns", len(values), len(list)))
	}
	start := len(dst)
	dst = pgwire.AppendHeader(dst, pgwire.DataRow, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for i, v := range values {
		if v == nil {
			dst = binary.BigEndian.AppendUint32(dst, 1<<32-1)
			continue
		}
		at := len(dst)
		dst = binary.BigEndian.AppendUint32(dst, 0)
		dst = appendValue(dst, list[i].Type, v, f.of(i) == 1)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	pgwire.PutLength(dst[start:])
	return dst
}

func appendValue(dst []byte, oid uint32, v any, inBinary bool) []byte {
	if s, ok := v.(string); ok {
		return append(dst, strings.ReplaceAll(s, "\x00", "")...)
	}
	n := number(v)
	switch {
	case !inBinary || oid == typeText:
		return strconv.AppendInt(dst, n, 10)
	case oid == typeInt4:
		return binary.BigEndian.AppendUint32(dst, uint32(n))
	case oid == typeInt8:
		return binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	return appendNumeric(dst, n)
}

func number(v any) int64 {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int64:
		return v
	case uint64:
		return int64(v)
	case bool:
		if v {
			return 1
		}
		return 0
	}
	panic(fmt.Sprintf("BUG: console: value of type %T", v))
}

// appendNumeric appends a number that is not negative in numeric's binary form
// (numeric_send): how many digits to base 10000, the first one's weight, sign,
// scale, the digits.
func appendNumeric(dst []byte, n int64) []byte {
	var digits []uint16
	for ; n > 0; n /= 10000 {
		digits = append(digits, uint16(n%10000))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(digits)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(max(0, len(digits)-1)))
	dst = append(dst, 0, 0, 0, 0)
	for i := len(digits) - 1; i >= 0; i-- {
		dst = binary.BigEndian.AppendUint16(dst, digits[i])
	}
	return dst
}

// appendComplete appends CommandComplete.
func appendComplete(dst []byte, tag string) []byte {
	dst = pgwire.AppendHeader(dst, pgwire.CommandComplete, len(tag)+1)
	return append(append(dst, tag...), 0)
}

// appendBare appends a message without a body.
func appendBare(dst []byte, typ byte) []byte { return pgwire.AppendHeader(dst, typ, 0) }
