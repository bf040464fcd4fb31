// What the admin console is given of the process: its users, its settings, and the means to reload and end it.

package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// console returns the console's options, nil where no listener has one.
func (p *process) console() (*proxy.Console, error) {
	users, err := consoleUsers(p.conf)
	if err != nil || len(users) == 0 {
		return nil, err
	}
	return &proxy.Console{Users: users, Version: "Postern " + buildVersion(), Settings: consoleSettings(p.conf),
		Reload: p.reload, Nodes: p.cluster.nodes,
		Shutdown: func() {
			select {
			case p.shutdown <- struct{}{}:
			default: // on its way
			}
		}}, nil
}

func consoleUsers(conf *configs.Config) (map[string]scram.Verifier, error) {
	users := make(map[string]scram.Verifier)
	for i, u := range conf.Admin.ConsoleUsers {
		v, err := scram.ParseVerifier(string(u.Verifier))
		if err != nil {
			return nil, fmt.Errorf("admin.console_users[%d].verifier: %w", i, err)
		}
		users[u.Name] = v
	}
	return users, nil
}

// consoleSettings are the configuration in PgBouncer's terms, as far as it has
// them (in seconds), and then in our own.
func consoleSettings(conf *configs.Config) (out []console.Setting) {
	def := configs.Default()
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	number := strconv.Itoa
	add := func(key, value, standard string) {
		out = append(out, console.Setting{Key: key, Value: value, Default: standard})
	}
	now, old := conf.Timeouts, def.Timeouts
	add("client_idle_timeout", seconds(now.ClientIdle), seconds(old.ClientIdle))
	add("client_login_timeout", seconds(now.Login), seconds(old.Login))
	add("default_pool_size", number(tenants.DefaultPoolSize), number(tenants.DefaultPoolSize))
	add("idle_transaction_timeout", seconds(now.IdleTransaction), seconds(old.IdleTransaction))
	add("max_client_conn", number(conf.Limits.Clients), number(def.Limits.Clients))
	add("max_db_client_connections", number(tenants.DefaultMaxClients), number(tenants.DefaultMaxClients))
	add("max_db_connections", number(tenants.DefaultMaxServers), number(tenants.DefaultMaxServers))
	add("max_prepared_statements", number(conf.Limits.ServerStatements), number(def.Limits.ServerStatements))
	add("max_user_client_connections", "0", "0")
	add("max_user_connections", "0", "0")
	add("min_pool_size", "0", "0")
	add("query_timeout", seconds(now.Query), seconds(old.Query))
	add("query_wait_timeout", seconds(now.QueryWait), seconds(old.QueryWait))
	add("reserve_pool_size", "0", "0")
	add("reserve_pool_timeout", seconds(tenants.DefaultReserveAfter), seconds(tenants.DefaultReserveAfter))
	add("server_connect_timeout", seconds(now.ServerConnect), seconds(old.ServerConnect))
	add("server_idle_timeout", seconds(now.ServerIdle), seconds(old.ServerIdle))
	add("server_lifetime", seconds(now.ServerLifetime), seconds(old.ServerLifetime))
	add("tcp_keepcnt", number(conf.TCP.KeepaliveCount), number(def.TCP.KeepaliveCount))
	add("tcp_keepidle", seconds(conf.TCP.KeepaliveIdle), seconds(def.TCP.KeepaliveIdle))
	add("tcp_keepintvl", seconds(conf.TCP.KeepaliveInterval), seconds(def.TCP.KeepaliveInterval))
	add("tcp_user_timeout", number(int(conf.TCP.UserTimeout.Milliseconds())), number(int(def.TCP.UserTimeout.Milliseconds())))
	add("transaction_timeout", seconds(now.Transaction), seconds(old.Transaction))

	guess, strict := conf.Auth.Throttle, def.Auth.Throttle
	add("auth.throttle.address_failures", number(guess.AddressFailures), number(strict.AddressFailures))
	add("auth.throttle.block", guess.Block.String(), strict.Block.String())
	add("auth.throttle.tenant_failures", number(guess.TenantFailures), number(strict.TenantFailures))
	add("auth.throttle.window", guess.Window.String(), strict.Window.String())
	add("io_uring", conf.IOUring, def.IOUring)
	add("limits.address_rate", number(conf.Limits.AddressRate), number(def.Limits.AddressRate))
	add("limits.handshakes", number(conf.Limits.Handshakes), number(def.Limits.Handshakes))
	add("limits.statement_memory_mib", number(conf.Limits.StatementMemoryMiB), number(def.Limits.StatementMemoryMiB))
	add("limits.statements", number(conf.Limits.Statements), number(def.Limits.Statements))
	add("log.level", conf.Log.Level, def.Log.Level)
	add("loops", number(conf.Loops), number(def.Loops))
	add("timeouts.drain", now.Drain.String(), old.Drain.String())
	add("timeouts.proxy_header", now.ProxyHeader.String(), old.ProxyHeader.String())
	add("timeouts.wake", now.Wake.String(), old.Wake.String())
	for _, l := range conf.Listeners {
		add("listeners."+l.Name, l.Address+" "+l.PoolMode, "")
	}
	return out
}
