// Package console is the admin console's side of a connection: it reads
// commands in the language of PgBouncer's console, and answers in PostgreSQL's
// protocol, simple and extended, with PgBouncer's columns.
//
// It has no I/O of its own and knows nothing of the gate: what there is to show
// comes from a Gate, which also carries out what is to be done, and answers go
// to an io.Writer. So everything here can be tested with tables.
//
// PgBouncer's "database" is two things here. In what is shown it is the
// tenant's id with its database, such as acme/app, because that is what has
// pools. In commands, and in the STATS family, it is the tenant alone, such as
// acme: a tenant is paused, killed and counted as a whole. Users are shown in
// the form in which they log in, such as app.acme.
//
// Invariants:
//   - Every error is an ERROR; the session stays. What ends a session is said
//     by the error that Session.Handle returns.
//   - A table's columns are known without asking the gate: a Describe asks
//     nobody.
//   - The columns are those of PgBouncer 1.25, in its order. STATS and DATABASES
//     have one more at their end, under names that PgBouncer has given up and
//     exporters still read.
//   - What is not known is 0 or empty: times in STATS, what is counted of
//     prepared statements, the versions of TLS.
package console
