// Package local runs real PostgreSQL clusters as child processes on this computer: for `postern demo`, for a laptop, and
// for tests.
//
// A [Cluster] is a directory with a data directory, a log and the password of its superuser, and at most one postgres
// process. Invariants:
//
//   - The server listens on 127.0.0.1 alone and has no unix socket, so neither other computers nor the length limit of
//     socket paths matter. Every connection, the superuser's included, proves a SCRAM password unless [Options] say
//     otherwise.
//   - The process never outlives this one by much: it is stopped by [Cluster.Stop], or on Linux by the kernel when this
//     process dies, however it dies.
//   - One goroutine per running process, gone when the process is. Nothing runs after Stop has returned.
//   - PostgreSQL refuses to run as root; under root it runs as another account (see [Options]), which owns the directory.
package local
