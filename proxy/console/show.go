// The SHOW commands: their columns, and the rows made of what the gate says.

package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// show is one SHOW command. A nil rows gives no row.
type show struct {
	columns []Column
	rows    func(Gate) table
}

// sockets are the columns of a connection; those of debug follow in SOCKETS.
const (
	sockets = `type user database replication state addr port:4 local_addr local_port:4 connect_time request_time wait:4 wait_us:4 close_needed:4
		ptr link remote_pid:4 tls application_name prepared_statements:4 id:8 `
	debug = `recv_pos:4 pkt_pos:4 pkt_remain:4 send_pos:4 send_remain:4 pkt_avail:4 send_avail:4`
)

// Refused SHOWs, and HELP, have no table.
const (
	showFDs  = "FDS"
	showHelp = "HELP"
)

// shows are all there are, by name. It is never changed.
var shows = map[string]show{
	showHelp: {},
	showFDs:  {},
	"CONFIG": {columns(`key value default changeable`), func(g Gate) table {
		return tableOf(g.Settings(), func(s *Setting) []any { return []any{s.Key, s.Value, s.Default, "no"} })
	}},
	"DATABASES": {columns(`name host port:4 database force_user pool_size:4 min_pool_size:4 reserve_pool_size:4 server_lifetime:4 pool_mode
		load_balance_hosts max_connections:4 current_connections:4 max_client_connections:4 current_client_connections:4 paused:4 disabled:4
		reserve_pool:4`), func(g Gate) table { return tableOf(g.Databases(), databaseRow) }},
	"POOLS": {columns(`database user cl_active:4 cl_waiting:4 cl_active_cancel_req:4 cl_waiting_cancel_req:4 sv_active:4 sv_active_cancel:4
		sv_being_canceled:4 sv_idle:4 sv_used:4 sv_tested:4 sv_login:4 maxwait:4 maxwait_us:4 pool_mode load_balance_hosts`),
		func(g Gate) table { return tableOf(g.Pools(), poolRow) }},
	"CLIENTS":        {columns(sockets), func(g Gate) table { return socketTable(g.Clients(), false) }},
	"SERVERS":        {columns(sockets), func(g Gate) table { return socketTable(g.Servers(), false) }},
	"SOCKETS":        {columns(sockets + debug), func(g Gate) table { return socketTable(append(g.Clients(), g.Servers()...), true) }},
	"ACTIVE_SOCKETS": {columns(sockets + debug), activeSockets},
	"LISTS":          {columns(`list items:4`), func(g Gate) table { return named(listRows(g.Lists())) }},
	"USERS": {columns(`name pool_size reserve_pool_size pool_mode max_user_connections:4 current_connections:4 max_user_client_connections:4
		current_client_connections:4`), func(g Gate) table { return tableOf(g.Users(), userRow) }},
	"DNS_HOSTS":      {columns(`hostname ttl:8 addrs`), nil},
	"DNS_ZONES":      {columns(`zonename serial:8 count:4`), nil},
	"PEERS":          {columns(`peer_id:4 host port:4 pool_size:4`), nil},
	"PEER_POOLS":     {columns(`peer_id:4 cl_active_cancel_req:4 cl_waiting_cancel_req:4 sv_active_cancel:4 sv_login:4`), nil},
	"STATS":          {columns(statsColumns), statsTable},
	"STATS_TOTALS":   {columns(`database ` + counterColumns), statsTotals},
	"STATS_AVERAGES": {columns(`database ` + counterColumns), statsAverages},
	"TOTALS":         {columns(`name value:n`), func(g Gate) table { return named(totalRows(g.Stats())) }},
	"MEM": {columns(`name size:4 used:4 free:4 memtotal:8`), func(g Gate) table {
		return tableOf(g.Memory(), func(m *Memory) []any { return []any{m.Name, m.Size, m.Used, m.Free, m.Size * (m.Used + m.Free)} })
	}},
	"STATE": {columns(`key value`), func(g Gate) table {
		yes := map[bool]string{true: "yes", false: "no"}
		paused := g.State().Paused
		rows := [][]any{{"active", yes[!paused]}, {"paused", yes[paused]}, {"suspended", yes[false]}}
		return table{len(rows), func(i int) []any { return rows[i] }}
	}},
	"VERSION": {columns(`version`), func(g Gate) table { return table{1, func(int) []any { return []any{g.Version()} }} }},
	"TENANTS": {columns(`tenant machine machine_since suspends_at clients:4 clients_waiting:4 clients_pinned:4 servers:4 servers_active:4
		servers_idle:4 max_clients:4 max_servers:4 paused:4 disabled:4 in_use_because`), func(g Gate) table { return tableOf(g.Tenants(), tenantRow) }},
	"BANS":     {columns(`tenant address seconds_left:4 failures:4`), func(g Gate) table { return tableOf(g.Bans(), banRow) }},
	"REFUSALS": {columns(`tenant address reason mode user count:n first last`), func(g Gate) table { return tableOf(g.Refusals(), refusalRow) }},
	"NODES":    {columns(`name region address member since seen silent:4 leaving:4 protocol:4 applied:8`), func(g Gate) table { return tableOf(g.Nodes(), nodeRow) }},
	"PINS":     {columns(`client tenant user database kinds since id:8 remote_pid:4`), pins},

	// What drivers ask for when they set a session up.
	"CLIENT_ENCODING":               fixed("client_encoding", "UTF8"),
	"DEFAULT_TRANSACTION_ISOLATION": fixed("default_transaction_isolation", "read committed"),
	"STANDARD_CONFORMING_STRINGS":   fixed("standard_conforming_strings", "on"),
	"DATESTYLE":                     fixed("datestyle", "ISO"),
	"TIMEZONE":                      fixed("timezone", "UTC"),
	"EXTRA_FLOAT_DIGITS":            fixed("extra_float_digits", "1"),
}

