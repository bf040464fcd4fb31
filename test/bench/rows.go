// The rows of the table: what each one makes its clients do.

package main

import (
	"fmt"
	"slices"
	"strings"
)

// A row is one line of the table, run as one cell per target and round.
type row struct {
	name    string   // for -rows
	title   string   // for people
	pgbench []string // its arguments; none for an idle row and the wake row
	// elsewhere are the arguments for PgBouncer where it cannot do the same: 1.18 has no prepared statements in transaction
	// mode, and its clients must do without.
	elsewhere []string
	script    string // name of a script in scripts, instead of a builtin
	tls       bool   // clients speak TLS; the pooler's own way to the server stays in plaintext
	idle      bool   // measures memory and goroutines of idle clients instead
	wake      int    // so many clients of a sleeping machine come at once; measures how soon they are answered instead
}

// scripts are the custom pgbench scripts by name.
var scripts = map[string]string{
	// 5,000 DataRows of 1,000 bytes each: one result of 5 MB.
	"result5mb": "select repeat('x', 1000) from generate_series(1, 5000);\n",
}

// allRows returns every row in the order of the table.
func allRows() []row {
	return []row{
		{name: "simple", title: "`-S` simple", pgbench: []string{"-S", "-M", "simple", "-c", "32", "-j", "2"}},
		{name: "extended", title: "`-S` extended", pgbench: []string{"-S", "-M", "extended", "-c", "32", "-j", "2"}},
		{name: "prepared", title: "`-S` prepared (PgBouncer: extended)", pgbench: []string{"-S", "-M", "prepared", "-c", "32", "-j", "2"},
			elsewhere: []string{"-S", "-M", "extended", "-c", "32", "-j", "2"}},
		{name: "result5mb", title: "5 MB results", pgbench: []string{"-c", "4", "-j", "2"}, script: "result5mb"},
		{name: "tls", title: "`-S` over TLS", pgbench: []string{"-S", "-M", "simple", "-c", "32", "-j", "2"}, tls: true},
		{name: "connect", title: "connect per transaction", pgbench: []string{"-S", "-C", "-c", "8", "-j", "2"}},
		{name: "idle", title: "idle clients", idle: true},
		{name: "idle-tls", title: "idle clients, TLS", idle: true, tls: true},
		{name: "wake-one", title: "one client of a sleeping machine", wake: 1},
		{name: "wake", title: "200 clients of a sleeping machine", wake: 200},
	}
}

// runsOn says whether the row has a cell for the target: an idle direct client is a server process, and no pooler's, and
// only Postern wakes machines.
func (w row) runsOn(target string) bool {
	return w.steady() || w.idle && target != direct || w.wake > 0 && target == postern
}

// steady says that the row's clients work without a pause, on poolers that live as long as the run.
func (w row) steady() bool { return !w.idle && w.wake == 0 }

// selectRows returns the rows that a comma-separated list names, in the table's order; "" is all of them.
func selectRows(list string) ([]row, error) {
	rows := allRows()
	names := make([]string, len(rows))
	for i, w := range rows {
		names[i] = w.name
	}
	chosen, err := choose(list, names, "row")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(w row) bool { return !slices.Contains(chosen, w.name) }), nil
}

// choose returns the members of all that a comma-separated list names, in the order of all; "" is all of them.
func choose(list string, all []string, what string) ([]string, error) {
	if list == "" {
		return all, nil
	}
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("unknown %s %q: choose from %s", what, name, strings.Join(all, ", "))
		}
		wanted[name] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !wanted[name] }), nil
}

// rotate returns list turned left by n, so that each target is the first of a round equally often.
func rotate[T any](list []T, n int) []T {
	if len(list) == 0 {
		return list
	}
	n %= len(list)
	return slices.Concat(list[n:], list[:n])
}
