// The command line.

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Options are the command line, checked.
type options struct {
	rounds      int
	seconds     int // per cell
	rows        []row
	targets     []string
	idleClients int
	tenants     int // of the store row
	scale       int // pgbench's
	pgbouncer   string
	postern     string // "": build it
	against     string // another Postern to compare with; "" for none
	output      string // "text", "markdown" or "json"
}

// How many rounds there are, unless the command line says otherwise. Two Posterns differ by little, which takes more.
const (
	defaultRounds        = 5
	defaultRoundsAgainst = 7
)

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
	fs.IntVar(&o.rounds, "rounds", defaultRounds, "rounds over all cells; with -against 7 unless given")
	fs.IntVar(&o.seconds, "seconds", 5, "seconds of pgbench per cell")
	fs.StringVar(&rows, "rows", "", "comma-separated `list` of rows: "+strings.Join(rowNames(), ", ")+" (default all)")
	fs.StringVar(&targets, "targets", "", "comma-separated `list` of targets: "+strings.Join(allTargets(), ", ")+" (default all)")
	fs.IntVar(&o.idleClients, "idle-clients", 1000, "clients of the idle rows")
	fs.IntVar(&o.tenants, "tenants", 100_000, "tenants of the store row")
	fs.IntVar(&o.scale, "scale", 20, "pgbench scale factor")
	fs.StringVar(&o.pgbouncer, "pgbouncer", defaultPgBouncer(), "PgBouncer's binary")
	fs.StringVar(&o.postern, "postern", "", "Postern's binary (default: built from this module)")
	fs.StringVar(&o.against, "against", "", "another Postern's `binary`: compare with it alone, unless -targets names others")
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
	if o.against != "" && err == nil {
		err = o.compare(rows == "", targets == "", !given(fs, "rounds"))
	}
	switch {
	case err != nil:
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.rounds < 1 || o.seconds < 1 || o.idleClients < 1 || o.scale < 1:
		err = errors.New("-rounds, -seconds, -idle-clients and -scale must be at least 1")
	case o.tenants < storeBusy:
		err = fmt.Errorf("-tenants must be at least %d", storeBusy)
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

// given says whether the command line has the flag.
func given(fs *flag.FlagSet, name string) (found bool) {
	fs.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// compare makes the options those of a comparison with another Postern. Whatever a whole table has and it lacks is left out of
// a default, and refused where it was asked for.
func (o *options) compare(anyRows, anyTargets, anyRounds bool) error {
	comparable := func(w row) bool { return w.runsOn(against) }
	switch i := slices.IndexFunc(o.rows, func(w row) bool { return !comparable(w) }); {
	case anyRows:
		o.rows = slices.DeleteFunc(o.rows, func(w row) bool { return !comparable(w) })
	case i >= 0:
		return fmt.Errorf("row %s has nothing to compare -against", o.rows[i].name)
	}
	switch {
	case anyTargets:
		o.targets = []string{against, postern}
	case !slices.Contains(o.targets, postern):
		return errors.New("-against compares with the target postern")
	default:
		o.targets = append(o.targets, against)
	}
	if anyRounds {
		o.rounds = defaultRoundsAgainst
	}
	return nil
}
