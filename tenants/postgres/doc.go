// Package postgres is the store of tenants that is a PostgreSQL database: it keeps a tenants.Directory equal to what the database
// has, within a second of each commit, and goes on with what is known while the database is away.
//
// # Versions follow commits
//
// Each transaction that changes tenants or users takes the next version when it commits: deferred triggers update the one row of
// postern.feed, whose lock is held until the commit can be seen by all. So nobody sees version 8 before version 7: who has read
// everything up to a version has missed nothing, and a transaction that was long open gets a late version instead of filling a
// gap that was passed by. A sequence would hand versions out in the order of asking, not of committing. postern.changes has the
// last version of each tenant, of removed ones too.
//
// NOTIFY carries version and id, and only says that there is something to read: what is read is everything above the version
// that is known. A lost notification costs time (until the next one, or the heartbeat), a doubled one nothing.
//
// # Epochs
//
// Versions mean something within an epoch: the cluster's system identifier, its timeline, the database and its table. A restored
// backup or a promoted standby is a new epoch, and so is a feed that is behind what was seen. Then every row is read again, and
// the store wins. A snapshot of disks that was restored shows in none of this, and versions come again; but every connection was
// lost then. So at each connect and every few minutes all tenants are compared as a whole, by the random marks of their last
// changes, which do not come again.
//
// # Changes
//
// A Registry reads and changes the store over connections of its own. A tenant's revision is the mark of its last change, whoever made
// it: what is compared with it is compared under the locks of the tenant's row and of its users'. Locks are always taken in one
// order: the tables, the tenant's row, its users (and tokens), the feed's head, the audit log. Nothing but the commit follows the last two.
//
// # Bans
//
// Bans are told to other nodes over a connection of its own (bans.go), and are no part of the feed: they change no tenant, and there may be
// many. NOTIFY names the ban to look at; what it is stands in its row, and all are compared at each connect and every minute.
//
// # Nodes
//
// A process that follows the store has a row among postern.nodes (presence.go), which it takes when it connects and gives back when it has
// served its last client. It says there which version is in force: read from this store over this connection, told to the
// directory, and open sessions judged by it. Whoever asks (nodes.go) believes a row that is of the store's epoch and was written within
// 5 s. The connection that says so and the one that reads end together, so that nothing is told to a store that was not read.
//
// # Leases
//
// A Ledger (ledger.go, leases.go) has a pool and a listening connection of its own. Whoever takes a lease, or says that it uses what leases
// are about, has the lock of the lease's row, so that of a use and of a lease of what is unused one sees the other. A lease that has ended
// with its time, and was not given back, is told to the next holder: the one before may be acting still.
//
// # Keys
//
// Every sealed value names its key, so that several can be in use. The key file is followed (keyfile.go). Another key (rotate.go) is
// first made known to all nodes, whose rows list the keys that they have, and then everything is sealed with it (reseal.go), under the
// locks that editors take, in their order. postern.rotation has the new one's id until nothing needs another: an interrupted change goes on.
//
// # Invariants
//
//   - A row that cannot be read, or that breaks a rule, changes nothing: the tenant stays what it was, the log says why, and
//     the others go on.
//   - Secrets are sealed (AES-256-GCM) before they go to the database or to disk, and bound to their table, row and field.
//   - No look-up touches the database: it is the directory's.
//   - What decides is pure (mirror.go); what reads is one goroutine (follow.go), and what says how the node is another one.
package postgres
