// The idle rows: what a pooler keeps for clients that are logged in and silent.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

const (
	idleWarmUp  = 2 * poolSize    // clients that fill the pool and load the code before the first reading
	idleSettle  = 2 * time.Second // between the last client's query and a reading
	idleLogins  = 8               // clients that log in at once
	scrapeBound = 5 * time.Second
	scrapeLimit = 16 << 20 // bytes of metrics
)

// A reading is what a pooler holds at one moment.
type reading struct {
	rss        int64   // bytes
	goroutines float64 // -1: not a Go program
}

// idleCell starts a fresh pooler, opens idle clients that have each run one query, and reads what they cost it.
func (r *rig) idleCell(ctx context.Context, w row, name string) (f figures, err error) {
	t, err := r.startTarget(ctx, w.instance(name))
	if err != nil {
		return nil, err
	}
	defer t.stop()
	warm, err := r.openIdle(ctx, t, idleWarmUp, w.tls)
	closeAll(ctx, warm)
	if err != nil {
		return nil, err
	}
	before, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	clients, err := r.openIdle(ctx, t, r.opts.idleClients, w.tls)
	defer func() { closeAll(ctx, clients) }()
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, t.logTail())
	}
	after, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	// A pooler that dropped them would look frugal.
	for _, c := range clients {
		if err := ask(ctx, c); err != nil {
			return nil, fmt.Errorf("an idle client was lost: %w%s", err, t.logTail())
		}
	}
	f = figures{memory: float64(after.rss-before.rss) / 1024 / float64(len(clients))}
	if before.goroutines >= 0 {
		f[goroutinesBefore], f[goroutinesAfter] = before.goroutines, after.goroutines
	}
	return f, t.alive()
}

// openIdle logs n clients in. What it opened comes back also with an error; the caller closes it.
func (r *rig) openIdle(ctx context.Context, t *target, n int, tls bool) ([]*pgconn.PgConn, error) {
	conns := make([]*pgconn.PgConn, n)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(idleLogins)
	for i := range conns {
		group.Go(func() error {
			c, err := r.connect(groupCtx, t, tls)
			conns[i] = c
			return err
		})
	}
	err := group.Wait()
	return conns, err
}

// closeAll says goodbye for every client that was opened.
func closeAll(ctx context.Context, conns []*pgconn.PgConn) {
	for _, c := range conns {
		if c != nil {
			c.Close(ctx)
		}
	}
}

// read lets the target settle and takes a reading.
func (t *target) read(ctx context.Context) (reading, error) {
	if err := pause(ctx, idleSettle); err != nil {
		return reading{}, err
	}
	got := reading{goroutines: -1}
	var err error
	if t.metrics != "" {
		// First, so that the memory of serving it is in both readings.
		if got.goroutines, err = scrape(ctx, t.metrics, "go_goroutines"); err != nil {
			return reading{}, fmt.Errorf("%w%s", err, t.logTail())
		}
	}
	if got.rss, err = rssOf(t.proc.pid()); err != nil {
		return reading{}, errors.Join(err, t.alive())
	}
	return got, nil
}

// scrape reads a sample without labels from Prometheus metrics at url, over a connection of its own.
func scrape(ctx context.Context, url, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeBound)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Close = true // a connection kept alive would be a goroutine in the next reading
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", url, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, scrapeLimit))
	if err != nil {
		return 0, err
	}
	n, err := parseSample(string(body), name)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", url, err)
	}
	return n, nil
}

// parseSample finds a sample without labels in Prometheus's text format.
func parseSample(metrics, name string) (float64, error) {
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("no " + name)
}
