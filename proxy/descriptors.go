// How the files that a process may have open are shared among sockets: what strangers and clients may hold is bounded so that
// servers, cancels and the admin endpoint have theirs.

package proxy

import "log/slog"

const (
	// spareFiles are kept aside for what is not counted: standard streams, files and folders that are read and watched, logs,
	// calls of a provider of machines, sockets that are being closed.
	spareFiles = 64
	// loopFiles are those of an event loop: its poller, its alarm, its ring.
	loopFiles = 4
	// maxAdmin bounds the connections of the admin endpoint.
	maxAdmin = 256
)

// Room is how many sockets of each kind there may be at a time.
type Room struct {
	Clients    int // logged in
	Handshakes int // not yet
	Servers    int // expected at most; not a limit of its own
	Cancels    int // on their way to servers
	Admin      int // connections of the admin endpoint
}

func (r Room) total() int { return r.Clients + r.Handshakes + r.Servers + r.Cancels + r.Admin }

// within fits the room into what a process with so many files of its own may have open. What is asked by strangers and operators is
// cut to small shares; clients and the servers that they want are cut last, to even parts.
func (r Room) within(files, own int) Room {
	own = min(own, files/2)
	files -= own
	if r.total() <= files {
		return r
	}
	share := func(want, part int) int { return max(2, min(want, files/part)) }
	r.Handshakes, r.Admin, r.Cancels = share(r.Handshakes, 8), share(r.Admin, 16), share(r.Cancels, 16)
	both := files - r.Handshakes - r.Admin - r.Cancels
	r.Servers = min(r.Servers, both/2)
	r.Clients = max(2, min(r.Clients, both-r.Servers))
	return r
}

// roomWanted is what the limits of the configuration and of the tenants come to.
func (g *Gate) roomWanted() Room {
	return Room{Clients: g.opts.Limits.Clients, Handshakes: g.opts.Limits.Handshakes, Servers: int(g.serversWanted.Load()), Cancels: maxCancels, Admin: maxAdmin}
}

// makeRoom fits limits into the files that may be open, and says so if fewer clients are let in than before. Tenants come and
// go, and with them servers; what else there is room for does not change.
func (g *Gate) makeRoom() Room {
	want := g.roomWanted()
	room := want
	if files := g.opts.OpenFiles; files > 0 {
		own := spareFiles + loopFiles*g.opts.Loops + len(g.opts.Listeners)
		room = want.within(files, own)
		if old := g.admits.Swap(int64(room.Clients)); room.Clients < want.Clients && room.Clients != int(old) {
			g.limited.log(g.log, slog.LevelWarn, logKey{"", "room"}, "few files may be open: fewer clients are let in than limits say", "open_files", files, "enough", own+want.total(),
				"clients", room.Clients, "limits.clients", want.Clients, "handshakes", room.Handshakes, "limits.handshakes", want.Handshakes)
		}
	} else {
		g.admits.Store(int64(room.Clients))
	}
	return room
}

// AdminRoom is how many connections the admin endpoint may have.
func (g *Gate) AdminRoom() int { return g.room.Admin }
