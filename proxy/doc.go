// Package proxy is the gate: it listens, finds out who calls, decides whether
// they may come in, proves their password, and lends them a server connection.
//
// # Kinds of code
//
// A handshake is a goroutine that reads top-down like the story: PROXY header,
// TLS, startup, admission, SCRAM. A Door asks the same of callers who have no
// connection. A session and a server connection live on
// their tenant's event loop, without a goroutine and without a buffer while
// idle. Few and rare, replication connections and the sessions of the admin
// console stay in goroutines of their own. The rules are elsewhere and pure:
// package sqltext (what a statement's text says), package link (who owes whom
// what), package lease (what a lease leaves, and when it ends), package params (what a session has set, and what resets put back),
// package roles (what is taken of a server's list of roles), package pool (who is served next), package netrestrict (who may come in) and
// package machines (when a machine is woken and sleeps).
//
// # Map
//
// In the order in which a client's bytes meet them:
//
//	options.go gate.go      what a gate is made from; its start, drain and end
//	socket_linux.go         listening, with socket options
//	socket_other.go         the same elsewhere, with fewer
//	accept.go               one goroutine per listener
//	handshake.go tls.go     from accept to the hand-over; TLS
//	certificate.go          client certificates: who is asked for one, and whom it is good for
//	admission.go            whom a visitor wants, whether it may try its password, its way to a session
//	descriptors.go          the files that may be open, shared among sockets
//	denial.go               why a connection gets no session: labels, SQLSTATEs, texts, causes for the log
//	limits.go               handshakes of an address, rates, groups of pools
//	places.go               places of clients
//	commons.go                limits of clients that nodes share: what is wanted, and what may be used
//	farewell.go             the last words to clients that goroutines serve
//	throttle.go             who has failed too often to log in, and what is forgiven
//	bans.go                 bans: listed, made and lifted, also by other nodes
//	auth.go derived.go      SCRAM, real and mock, and what a proof leaves behind; verifiers that are made of passwords
//	mock.go                 what unknown users are judged by
//	password.go             the proof of who tells the password
//	door.go                 the way in for callers without a connection
//	cancel.go cancelkey.go  CancelRequests: their aim, their way; and the keys they come with
//	passon.go               clients of tenants that are served in other regions: to another node, as they are
//	passed.go               clients that another node has passed on
//	carry.go                the bytes of both
//	peers.go                those that other nodes were sent, and orders of other nodes
//	pause.go                what has a tenant's clients wait, here and everywhere
//	client.go               a session: greeting, reading, asking for a server
//	client_feed.go          client to server: what each message means for the lease
//	statements.go           prepared statements: the bytes that are put in, renamed or replaced
//	server.go               a server connection: read, lost, closed
//	server_feed.go          server to client: what each answer means
//	lease.go                the rule of a lease at work: what it is told, and how what it says is carried out
//	questions.go            what Postern asks a server for itself: settings, what a transaction has left
//	traces.go               what a client's messages may leave on its server: noted, refused, forgotten
//	database.go             who leaves a database that somebody wants for himself
//	ahead.go                reading on while a client is kept waiting, to see when it leaves
//	pending.go              the memory of input that cannot be dealt with yet
//	timeouts.go             queries, transactions and clients that take too long
//	client_end.go           how a session ends
//	server_clean.go         how a server gets clean without its client
//	restrict.go             what rules know of a peer, which open sessions a configuration ends
//	refusals.go             whom each tenant has turned away lately, and what its restrictions say of an address
//	expiry.go               when a rule expires, and who is judged again then
//	tenant.go changes.go    a tenant at run time: its pools, clients, sweeps; and what follows when it changes
//	dial.go                 logging in to servers
//	leaving.go              servers that were closed here, until they have ended as well
//	service.go              whose connections a tenant's Postgres has
//	shares.go               limits that hold over several nodes: what is claimed, and what may be used
//	machine.go              when pools may dial, and what keeps a machine awake
//	machine_end.go          how a tenant parts from a machine
//	rolebook.go             the roles that a tenant's server has listed, and the tenant with them
//	rolelist.go             asking servers for them, and waiting for that
//	rolekeep.go             keeping them over a restart
//	known.go                how servers greet, kept while their machines sleep
//	confirm.go              whether that still holds: a server is asked
//	reports.go              what servers report, and who was told
//	replication.go          a replication session, and what belongs to it:
//	replication_seat.go     finding a server
//	replication_copy.go     copying bytes
//	replication_cancel.go   and cancel requests that cross them
//	replication_list.go     all of them: cancels, revocation
//	control.go              what operators see and do, for the admin API
//	sessions.go             a tenant's sessions: their list, their end
//	sessionid.go            what they are called outside
//	console.go              the admin console's login and sessions, and what belongs to it:
//	console_control.go      commands
//	console_view.go         what is shown of tenants, databases, pools and users
//	console_sockets.go      of single connections
//	console_stats.go        of counters
//	sqlstate.go             what clients are told, by its cause
//	watchdog.go             when the gate stands still
//	metrics.go limitlog.go  what Prometheus is told; log lines that strangers can cause
//
// # A session
//
//	 admit                 known how its server greets, or prepared
//	───────> greeting ───────────────────────────────────────────────> without a server
//	                                                                  │              ^
//	             waiting <──────────── acquire: none is idle ─────────┤              │ release: between
//	                │                                                 │ acquire      │ two transactions,
//	                │ lent, by whoever releases or dials one          v              │ unless it is pinned
//	                └───────────────────────────────────────────> with a server ─────┘ or in session mode
//
//	any ──> gone: client.end
//
// In session mode it has a server before it is greeted, and keeps it.
//
// It is blocked (its input is not read) while it is greeting or waiting, its
// server is being prepared or asked, a cancel request is on its way there, too
// much is owed, or a socket is full; mayGoOn says when not any more.
//
// # A lease
//
// Package pool has the diagram of a server's states in the books, package lease
// that of its phases while it is lent and cleaned, and the rule. It is told what
// happens in lent, ready, moved, abandoned and lost; perform carries out what it
// says. What is not clean in time is closed. Between two transactions a server
// may also be asked whether there is news: confirm.go.
//
// # The life of a change
//
// A store calls Directory.Put. On that goroutine Gate.changed takes over what is
// counted for all tenants together: limits, throttle, denials, derived verifiers.
// It posts to the tenant's loop, if the tenant is in use. There tenant.apply takes
// over limits, timeouts and policies, retires servers whose upstream or login is
// another, and revokes the sessions that the new rules do not allow, each at its
// next boundary between messages. A tenant that is not in use is read from the
// Directory when somebody comes.
//
// # Ownership
//
// A handshake owns its net.Conn and closes it, unless it hands the descriptor
// over to the loop. From then on the loop's thread owns everything about the
// session. A session ends in client.end and a server connection in server.shut,
// but for those that tenant.verify closes when the books cannot be trusted.
// Other goroutines post functions to the loop and read atomics.
//
// # Invariants
//
//   - Nothing outside is touched for a client that has not proved its password,
//     or shown the certificate that its tenant takes instead.
//   - A server is released only when link.Free says so, no cancel is aimed at
//     it, and nothing was received behind its last answer.
//   - A client's settings are on the server before its first message is.
//   - Every error that a client sees is in sqlstate.go or in the table of
//     denial.go, comes from its server, or says what is wrong in what it sent,
//     in the words of whoever read that: packages pgwire, scram and console.
//   - After a panic in what is a tenant's on a loop its books are checked; see
//     tenant.verify.
package proxy
