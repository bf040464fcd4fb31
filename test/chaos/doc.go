// Package chaos is the suite of faults under load: while networks lose packets, hosts vanish, gates are killed and rolled,
// clients keep a ledger, and at the end nothing that was acknowledged is missing or there twice, and nobody has seen what is
// another's. The soak is the same for longer, with the process's own figures looked at: `make soak`.
//
// It runs the real binary between real clients and real PostgreSQL. It has no code of its own beside its tests.
package chaos
