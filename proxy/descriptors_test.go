// How few files are shared among sockets, and that it follows the tenants.

package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRoom(t *testing.T) {
	want := Room{Clients: 100_000, Handshakes: 1000, Servers: 60, Cancels: 256, Admin: 256}
	for _, c := range []struct {
		name       string
		want       Room
		files, own int
		got        Room
	}{
		{"enough", want, 1 << 20, 100, want},
		{"just enough", want, 100 + 101_572, 100, want},
		{"one too few", want, 100 + 101_571, 100, Room{Clients: 99_999, Handshakes: 1000, Servers: 60, Cancels: 256, Admin: 256}},
		{"few", want, 256, 80, Room{Clients: 72, Handshakes: 22, Servers: 60, Cancels: 11, Admin: 11}},
		{"many servers", Room{Clients: 100_000, Handshakes: 1000, Servers: 60_000, Cancels: 256, Admin: 256}, 65_536, 536,
			Room{Clients: 31_744, Handshakes: 1000, Servers: 31_744, Cancels: 256, Admin: 256}},
		{"few clients", Room{Clients: 10, Handshakes: 1000, Servers: 60, Cancels: 256, Admin: 256}, 256, 80,
			Room{Clients: 10, Handshakes: 22, Servers: 60, Cancels: 11, Admin: 11}},
		{"hardly any", want, 64, 80, Room{Clients: 12, Handshakes: 4, Servers: 12, Cancels: 2, Admin: 2}},
	} {
		if got := c.want.within(c.files, c.own); got != c.got {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.got)
		}
	}
}

// TestRoomFits: nothing is more than was wanted, nothing is none, and all of it fits.
func TestRoomFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string) int { return rapid.IntRange(2, 200_000).Draw(t, name) }
		want := Room{n("clients"), n("handshakes"), n("servers"), n("cancels"), n("admin")}
		files, own := rapid.IntRange(64, 300_000).Draw(t, "files"), rapid.IntRange(10, 200).Draw(t, "own")
		got := want.within(files, own)
		for _, pair := range [][2]int{{got.Clients, want.Clients}, {got.Handshakes, want.Handshakes}, {got.Servers, want.Servers}, {got.Cancels, want.Cancels}, {got.Admin, want.Admin}} {
			if pair[0] < 2 || pair[0] > pair[1] {
				t.Fatalf("%+v of %+v", got, want)
			}
		}
		if got.total() > files-min(own, files/2) {
			t.Fatalf("%+v is more than %d", got, files)
		}
	})
}

// TestRoomFollowsTenants: more tenants may want more servers, for which clients make room, and that is said.
func TestRoomFollowsTenants(t *testing.T) {
	var said bytes.Buffer
	g := &Gate{opts: Options{OpenFiles: 1000, Limits: Limits{Clients: 700, Handshakes: 10}}, log: slog.New(slog.NewTextHandler(&said, nil)), ctx: t.Context()}
	const own = spareFiles
	for _, c := range []struct{ tenants, clients, lines int }{
		{1, 700, 0}, {6, 510, 1}, {6, 510, 0}, {100, 405, 1}, {1, 700, 0},
	} {
		said.Reset()
		g.limited = newLimitedLog()
		g.serversWanted.Store(int64(50 * c.tenants))
		room := g.makeRoom()
		if int(g.admits.Load()) != c.clients || room.Clients != c.clients || room.Clients+room.Servers > 1000-own {
			t.Errorf("%d tenants: %+v, want %d clients", c.tenants, room, c.clients)
		}
		if n := strings.Count(said.String(), "\n"); n != c.lines {
			t.Errorf("%d tenants: %d lines: %s", c.tenants, n, &said)
		}
	}
	g.opts.OpenFiles = 0
	g.serversWanted.Store(5000)
	if room := g.makeRoom(); g.admits.Load() != 700 || room.Clients != 700 {
		t.Errorf("any number of files: %+v", room)
	}
}
