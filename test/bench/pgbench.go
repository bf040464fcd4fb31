// Running pgbench and reading its report.

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A pgbenchReport is what the benchmark uses of pgbench's summary.
type pgbenchReport struct {
	Transactions int64
	LatencyMS    float64 // average per transaction, as a client sees it
	TPS          float64 // without the first connecting; with it where pgbench reconnects (-C)
}

var (
	processedLine = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failedLine    = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
	latencyLine   = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	tpsLine       = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:without initial connection time|including reconnection times)\)`)
)

// parsePgbench reads the summary that pgbench 15 and later print. It is an error if anything failed or if pgbench gave
// up, so that a cell is either whole or not there.
func parsePgbench(out string) (pgbenchReport, error) {
	if strings.Contains(out, "Run was aborted") {
		return pgbenchReport{}, errors.New("pgbench: run was aborted")
	}
	failed, err := intField(failedLine, out, "number of failed transactions")
	if err != nil {
		return pgbenchReport{}, err
	}
	if failed != 0 {
		return pgbenchReport{}, fmt.Errorf("pgbench: %d failed transactions", failed)
	}
	var r pgbenchReport
	if r.Transactions, err = intField(processedLine, out, "number of transactions"); err != nil {
		return pgbenchReport{}, err
	}
	if r.Transactions == 0 {
		return pgbenchReport{}, errors.New("pgbench: no transaction was processed")
	}
	if r.LatencyMS, err = floatField(latencyLine, out, "latency average"); err != nil {
		return pgbenchReport{}, err
	}
	if r.TPS, err = floatField(tpsLine, out, "tps"); err != nil {
		return pgbenchReport{}, err
	}
	return r, nil
}

func intField(re *regexp.Regexp, out, what string) (int64, error) {
	m := re.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench: no %q in its report", what)
	}
	return strconv.ParseInt(m[1], 10, 64)
}

func floatField(re *regexp.Regexp, out, what string) (float64, error) {
	m := re.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench: no %q in its report", what)
	}
	return strconv.ParseFloat(m[1], 64)
}

// pgbench runs one cell of a row against t. The password reaches pgbench by its environment.
func (r *rig) pgbench(ctx context.Context, t *target, w row) (pgbenchReport, error) {
	args := []string{"-n", "-h", t.host, "-p", strconv.Itoa(t.port), "-U", t.user, "-T", strconv.Itoa(r.opts.seconds)}
	if t.name == pgbouncer && w.elsewhere != nil && !preparesByDefault(r.programs.pgbouncerVersion) {
		args = append(args, w.elsewhere...)
	} else {
		args = append(args, w.pgbench...)
	}
	if w.script != "" {
		args = append(args, "-f", r.scripts[w.script])
	}
	out, err := run(ctx, r.clientEnv(w.tls), r.programs.pgbench, append(args, benchDatabase)...)
	if err != nil {
		return pgbenchReport{}, err
	}
	return parsePgbench(out)
}