// setUp reports whether a SET of name is a driver's own and means nothing here.
func setUp(name string) bool {
	switch name {
	case "client_encoding", "default_transaction_isolation", "standard_conforming_strings", "datestyle", "timezone", "extra_float_digits",
		"application_name", "intervalstyle":
		return true
	}
	return false
}

func fixed(name, value string) show {
	return show{columns(name), func(Gate) table { return table{1, func(int) []any { return []any{value} }} }}
}

// database is how the console names a tenant's database.
func database(tenant, name string) string { return tenant + "/" + name }

// orNull is NULL for an empty text, where PgBouncer has NULL.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// split is a duration in whole seconds and the rest of it in microseconds.
func split(d time.Duration) (seconds, micros int64) {
	return int64(d / time.Second), int64(d % time.Second / time.Microsecond)
}

// when is a time as PgBouncer prints it; "" for none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func databaseRow(d *Database) []any {
	return []any{database(d.Tenant, d.Name), orNull(d.Host), d.Port, database(d.Tenant, d.Name), nil, d.PoolSize, d.MinPoolSize, d.ReservePoolSize,
		int64(d.ServerLifetime / time.Second), orNull(d.Mode), nil, d.MaxServers, d.Servers, d.MaxClients, d.Clients,
		d.Paused, d.Disabled, d.ReservePoolSize}
}

func poolRow(p *Pool) []any {
	wait, micros := split(p.MaxWait)
	return []any{database(p.Tenant, p.Database), p.User, p.ClientsActive, p.ClientsWaiting, p.CancelsActive, 0, p.ServersActive, 0, 0,
		p.ServersIdle, 0, p.ServersTested, p.New, wait, micros, p.Mode, nil}
}

func userRow(u *User) []any {
	return []any{u.Name + "." + u.Tenant, orBlank(u.PoolSize), orBlank(u.ReservePoolSize), nil, u.MaxServers, u.Servers, u.MaxClients, u.Clients}
}

// orBlank is a size as SHOW USERS prints it; blank for 0, where PgBouncer has no setting of the user's.
func orBlank(size int) string {
	if size == 0 {
		return ""
	}
	return fmt.Sprintf("%9d", size)
}

