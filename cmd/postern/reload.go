// Reading files again while serving: when they change, by signal, and by the console.

package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/files"
)

// readingEnds is how long the end of the process waits for who reads files: one that hangs cannot be interrupted.
const readingEnds = 2 * time.Second

func awaitBriefly(reading *sync.WaitGroup, log *slog.Logger) {
	ended := make(chan struct{})
	go func() {
		reading.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(readingEnds):
		log.Warn("files are still being read: not waited for")
	}
}

var errEnding = errors.New("the process is shutting down")

// reload has tenants and certificates read again, and says how that went. It may take as long as their file systems.
func (p *process) reload() error {
	outcome := make(chan error, 1)
	select {
	case p.reloads <- outcome:
	case <-p.ending:
		return errEnding
	}
	select {
	case err := <-outcome:
		return err
	case <-p.ending:
		return errEnding
	}
}

// reloadWhenAsked reads everything again at each SIGHUP and each call of reload, until ctx ends or the process does.
func (p *process) reloadWhenAsked(ctx context.Context, log *slog.Logger) {
	lane := files.NewLane()
	again := func() error {
		_ = p.compareConfig(lane, log) // which has no part in the outcome: nothing of it is applied
		err := p.store.Reload()
		p.drivers.again(p.directory)
		return errors.Join(err, p.cluster.reload(), p.reloadCertificates(log))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.ending:
			return
		case <-p.hups:
			_ = again() // each part logs and counts how it went
		case outcome := <-p.reloads:
			outcome <- again()
		}
	}
}

// reloadCertificates keeps what it had where it cannot read something.
func (p *process) reloadCertificates(log *slog.Logger) error {
	if p.certs == nil {
		return nil
	}
	if err := p.certs.reload(); err != nil {
		p.tlsFailed.Add(1)
		log.Error("certificates not reloaded: the old ones stay", "error", err)
		return err
	}
	p.tlsOK.Add(1)
	log.Info("certificates reloaded")
	return nil
}

// compareConfig reads the process's own configuration and says what of it needs a restart. It applies nothing.
func (p *process) compareConfig(lane *files.Lane, log *slog.Logger) error {
	if p.path == "" {
		return nil
	}
	now, err := files.Do(lane, "reading "+p.path, func() (*configs.Config, error) { return configs.Load(p.path) })
	if err != nil {
		log.Error("the configuration has changed and cannot be used: what runs stays as it is", "error", err)
		return err
	}
	if keys := configs.Diff(p.conf, now); len(keys) > 0 {
		log.Warn("the configuration has changed: what runs stays as it is until a restart", "keys", keys)
	}
	return nil
}

// watch has what changes on disk read again, until ctx ends.
func (p *process) watch(ctx context.Context, log *slog.Logger) {
	var all sync.WaitGroup
	defer all.Wait()
	watch := func(w files.Watch) { all.Go(func() { w.Run(ctx) }) }
	if p.certs != nil {
		watch(files.Watch{What: "certificates", Paths: p.certs.paths, Log: log,
			Changed: func() error { return p.reloadCertificates(log) }})
	}
	if p.path != "" {
		lane := files.NewLane()
		watch(files.Watch{What: "configuration", Paths: func() []string { return []string{p.path} }, Log: log,
			Changed: func() error { return p.compareConfig(lane, log) }})
	}
	p.store.Watch(ctx)
}
