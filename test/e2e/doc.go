// Package e2e is the suite against real PostgreSQL: the real binary, built with the race detector when the tests are,
// between real clients (psql with two generations of libpq, pgbench, pgx, lib/pq, and hand-written messages) and real
// servers. It has no code of its own beside its tests.
//
// Every test starts a gate of its own with a database of its own on a cluster that all share, unless it stops or kills
// servers, and then the cluster is its own as well. A gate that reports a race, a panic or a BUG fails its test,
// whatever the test was about.
package e2e
