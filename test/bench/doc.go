// The job of this program and the rules its figures keep.

// Command bench compares a direct connection, PgBouncer and Postern in front of one PostgreSQL on this computer.
//
// It builds Postern, starts one process per role on loopback, and runs the same cells (a row of the table for one
// target) round by round with the order of the targets rotated, so that a slow minute of the computer hits all of them.
//
// Rules:
//   - Only ratios within one run mean anything. A ratio is the median of the rounds' own ratios, because the two
//     cells of a round ran next to each other.
//   - CPU is the run time of the pooler's own threads as the scheduler counts it (schedstat), over what pgbench counted as
//     processed. The log-ins of a cell's clients are in it, for every pooler alike. What clock ticks say is compared, and a
//     cell where the two differ is named below the tables.
//   - The table names the version of the PgBouncer that it met.
//   - A cell with a failed transaction, an aborted client or a pooler that died ends the run with an error: a pooler
//     that drops work must not look fast.
//   - What tracking costs is less than two runs of a whole program differ by. Its code runs here by itself, on pgbench's
//     messages, and its time is set against Postern's CPU in the same round.
//   - Memory and goroutines are read from a process that was started for that cell alone, because what an earlier
//     cell left in an allocator hides the next one's growth.
//   - Every process of ours is started by the main goroutine, which is locked to its thread, so that Linux ends it with
//     us whatever way we end; PostgreSQL's cluster sees to itself (machines/local).
//
// With -against it compares two Posterns instead, by the same rules.
//
// It needs Linux (/proc), PostgreSQL's programs and PgBouncer. README.md says how to read it.
package main
