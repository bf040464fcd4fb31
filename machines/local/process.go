// The life of the postgres process.

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// A Mode is how a server is asked to stop.
type Mode string

const (
	Fast      Mode = "fast"      // ends sessions, writes a checkpoint
	Immediate Mode = "immediate" // like a crash: the next start recovers
)

const (
	startLimit     = time.Minute      // a start that takes longer has failed
	fastLimit      = 30 * time.Second // then a fast stop becomes an immediate one
	immediateLimit = 5 * time.Second  // then it is killed
	portTries      = 5                // free ports that somebody else took before the server could
	orphanPause    = 100 * time.Millisecond
)

// process is one run of the server. done is closed after it was reaped; err may be read then.
type process struct {
	pid  int
	done chan struct{}
	err  error
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Start starts the server and returns when it has answered a query. Starting a running server does nothing, but that a
// frozen one is thawed. After an error no process is left.
func (c *Cluster) Start(ctx context.Context) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.Frozen() || c.froze() { // the latter alone: the frozen server was killed
		c.thaw()
	}
	if c.Running() {
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for try := 1; ; try++ {
		err := c.startOnce(ctx)
		if err == nil {
			c.opts.Log.Info("PostgreSQL started", "dir", c.opts.Dir, "port", c.Port(), "pid", c.PID(), "seconds", time.Since(began).Seconds())
			return nil
		}
		again := errors.Is(err, errPortTaken) && c.opts.Port == 0 && try < portTries
		if errors.Is(err, errOldServer) {
			thawStrays(c.path(dataName))
			again = pause(ctx, orphanPause) == nil
		}
		if !again {
			return fmt.Errorf("start of %v: %w", c, err)
		}
	}
}

var (
	errPortTaken = errors.New("the port is in use")
	errOldServer = errors.New("processes of an earlier server have not ended yet")
)

// pause waits for d, or less when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Cluster) startOnce(ctx context.Context) error {
	port, err := c.choosePort()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.LogPath(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := c.command("postgres", "-D", c.path(dataName), "-p", strconv.Itoa(port))
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := run(cmd)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.port, c.proc = port, proc
	c.mu.Unlock()

	err = c.waitReady(ctx, proc)
	if err == nil {
		return nil
	}
	c.end(ctx, proc, Immediate)
	said, _ := io.ReadAll(io.NewSectionReader(log, from, 16<<10))
	switch {
	case bytes.Contains(said, []byte("Address already in use")):
		err = fmt.Errorf("%w: %w", errPortTaken, err)
	case bytes.Contains(said, []byte("pre-existing shared memory block")), // its backends
		bytes.Contains(said, []byte(`lock file "postmaster.pid" already exists`)): // it shuts down, its owner being dead
		err = fmt.Errorf("%w: %w", errOldServer, err)
	}
	return fmt.Errorf("%w; it said: %s", err, bytes.TrimSpace(said))
}

// choosePort keeps the port of the last start if it is free still, so that who knew it finds the server again.
func (c *Cluster) choosePort() (int, error) {
	if c.opts.Port != 0 {
		return c.opts.Port, nil
	}
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port())))
	if err != nil {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// run starts cmd on a goroutine that keeps its thread until the child has ended: the kernel's parent-death signal is tied to
// the thread that forked, and the runtime may end a thread that it no longer needs.
func run(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, <-started
}

// runLocked runs cmd to its end, or kills it when ctx ends.
func runLocked(ctx context.Context, cmd *exec.Cmd) error {
	p, err := run(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
		return context.Cause(ctx)
	}
}

// waitReady polls with a real query until the server answers, has ended, or ctx has. An answer from anybody else on the port is no
// answer: only our server knows the password.
func (c *Cluster) waitReady(ctx context.Context, proc *process) error {
	// The end of the server ends a query, too: whoever else listens on the port may never answer.
	query, cancel := context.WithCancel(ctx)
	watch := make(chan struct{})
	defer func() { cancel(); <-watch }()
	go func() {
		defer close(watch)
		select {
		case <-proc.done:
			cancel()
		case <-query.Done():
		}
	}()
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 10*time.Millisecond, 200*time.Millisecond
	for {
		err := c.Exec(query, "postgres", "select 1")
		if err == nil {
			return nil
		}
		timer := time.NewTimer(delay.NextBackOff())
		select {
		case <-timer.C:
		case <-proc.done:
			timer.Stop()
			return fmt.Errorf("the server ended while starting: %w", proc.err)
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("not ready: %w; last: %w", context.Cause(ctx), err)
		}
	}
}

// Stop stops the server and returns when its process is gone. When ctx ends or the server takes too long, a fast stop
// becomes an immediate one, and then a kill; only then is there an error. Stopping a stopped server does nothing; a frozen
// one is thawed first.
func (c *Cluster) Stop(ctx context.Context, mode Mode) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.mu.Lock()
	proc := c.proc
	c.mu.Unlock()
	if c.froze() {
		c.thaw()
	}
	if !proc.running() {
		return nil
	}
	began := time.Now()
	how := c.end(ctx, proc, mode)
	c.opts.Log.Info("PostgreSQL stopped", "dir", c.opts.Dir, "mode", string(mode), "how", how, "seconds", time.Since(began).Seconds())
	if how == killed {
		return fmt.Errorf("%v did not stop and was killed", c)
	}
	return nil
}

const killed = "killed"

// end asks ever less politely until the process is gone, and tells what it took.
func (c *Cluster) end(ctx context.Context, proc *process, mode Mode) (how string) {
	steps := []struct {
		how    string
		signal syscall.Signal
		limit  time.Duration
		until  <-chan struct{} // does not wait any longer
	}{
		{string(Fast), syscall.SIGINT, fastLimit, ctx.Done()},
		{string(Immediate), syscall.SIGQUIT, immediateLimit, nil}, // short, so a context that has ended may not shorten it
	}
	if mode == Immediate {
		steps = steps[1:]
	}
	for _, s := range steps {
		// Reaping happens on another goroutine, but a pid that was reaped is not signalled: done is closed right after,
		// and a pid is not given out again that soon.
		_ = syscall.Kill(proc.pid, s.signal)
		timer := time.NewTimer(s.limit)
		select {
		case <-proc.done:
			timer.Stop()
			return s.how
		case <-timer.C:
		case <-s.until:
			timer.Stop()
		}
	}
	_ = syscall.Kill(-proc.pid, syscall.SIGKILL) // its children see that it died and end themselves
	<-proc.done
	thawStrays(c.path(dataName)) // if they can
	return killed
}

// Running tells whether there is a process.
func (c *Cluster) Running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc.running()
}

// PID is the process id of the running server, 0 when there is none.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proc.running() {
		return 0
	}
	return c.proc.pid
}

// Port is the TCP port of the last start; before the first, the one of Options.
func (c *Cluster) Port() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.port == 0 {
		return c.opts.Port
	}
	return c.port
}

// Addr is where the server listens, as host:port.
func (c *Cluster) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port())) }
