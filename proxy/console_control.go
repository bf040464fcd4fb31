// What the console's commands do to tenants.

package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/console"
)

// consoleGate is the gate as one session of the console sees it.
type consoleGate struct {
	gate    *Gate
	session *consoleSession
}

// Do implements console.Gate. Nothing here wakes a machine, except that clients
// which have waited for RESUME do.
func (v *consoleGate) Do(c console.Command) error {
	v.session.log.Info("console command", "command", c.Verb, "argument", clip(c.Arg))
	switch c.Verb {
	case console.Reload:
		if err := v.gate.opts.Console.Reload(); err != nil {
			return consoleError("F0000", "RELOAD failed, see logs for additional details", "")
		}
		return nil
	case console.Shutdown:
		return v.shutdown(c.Arg)
	case console.KillClient:
		return v.killClient(c.Arg)
	case console.ClearBan:
		return v.gate.clearBan(c.Arg)
	case console.Pause, console.Resume:
		if c.Arg == "" && c.Verb == console.Pause {
			return v.pauseAll()
		} else if c.Arg == "" {
			return v.resumeAll()
		}
	}
	if c.Arg != "" {
		if err := v.known(c); err != nil {
			return err
		}
	}
	switch c.Verb {
	case console.Pause:
		return v.pause(c.Arg)
	case console.Resume:
		return v.resume(c.Arg)
	case console.Kill:
		return v.kill(c.Arg)
	case console.Disable, console.Enable:
		return v.disable(c.Arg, c.Verb == console.Disable)
	case console.Reconnect:
		v.gate.reconnect(c.Arg)
		_, silent := v.gate.order(Order{Do: DoReconnect, Tenant: c.Arg})
		return unheard(silent...)
	case console.WaitClose:
		return v.overEverywhere(c.Arg, (*tenant).closing, DoClose, nil)
	}
	return fmt.Errorf("console: no such command")
}

// known fails unless the argument is a tenant's id.
func (v *consoleGate) known(c console.Command) error {
	if isConsole(c.Arg) {
		return consoleError("42809", "cannot "+strings.ToLower(c.Verb)+" admin db: "+c.Arg, "")
	}
	if _, ok := v.gate.opts.Directory.Tenant(c.Arg); ok {
		return nil
	}
	hint := "SHOW TENANTS lists them."
	if tenant, _, ok := strings.Cut(c.Arg, "/"); ok {
		hint = "Commands are for all databases of a tenant: " + c.Verb + " " + clip(tenant)
	}
	return consoleError("3D000", "no such database: "+clip(c.Arg), hint)
}

// inUse are the tenants that a command is for, those without a run-time side left out.
func (g *Gate) inUse(id string) []*tenant {
	return slices.DeleteFunc(g.runtimeTenants(), func(t *tenant) bool { return id != "" && t.id != id })
}

// still are the tenants of which busy says yes.
func still(list []*tenant, busy func(*tenant) bool) []*tenant {
	return slices.DeleteFunc(list, func(t *tenant) bool {
		is := false
		t.call(func() { is = busy(t) })
		return !is
	})
}

func (c *consoles) disable(tenant string, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is {
		c.disabled[tenant] = true
	} else {
		delete(c.disabled, tenant)
	}
}

// reconnect has the server connections of a tenant, or of all, replaced.
func (g *Gate) reconnect(id string) {
	for _, t := range g.inUse(id) {
		t.call(t.reconnect)
	}
}

// reconnect has every server connection replaced, those in use when they are released.
func (t *tenant) reconnect() {
	t.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("reconnect") })
	t.dialMore()
}

// closing reports whether there is a server that is to be replaced, those included that were closed here and have not ended yet.
func (t *tenant) closing() bool {
	for _, all := range []map[*server]struct{}{t.servers, t.parting} {
		for s := range all {
			if s.books.Retired() {
				return true
			}
		}
	}
	return false
}

// killClient ends the session with the id that SHOW CLIENTS gives, on whatever node that is.
func (v *consoleGate) killClient(arg string) error {
	id, err := strconv.ParseUint(arg, 10, 63)
	if err != nil {
		return consoleError("22023", "invalid client id supplied", "SHOW CLIENTS gives it as id.")
	}
	if v.gate.killClient(id) > 0 {
		return nil
	}
	switch n, silent := v.gate.order(Order{Do: DoKillClient, Client: id}); {
	case n > 0:
		return nil
	case len(silent) > 0:
		return unheardOf(silent, "No other node has this client. Try again when they answer, or on them.")
	}
	return consoleError("22023", "client not found", "SHOW CLIENTS gives the id.")
}

// killClient ends the session with the id, and counts 1 if it is here.
func (g *Gate) killClient(id uint64) (n int) {
	if g.replicas.kill(id) {
		return 1
	}
	g.eachTenant(func(t *tenant) {
		if c := t.session(id); c != nil {
			c.revoke(errKilled, "killed")
			n = 1
		}
	})
	return n
}

// firstClientID is where a node of a cluster begins to count its clients: no other node has the numbers that follow, so a command that
// meets another node than its client ends no other one.
func firstClientID() uint64 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return uint64(binary.BigEndian.Uint32(b[:])>>1) << 32
}

// session finds a client by its id. On its loop.
func (t *tenant) session(id uint64) *client {
	for _, c := range t.clients {
		if c.id == id && !c.gone() {
			return c
		}
	}
	return nil
}

// kill ends the replication session with this id, if there is one.
func (l *replicas) kill(id uint64) (found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, of := range l.byTenant {
		for r := range of {
			if r.id == id {
				r.end(&ending{"killed", errKilled})
				found = true
			}
		}
	}
	return found
}

// shutdown begins to drain the process. The console stays until all is closed.
func (v *consoleGate) shutdown(how string) error {
	switch strings.ToUpper(how) {
	case "", "WAIT_FOR_SERVERS": // which is what a drain is
		v.gate.opts.Console.Shutdown()
		return nil
	case "WAIT_FOR_CLIENTS":
		return consoleError("0A000", "SHUTDOWN WAIT_FOR_CLIENTS is not available", "SHUTDOWN sends clients away between their transactions.")
	}
	return consoleError("42601", "invalid argument of SHUTDOWN, use SHOW HELP;", "")
}
