// Clients that another node has passed on: each is judged as what comes to the listener, or the node hears why it is not taken.

package proxy

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
)

// TestServePassed: what another node passes on is judged as what comes to the listener, by the address that the node says.
func TestServePassed(t *testing.T) {
	peer := func(client string) []byte {
		h, err := proxyproto.Header(proxyproto.Direct(netip.MustParseAddrPort(client)), "plain")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, c := range map[string]struct {
		first  []byte
		says   string
		hears  string // the answer to the node, and the words of spell
		reason string
	}{
		"one who may":           {peer("198.51.100.7:4"), hello("user", "app.picky"), "K R", ""},
		"one who may not":       {peer("203.0.113.7:4"), hello("user", "app.picky"), "K E28000", "address"},
		"another family":        {peer("[2001:db8::7]:4"), hello("user", "app.picky"), "K E28000", "address"},
		"nothing of a client":   {peer("198.51.100.7:4"), "", "K ", ""},
		"garbage of a client":   {peer("198.51.100.7:4"), "GET / HTTP/1.1\r\n\r\n", "K ", "startup"},
		"no TLS":                {peer("198.51.100.7:4"), packet(pgwire.CodeSSL, ""), "K N", ""},
		"garbage for a header":  {[]byte("GET / HTTP/1.1\r\n\r\n"), "", "", "proxy_header"},
		"a header of version 1": {[]byte("PROXY TCP4 198.51.100.7 192.0.2.1 40000 5432\r\n"), hello("user", "app.acme"), "", "proxy_header"},
		"no header":             {nil, hello("user", "app.acme"), "", "proxy_header"},
	} {
		t.Run(name, func(t *testing.T) {
			d := resident(t, nil)
			near, far := sockets(t)
			go func() {
				d.gate.Serve(t.Context(), "a", &lane{far, make(chan struct{})})
				far.Close()
			}()
			_, _ = near.Write(append(c.first, c.says...))
			_ = near.CloseWrite()
			heard, _ := io.ReadAll(near)
			got := ""
			if len(heard) > 0 {
				got = string(heard[0]) + " " + spell(heard[1:])
			}
			if got != c.hears {
				t.Errorf("heard %q, want %q", got, c.hears)
			}
			want := map[string]int{}
			if c.reason != "" {
				want[c.reason] = 1
			}
			eventually(t, fmt.Sprint("counted are ", want), func() bool { return fmt.Sprint(d.refusals()) == fmt.Sprint(want) })
		})
	}
}

// TestServeTakesNone for a listener that it does not have, while it drains, and when there is no room: the other node is told which.
func TestServeTakesNone(t *testing.T) {
	d := resident(t, nil)
	ask := func(listener string) string {
		near, far := sockets(t)
		go func() {
			d.gate.Serve(t.Context(), "a", &lane{far, make(chan struct{})})
			far.Close()
		}()
		header, err := proxyproto.Header(proxyproto.Direct(netip.MustParseAddrPort("198.51.100.7:4")), listener)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = near.Write(append(header, hello("user", "app.acme")...))
		answer := make([]byte, 1)
		read(near, answer)
		return string(answer)
	}
	if got := ask("plain"); got != string(rune(answerServed)) {
		t.Errorf("one that may come: %q", got)
	}
	if got := ask("elsewhere"); got != string(rune(answerUnknown)) {
		t.Errorf("another listener: %q", got)
	}
	for range cap(d.gate.handshakes) {
		select {
		case d.gate.handshakes <- struct{}{}:
		default:
		}
	}
	if got := ask("plain"); got != string(rune(answerBusy)) {
		t.Errorf("no room: %q", got)
	}
	d.gate.draining.Store(true)
	if got := ask("plain"); got != string(rune(answerDraining)) {
		t.Errorf("it drains: %q", got)
	}
	d.gate.draining.Store(false)
}
