// What is printed: a table for people, JSON for programs.

package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// column is one of a table: its title, and the path of its value in a row.
type column struct{ title, path string }

// table writes rows of JSON objects. Nothing in a value can move the cursor or look like another row.
func table(out io.Writer, rows []any, columns []column) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	fmt.Fprintln(w, strings.Join(titles, "\t"))
	for _, row := range rows {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = cell(at(row, c.path))
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
	}
	return w.Flush()
}

// at finds a value by a path of keys with dots between; the first of several paths, with | between, that leads to one counts.
func at(v any, path string) any {
	for one := range strings.SplitSeq(path, "|") {
		found := v
		for key := range strings.SplitSeq(one, ".") {
			found = under(found, key)
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// under is what an object has under a key, or all objects of a list.
func under(v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		return v[key]
	case []any:
		all := []any{}
		for _, item := range v {
			all = append(all, under(item, key))
		}
		return all
	}
	return nil
}

// cell is a value in a table.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil && t.Nanosecond() != 0 {
			return t.Format(time.RFC3339) // to the second; --json has all of it
		}
		return printable(v)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case json.Number:
		return v.String()
	case []any:
		all := make([]string, 0, len(v))
		for _, item := range v {
			all = append(all, cell(item))
		}
		if len(all) == 0 {
			return "(none)"
		}
		return strings.Join(all, ",")
	}
	text, _ := json.Marshal(v)
	return printable(string(text))
}

// printable shows what is not as an escape.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// decode reads an answer, whose numbers stay as they are written.
func decode(text json.RawMessage) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// indented writes JSON as people read it.
func indented(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
