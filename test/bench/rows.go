// The rows of the table: what each one makes its clients do.

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A row is one line of the table, run as one cell per target and round.
type row struct {
	name    string   // for -rows
	title   string   // for people
	targets []string // that have a cell in it
	pgbench []string // its arguments; none for rows that measure something else
	// elsewhere are the arguments for a PgBouncer that has no prepared statements in transaction mode: its clients must do without.
	elsewhere []string
	script    string       // name of a script in scripts, instead of a builtin
	tls       bool         // clients speak TLS; the pooler's own way to the server stays in plaintext
	plain     bool         // Postern may not use io_uring
	wide      bool         // PgBouncer has buffers of 64 KiB
	idle      bool         // measures memory and goroutines of idle clients instead
	store     bool         // measures what tenants in a database take, and how soon their changes are in force, instead
	wake      int          // so many clients of a sleeping machine come at once; measures how soon they are answered instead
	own       *measurement // measures something of its own instead
	tracks    string       // measures what tracking takes of a transaction of the row of this name instead; see tracking.go
}

// loadClients is how many clients the rows of short transactions have.
const loadClients = 32

// scripts are the custom pgbench scripts by name.
var scripts = map[string]string{
	// 5,000 DataRows of 1,000 bytes each: one result of 5 MB.
	"result5mb": "select repeat('x', 1000) from generate_series(1, 5000);\n",
	"transaction": "\\set aid random(1, 100000 * :scale)\nbegin;\n" +
		strings.Repeat("select abalance from pgbench_accounts where aid = :aid;\n", 3) + "commit;\n",
}

// selectOnly are the arguments for short transactions in one of pgbench's protocols.
func selectOnly(mode string) []string {
	return []string{"-S", "-M", mode, "-c", strconv.Itoa(loadClients), "-j", "2"}
}

// allRows returns every row in the order of the table.
func allRows() []row {
	all, poolers, ours := allTargets(), []string{pgbouncer, postern}, []string{postern}
	results := []string{"-c", "4", "-j", "2"}
	connects := []string{"-S", "-C", "-c", "8", "-j", "2"}
	return []row{
		{name: "simple", title: "`-S` simple", targets: all, pgbench: selectOnly("simple")},
		{name: "simple-plain", title: "`-S` simple, Postern without io_uring", targets: poolers, pgbench: selectOnly("simple"), plain: true},
		{name: "extended", title: "`-S` extended", targets: all, pgbench: selectOnly("extended")},
		{name: "prepared", title: "`-S` prepared", targets: all, pgbench: selectOnly("prepared"), elsewhere: selectOnly("extended")},
		{name: "one", title: "`-S` simple, one client", targets: all, pgbench: []string{"-S", "-c", "1"}},
		{name: "transaction", title: "BEGIN, 3 selects, COMMIT", targets: all, pgbench: []string{"-c", strconv.Itoa(loadClients), "-j", "2"}, script: "transaction"},
		{name: "tracking", title: "`-S` simple", targets: ours, tracks: "simple"},
		{name: "tracking-extended", title: "`-S` extended", targets: ours, tracks: "extended"},
		{name: "tracking-prepared", title: "`-S` prepared", targets: ours, tracks: "prepared"},
		{name: "result5mb", title: "5 MB results, 4 clients", targets: all, pgbench: results, script: "result5mb"},
		{name: "result5mb-wide", title: "5 MB results, PgBouncer with `pkt_buf` of 64 KiB", targets: poolers, pgbench: results, script: "result5mb", wide: true},
		{name: "tls", title: "`-S` over TLS", targets: all, pgbench: selectOnly("simple"), tls: true},
		{name: "connect", title: "a login for each transaction", targets: all, pgbench: connects},
		{name: "connect-tls", title: "a login for each transaction, TLS", targets: all, pgbench: connects, tls: true},
		{name: "idle", title: "idle clients", targets: poolers, idle: true},
		{name: "idle-tls", title: "idle clients, TLS", targets: poolers, idle: true, tls: true},
		{name: "wake-one", title: "one client of a sleeping machine", targets: ours, wake: 1},
		{name: "wake", title: "200 clients of a sleeping machine", targets: ours, wake: 200},
		{name: "store", title: "tenants in a database", targets: ours, store: true},
		{name: "cluster", title: "`-S` simple", targets: ours, own: clusterCost()},
		{name: "gossip-3", title: "3 members", targets: ours, own: gossipOf(3)},
		{name: "gossip-10", title: "10 members", targets: ours, own: gossipOf(10)},
		{name: "gossip-50", title: "50 members", targets: ours, own: gossipOf(50)},
		{name: "dead-node", title: "one of three nodes is killed", targets: ours, own: deadNode()},
		{name: "hand-over", title: "all load moves to another node", targets: ours, own: handOver()},
		{name: "portions", title: "looks at portions", targets: ours, own: portionLooks()},
		{name: "pools", title: "tenants with one client and one server", targets: ours, own: usedTenants()},
	}
}

// runsOn says whether the row has a cell for the target. Another Postern has those of this one that load it.
func (w row) runsOn(target string) bool {
	if target == against {
		return w.steady() && !w.wide && slices.Contains(w.targets, postern)
	}
	return slices.Contains(w.targets, target)
}

// steady says that the row's clients work without a pause, on poolers that live as long as the run.
func (w row) steady() bool { return len(w.pgbench) > 0 }

// An instance is a process of a target with settings of its own; the rows without share one.
type instance struct {
	target string
	plain  bool // a Postern that may not use io_uring: what it is where the kernel does not allow that
	wide   bool // a PgBouncer with buffers of 64 KiB
}

// instance is which process the row's cell for a target talks to.
func (w row) instance(target string) instance {
	return instance{target: target, plain: w.plain && (target == postern || target == against), wide: w.wide && target == pgbouncer}
}

// rowNames returns the names of all rows in the order of the table.
func rowNames() (names []string) {
	for _, w := range allRows() {
		names = append(names, w.name)
	}
	return names
}

// selectRows returns the rows that a comma-separated list names, in the table's order; "" is all of them. What a row is
// set against comes along, for Postern alone.
func selectRows(list string) ([]row, error) {
	chosen, err := choose(list, rowNames(), "row")
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, w := range allRows() {
		needed := slices.ContainsFunc(allRows(), func(o row) bool { return o.tracks == w.name && slices.Contains(chosen, o.name) })
		switch {
		case slices.Contains(chosen, w.name):
			rows = append(rows, w)
		case needed:
			w.targets = []string{postern}
			rows = append(rows, w)
		}
	}
	return rows, nil
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