func tenantRow(t *Tenant) []any {
	return []any{t.ID, orNull(t.Machine), orNull(when(t.Since)), orNull(when(t.SuspendsAt)), t.Clients, t.Waiting, t.Pinned, t.Servers,
		t.ServersActive, t.ServersIdle, t.MaxClients, t.MaxServers, t.Paused, t.Disabled, strings.Join(t.Needs, ", ")}
}

// banRow rounds up, as whoever has to wait is told.
func banRow(b *Ban) []any {
	return []any{orNull(b.Tenant), b.Address, int64((b.Left + time.Second - 1) / time.Second), b.Failures}
}

func refusalRow(r *Refusal) []any {
	return []any{r.Tenant, r.Address, r.Reason, r.Mode, orNull(r.User), r.Count, when(r.First), when(r.Last)}
}

func nodeRow(n *Node) []any {
	return []any{n.Name, orNull(n.Region), orNull(n.Address), orNull(n.Member), orNull(when(n.Since)), orNull(when(n.Seen)), n.Silent, n.Leaving, n.Protocol, n.Applied}
}

func socketTable(list []Socket, debug bool) table {
	return tableOf(list, func(s *Socket) []any {
		typ, state := "C", s.State
		if s.Server {
			typ = "S"
		}
		if debug {
			state = socketState(s)
		}
		wait, micros := split(s.Wait)
		row := []any{typ, s.User, database(s.Tenant, s.Database), cmp.Or(s.Replication, "none"), state, s.Addr, s.Port, s.LocalAddr, s.LocalPort,
			when(s.Connected), when(s.Requested), wait, micros, s.CloseNeeded, s.Ptr, s.Link, int64(int32(s.PID)), s.TLS, s.Application,
			s.Statements, s.ID}
		if debug {
			row = append(row, s.Received, 0, 0, 0, 0, s.Received, s.Pending)
		}
		return row
	})
}

// socketState is the state in the words of SHOW SOCKETS.
func socketState(s *Socket) string {
	switch {
	case !s.Server && s.State == "waiting":
		return "cl_waiting"
	case !s.Server:
		return "cl_active"
	case s.State == "new":
		return "sv_login"
	}
	return "sv_" + s.State
}

// activeSockets are those with something in their buffers.
func activeSockets(g Gate) table {
	busy := slices.DeleteFunc(append(g.Clients(), g.Servers()...), func(s Socket) bool { return s.Received == 0 && s.Pending == 0 })
	return socketTable(busy, true)
}

func pins(g Gate) table {
	pinned := slices.DeleteFunc(g.Clients(), func(s Socket) bool { return len(s.Pins) == 0 })
	slices.SortFunc(pinned, func(a, b Socket) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return tableOf(pinned, func(s *Socket) []any {
		return []any{address(s), s.Tenant, s.User, s.Database, strings.Join(s.Pins, ","), when(s.Since), s.ID, int64(int32(s.PID))}
	})
}

// address is where a connection comes from, with its port.
func address(s *Socket) string {
	if strings.Contains(s.Addr, ":") {
		return fmt.Sprintf("[%s]:%d", s.Addr, s.Port)
	}
	return fmt.Sprintf("%s:%d", s.Addr, s.Port)
}

// count is a row of a name and a number.
type count struct {
	name  string
	value int64
}

func named(list []count) table {
	return tableOf(list, func(c *count) []any { return []any{c.name, c.value} })
}

func listRows(l Lists) (out []count) {
	for _, c := range []struct {
		name string
		n    int
	}{{"databases", l.Databases}, {"users", l.Users}, {"peers", 0}, {"pools", l.Pools}, {"peer_pools", 0}, {"free_clients", l.FreeClients},
		{"used_clients", l.UsedClients}, {"login_clients", l.LoginClients}, {"free_servers", 0}, {"used_servers", l.UsedServers},
		{"dns_names", 0}, {"dns_zones", 0}, {"dns_queries", 0}, {"dns_pending", 0}} {
		out = append(out, count{c.name, int64(c.n)})
	}
	return out
}
