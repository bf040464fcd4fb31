// Tests of the server: its bounds and its end.

package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// serve starts a Server on a free port, and returns its address and what stops it, which returns Serve's result.
func serve(t *testing.T, opts Options) (address string, stop func() error) {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	return ln.Addr().String(), func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(2 * stopTimeout):
			t.Fatal("Serve does not return")
			return nil
		}
	}
}

func TestServeAndStop(t *testing.T) {
	defer goleak.VerifyNone(t)
	address, stop := serve(t, Options{Gatherer: prometheus.NewRegistry()})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusOK || string(body) != "ok\n" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	// An idle connection, kept open, must not delay the end.
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if c, err := net.Dial("tcp4", address); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

// TestStopLetsRequestsFinish stops while a scrape is being collected.
func TestStopLetsRequestsFinish(t *testing.T) {
	defer goleak.VerifyNone(t)
	entered, proceed := make(chan struct{}), make(chan struct{})
	address, stop := serve(t, Options{MetricsPublic: true, Gatherer: gatherer(func() { close(entered); <-proceed })})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answered := make(chan error, 1)
	go func() {
		res, err := client.Get("http://" + address + "/metrics")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				err = errors.New(res.Status)
			}
		}
		answered <- err
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until the listener is closed, which is the first thing that stopping does
		c, err := net.Dial("tcp4", address)
		if err != nil {
			break
		}
		c.Close()
	}
	close(proceed)
	if err := <-answered; err != nil {
		t.Errorf("the running request: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := New(Options{Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestConnectionsAreBounded opens one connection too many, and then proves that closing one makes room.
func TestConnectionsAreBounded(t *testing.T) {
	defer goleak.VerifyNone(t)
	address, stop := serve(t, Options{Gatherer: prometheus.NewRegistry()})
	// ask sends a request over its own connection and keeps that open.
	ask := func() (net.Conn, error) {
		c, err := net.Dial("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
		answer := make([]byte, len("HTTP/1.1 200"))
		_, err = io.ReadFull(c, answer)
		return c, err
	}
	var open []net.Conn
	for range defaultMaxConns {
		c, err := ask()
		if err != nil {
			t.Fatalf("connection %d: %v", len(open), err)
		}
		open = append(open, c)
	}
	c, err := ask()
	c.Close()
	if err == nil {
		t.Error("one connection too many was served")
	}
	open[0].Close()
	for deadline := time.Now().Add(2 * time.Minute); ; { // the server needs a moment to see the end
		c, err := ask()
		c.Close()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Error("no room after a connection was closed")
			break
		}
	}
	for _, c := range open {
		c.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestHeaderIsBounded(t *testing.T) {
	address, stop := serve(t, Options{Gatherer: prometheus.NewRegistry()})
	defer stop()
	req, _ := http.NewRequest("GET", "http://"+address+"/healthz", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxHeader))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", res.Status)
	}
}

// TestParallelScrapesAreBounded lets 100 scrapes come while the first is being collected: a few wait for it, the others are
// told to come again, and there was one collection.
func TestParallelScrapesAreBounded(t *testing.T) {
	defer goleak.VerifyNone(t)
	const scrapes = 100
	var collections int // by one collection at a time
	proceed := make(chan struct{})
	s, err := New(Options{MetricsPublic: true, Gatherer: gatherer(func() { collections++; <-proceed })})
	if err != nil {
		t.Fatal(err)
	}
	codes := make(chan int, scrapes)
	var all sync.WaitGroup
	for range scrapes {
		all.Go(func() { codes <- get(s, "/metrics", "").Code })
	}
	count := make(map[int]int)
	for range scrapes - maxScrape { // those that get no place are answered while the others wait
		count[<-codes]++
	}
	close(proceed)
	all.Wait()
	close(codes)
	for code := range codes {
		count[code]++
	}
	if count[http.StatusOK] != maxScrape || count[http.StatusServiceUnavailable] != scrapes-maxScrape {
		t.Errorf("got %v, want %d served", count, maxScrape)
	}
	if collections > maxScrape {
		t.Errorf("%d collections", collections)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no Gatherer: no error")
	}
	if _, err := New(Options{Gatherer: prometheus.NewRegistry(), TokenFile: t.TempDir() + "/none"}); err == nil {
		t.Error("no token file: no error")
	}
}

// logger returns a logger and what it wrote so far.
func logger() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), &b
}
