// The wake rows: how much later than a client that dials the machine itself many clients of a sleeping tenant are answered.

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	wakeTrials = 5 // per cell; its figures are their medians
	wakeWithin = time.Minute
)

// A sleeper is a Postern whose one tenant lives on a local machine that sleeps.
type sleeper struct {
	target
	admin, token string
	pidfile      string // of the machine's PostgreSQL
}

// wakeCell puts the machine to sleep and has clients come, again and again.
func (r *rig) wakeCell(ctx context.Context, clients int) (figures, error) {
	s, err := r.startSleeper()
	if err != nil {
		return nil, err
	}
	defer s.stop()
	var first, last, total []float64
	for trial := range wakeTrials + 1 {
		f, l, t, err := r.wakeOnce(ctx, s, clients, trial == 0)
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, s.logTail())
		}
		if trial > 0 { // the first one makes the cluster
			first, last, total = append(first, f), append(last, l), append(total, t)
		}
	}
	return figures{wakeFirst: spreadOf(first).Median, wakeLast: spreadOf(last).Median, wakeTotal: spreadOf(total).Median}, s.alive()
}

// wakeOnce returns, in milliseconds, how long after the direct client's answer the first and the last of the others came, and
// how long all of it took. fresh: nothing is known of the machine yet, so there is nobody to compare with.
func (r *rig) wakeOnce(ctx context.Context, s *sleeper, clients int, fresh bool) (first, last, total float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, wakeWithin)
	defer cancel()
	if err := s.sleep(ctx, fresh); err != nil {
		return 0, 0, 0, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	began := time.Now()
	answered := make([]time.Time, clients)
	for i := range answered {
		group.Go(func() error {
			conn, err := r.connect(groupCtx, &s.target, false)
			if err != nil {
				return err
			}
			answered[i] = time.Now()
			return conn.Close(groupCtx)
		})
	}
	ready := began
	if !fresh {
		group.Go(func() error {
			var err error
			ready, err = r.dialInALoop(groupCtx, s)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, 0, err
	}
	earliest, latest := answered[0], answered[0]
	for _, at := range answered {
		if at.Before(earliest) {
			earliest = at
		}
		if at.After(latest) {
			latest = at
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return ms(earliest.Sub(ready)), ms(latest.Sub(ready)), ms(latest.Sub(began)), nil
}

// dialInALoop is the client to compare with: it knows where the machine listens and tries until it is answered.
func (r *rig) dialInALoop(ctx context.Context, s *sleeper) (time.Time, error) {
	for {
		if port := s.port(); port != 0 {
			conn, err := r.connect(ctx, &target{host: loopback, port: port, user: benchRole}, false)
			if err == nil {
				at := time.Now()
				return at, conn.Close(ctx)
			}
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

// port is where the machine's PostgreSQL listens, 0 while it has not said.
func (s *sleeper) port() int {
	content, err := os.ReadFile(s.pidfile)
	lines := strings.Split(string(content), "\n")
	if err != nil || len(lines) < 4 {
		return 0
	}
	port, _ := strconv.Atoi(lines[3])
	return port
}

// sleep has the machine put to sleep and waits until it sleeps.
func (s *sleeper) sleep(ctx context.Context, fresh bool) error {
	for {
		var view struct{ State string }
		if err := s.call(ctx, http.MethodGet, "", &view); err != nil && !isRefused(err) {
			return err
		}
		switch view.State {
		case "asleep":
			return nil
		case "ready":
			var busy *statusError
			if err := s.call(ctx, http.MethodPost, "/suspend", nil); err != nil && !errors.As(err, &busy) {
				return err
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the machine does not sleep (fresh: %v): %w", fresh, err)
		}
	}
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// statusError is an answer of the API that is no success.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("admin API: %d: %s", e.status, e.body) }

// call asks the admin API about the machine.
func (s *sleeper) call(ctx context.Context, method, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.admin+"/v1/tenants/"+benchTenant+"/machine"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &statusError{resp.StatusCode, string(body)}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

// startSleeper starts a Postern of the row's own; its machine was never awake.
func (r *rig) startSleeper() (*sleeper, error) {
	dir, err := r.instanceDir("sleeper")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	adminPort, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &sleeper{admin: fmt.Sprintf("http://%s:%d", loopback, adminPort), token: rand.Text(),
		pidfile: filepath.Join(dir, "machines", benchTenant, "data", "postmaster.pid")}
	config := filepath.Join(dir, "postern.yaml")
	for path, content := range map[string]string{
		config: fmt.Sprintf(`listeners: [{name: bench, address: "%[1]s:%[2]d", pool_mode: transaction, proxy_protocol: "off"}]
auth: {mock_secret_file: %[3]s/mock.key}
admin: {address: "%[1]s:%[4]d", token_file: %[3]s/admin.token}
tenants: {file: %[3]s/tenants.yaml}
machines: {local: {dir: %[3]s/machines}}
timeouts: {drain: 1s}
`, loopback, port, dir, adminPort),
		filepath.Join(dir, "tenants.yaml"): fmt.Sprintf(`tenants:
  - id: %[1]s
    machine: {provider: local, name: %[1]s, suspend_after: 0s}
    database: %[2]s
    users: [{name: %[3]s, verifier: %[4]q}]
    pool: {size: %[5]d, max_clients: %[6]d, max_servers: %[5]d}
`, benchTenant, benchDatabase, benchRole, r.pg.verifier, poolSize, maxClients),
		filepath.Join(dir, "admin.token"): s.token + "\n",
		filepath.Join(dir, "mock.key"):    rand.Text() + rand.Text() + "\n",
	} {
		if err := r.as.write(path, content); err != nil {
			return nil, err
		}
	}
	proc, err := start("sleeper", filepath.Join(r.dir, filepath.Base(dir)+".log"), r.as, r.programs.postern, "serve", "--config", config)
	if err != nil {
		return nil, err
	}
	s.target = target{name: postern, host: loopback, port: port, user: benchRole + "." + benchTenant, proc: proc}
	return s, nil
}
