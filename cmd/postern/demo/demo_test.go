// The parts of the demo that need no gate. The whole of it runs in the tests of the command.

package demo

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	goproxy "github.com/pires/go-proxyproto"
	"go.uber.org/goleak"

	"github.com/postern/postern/machines"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Steps that fail say so, all of them, and the visit fails.
func TestVisitFails(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	ln.Close()
	sc := &scene{allowed: closed, refused: closed, admin: closed, ca: "none.crt", passwords: map[string]string{"acme": "a", "globex": "b"},
		listeners: map[string]string{listenerTransaction: closed, listenerSession: closed}}
	var out bytes.Buffer
	if err := sc.visit(t.Context(), &out); err == nil || !strings.Contains(err.Error(), "14 of the visit's 14 steps failed") {
		t.Errorf("got %v", err)
	}
	if n := strings.Count(out.String(), "FAILED "); n != 14 {
		t.Errorf("%d failures told:\n%s", n, &out)
	}
}

// A relay's target learns the source from the header, and bytes and ends pass in both directions.
func TestRelay(t *testing.T) {
	target, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	r, err := newRelay("127.0.0.1:0", "203.0.113.7")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var side sync.WaitGroup
	side.Go(func() { r.serve(ctx, target.Addr().String(), slog.New(slog.DiscardHandler)) })

	client, err := net.DialTimeout("tcp4", r.ln.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	if _, err := client.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	_ = client.(*net.TCPConn).CloseWrite()

	server, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(server)
	header, err := goproxy.Read(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := header.SourceAddr.(*net.TCPAddr).IP.String(); got != "203.0.113.7" {
		t.Errorf("the client is %s", got)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the client's end was not passed on")
	}
	_, _ = server.Write([]byte("bye\n"))
	server.Close()
	if line, err := bufio.NewReader(client).ReadString('\n'); err != nil || line != "bye\n" {
		t.Errorf("read %q, %v", line, err)
	}

	// The end of the context ends everything, open connections too.
	open, err := net.DialTimeout("tcp4", r.ln.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	last, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	cancel()
	side.Wait()
}

func TestRelayNeedsAnAddress(t *testing.T) {
	if _, err := newRelay("127.0.0.1:0", "not an address"); err == nil {
		t.Error("made a relay without a source")
	}
}

func TestMachineNews(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	outcome := func(second int, reason, result string) machines.Outcome {
		return machines.Outcome{At: at.Add(time.Duration(second) * time.Second), Reason: reason, Result: result, Took: 410 * time.Millisecond}
	}
	woke, slept := outcome(1, "client", "ok"), outcome(2, "idle", "ok")
	for name, c := range map[string]struct {
		old, now told
		want     string
	}{
		"nothing":        {told{woke, slept}, told{woke, slept}, ""},
		"a wake":         {told{}, told{wake: woke}, "woke up in 0.41 s (client)"},
		"a sleep":        {told{wake: woke}, told{woke, slept}, "went to sleep (idle)"},
		"both":           {told{}, told{woke, slept}, "woke up in 0.41 s (client); went to sleep (idle)"},
		"in their order": {told{}, told{outcome(3, "client", "ok"), slept}, "went to sleep (idle); woke up in 0.41 s (client)"},
		"no wake":        {told{woke, slept}, told{outcome(3, "client", "slow"), slept}, "did not wake up: slow after 0.41 s (client)"},
		"no sleep":       {told{wake: woke}, told{woke, outcome(2, "idle", "cancelled")}, "did not go to sleep: cancelled (idle)"},
	} {
		if got := strings.Join(c.old.news(c.now), "; "); got != c.want {
			t.Errorf("%s: told %q, want %q", name, got, c.want)
		}
	}
}

func TestCounts(t *testing.T) {
	metrics := "a{b=\"c\"} 2\nab 3\nbroken x\n"
	for _, c := range []struct {
		count
		line string
		ok   bool
	}{
		{count{`a{b="c"}`, 2, false}, `a{b="c"} 2`, true},
		{count{`a{b="c"}`, 1, false}, `a{b="c"} 2`, false},
		{count{`a{b="c"}`, 1, true}, `a{b="c"} 2`, true},
		{count{`a{b="c"}`, 3, true}, `a{b="c"} 2`, false},
		{count{"ab", 3, false}, "ab 3", true},
		{count{"b", 0, true}, "b ", false},
		{count{"broken", 0, true}, "broken x", false},
	} {
		if line, ok := c.find(metrics); line != c.line || ok != c.ok {
			t.Errorf("%+v: %q, %v", c.count, line, ok)
		}
	}
}
