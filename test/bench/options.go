// The command line.

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Options are the command line, checked.
type options struct {
	rounds      int
	seconds     int // per cell
	rows        []row
	targets     []string
	idleClients int
	scale       int // pgbench's
	pgbouncer   string
	postern     string // "": build it
	output      string // "text", "markdown" or "json"
}

// errUsage says that the flag package has already told the user what is wrong.
var errUsage = errors.New("wrong use")

// parseOptions reads args; problems are told on stderr and come back as an error.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var (
		o              options
		rows, targets  string
		markdown, json bool
	)
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 5, "rounds over all cells")
	fs.IntVar(&o.seconds, "seconds", 5, "seconds of pgbench per cell")
	fs.StringVar(&rows, "rows", "", "comma-separated `list` of rows: "+strings.Join(rowNames(), ", ")+" (default all)")
	fs.StringVar(&targets, "targets", "", "comma-separated `list` of targets: "+strings.Join(allTargets(), ", ")+" (default all)")
	fs.IntVar(&o.idleClients, "idle-clients", 1000, "clients of the idle rows")
	fs.IntVar(&o.scale, "scale", 20, "pgbench scale factor")
	fs.StringVar(&o.pgbouncer, "pgbouncer", "/usr/sbin/pgbouncer", "PgBouncer's binary")
	fs.StringVar(&o.postern, "postern", "", "Postern's binary (default: built from this module)")
	fs.BoolVar(&markdown, "markdown", false, "print Markdown tables")
	fs.BoolVar(&json, "json", false, "print every cell and the summary as JSON")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}
	var err error
	if o.rows, err = selectRows(rows); err == nil {
		o.targets, err = choose(targets, allTargets(), "target")
	}
	switch {
	case err != nil:
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.rounds < 1 || o.seconds < 1 || o.idleClients < 1 || o.scale < 1:
		err = errors.New("-rounds, -seconds, -idle-clients and -scale must be at least 1")
	case markdown && json:
		err = errors.New("-markdown and -json exclude each other")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return o, errUsage
	}
	switch {
	case markdown:
		o.output = "markdown"
	case json:
		o.output = "json"
	default:
		o.output = "text"
	}
	return o, nil
}
