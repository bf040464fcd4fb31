// The demo's machines: interrupted in every state, and what is told of them.

package main

import (
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/machines"
)

// A demo that is told to end, and to hurry, while a machine is made for a client tells the client and leaves nothing.
func TestDemoInterruptedWhileWaking(t *testing.T) {
	late := make(chan os.Signal, 1)
	signal.Notify(late, syscall.SIGINT) // the second one would end the test if the demo were over by then
	defer signal.Stop(late)
	b := startCommand(t.Context(), "demo")
	b.stdout.wait(t, "Press Ctrl-C", 1)
	folder := demoFolderOf(t, b.stdout.String())
	uri := regexp.MustCompile(`psql '(.*)'`).FindStringSubmatch(b.stdout.String())[1]
	told := make(chan error, 1)
	go func() {
		v, err := enter(t.Context(), uri)
		if err == nil {
			v.leave(t.Context())
		}
		told <- err
	}()
	err := until(t.Context(), func() (bool, error) {
		return strings.Contains(strings.Join(processesIn(t, folder), "\n"), "initdb"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	signalSelf(t, syscall.SIGINT)
	address := regexp.MustCompile(`@(\S*)/`).FindStringSubmatch(uri)[1]
	err = until(t.Context(), func() (bool, error) { // it drains: the first one has arrived
		conn, err := net.Dial("tcp4", address)
		if err == nil {
			conn.Close()
		}
		return err != nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	signalSelf(t, syscall.SIGINT)
	if err := <-told; err == nil || !strings.Contains(err.Error(), "57P01") {
		t.Errorf("the client was told: %v", err)
	}
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	wantNothingLeft(t, folder)
}

// A demo that is interrupted while a machine is frozen leaves nothing, either.
func TestDemoInterruptedWhileFrozen(t *testing.T) {
	b := startCommand(t.Context(), "demo")
	b.stdout.wait(t, "Press Ctrl-C", 1)
	said := b.stdout.String()
	folder := demoFolderOf(t, said)
	uri := regexp.MustCompile(`psql '(.*app\.globex.*)'`).FindStringSubmatch(said)[1]
	v, err := enter(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	defer v.leave(t.Context())
	if err := v.wants(t.Context(), "show cluster_name", "globex"); err != nil {
		t.Fatal(err)
	}
	api := regexp.MustCompile(`(http://\S*)/acme/machine`).FindStringSubmatch(said)[1]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+"/globex/machine/suspend", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+regexp.MustCompile(`Bearer (\w+)`).FindStringSubmatch(said)[1])
	err = until(t.Context(), func() (bool, error) { // its connection may be cleaned up yet
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			return false, err
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusAccepted, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.stdout.wait(t, "globex went to sleep (operator)", 1)
	if n := len(processesIn(t, folder)); n == 0 {
		t.Fatal("its processes are gone")
	}
	signalSelf(t, syscall.SIGINT)
	if code := b.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	wantNothingLeft(t, folder)
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
