// Package proxy is the gate: it listens, finds out who calls, decides whether
// they may come in, proves their password, and lends them a server connection.
//
// A connection's life is told by three kinds of code. A handshake (handshake.go,
// auth.go) is a goroutine that reads top-down like the story: PROXY header,
// TLS, startup, admission, SCRAM. A session (client.go, client_feed.go) and a
// server connection (server.go, server_feed.go) live on their tenant's event
// loop, without a goroutine and without a buffer while idle. Few and rare, the
// replication connections (replication.go) and the sessions of the admin
// console (console.go) stay in goroutines of their own. The rules are
// elsewhere and pure: package link (who owes whom what), package pool (who is
// served next), package netrestrict (who may come in), package machines (when a
// machine is woken and sleeps), params.go.
//
// Ownership: a handshake owns its net.Conn and closes it, unless it hands the
// descriptor over to the loop. From then on the loop's thread owns everything
// about the session; client.end and server.shut are the only ways out. Other
// goroutines post functions to the loop and read atomics.
//
// Invariants:
//   - Nothing outside is touched for a client that has not proved its password.
//   - A server is released only when link.Free says so, no cancel is aimed at
//     it, and nothing was received behind its last answer.
//   - A client's settings are on the server before its first message is.
//   - Every error that a client sees comes from sqlstate.go or from its server.
package proxy
