// Package local runs real PostgreSQL clusters as child processes on this computer: for `postern demo`, for a laptop, and
// for tests.
//
// A [Cluster] is a directory with a data directory, a log and the password of its superuser, and at most one postgres
// process. A [Machine] is a cluster with roles and databases that is made when it is first woken, and that sleeps: the
// local [machines.Driver]. Invariants of the cluster:
//
//   - The server listens on 127.0.0.1 alone and has no unix socket, so neither other computers nor the length limit of
//     socket paths matter. Every connection, the superuser's included, proves a SCRAM password unless [Options] say
//     otherwise.
//   - The process never outlives this one by much: it is stopped by [Cluster.Stop], or on Linux by the kernel when this
//     process dies, however it dies.
//   - One goroutine per running process, gone when the process is. Nothing runs after Stop has returned.
//   - PostgreSQL refuses to run as root; under root it runs as another account (see [Options]), which owns the directory.
//   - A frozen server is frozen whole, and is thawed before anything else is done to it. If this process is killed while
//     a server is frozen, its children stay so until somebody looks for leftovers in the [Folder], or the next start in the
//     same directory finds and thaws them.
//   - A process that this one has not started is touched only if it is proven to be a server of ours; see [Folder.Leftovers].
//
// Invariants of the machine:
//
//   - One change at a time; a state check waits for none of them.
//   - Of several processes that share it one at a time changes it, and none with an epoch that is older than one that was there: fence.go.
//     What one has started the others find, join and put to sleep: other.go.
//   - A wake either succeeds, roles and databases included, or leaves the machine asleep as it was. It may be given up at
//     any time; a suspend, once begun, ends by itself, because to hurry it is to crash the server.
//   - What is wanted is made once: a wake that has nothing new to make says nothing to the server. What is no longer
//     wanted, or was changed in the server by others, is left alone.
//   - Every start and every thaw is a generation of its own.
//   - No secret is in an error, in our log, in the server's log or in its statistics.
package local
