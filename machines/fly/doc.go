// Package fly runs machines on Fly.io: a small client of the Machines API ([Client], one for the process) and a
// [machines.Driver] for one machine ([Machine]).
//
// # Invariants
//
//   - The token is a machine's own, as it is at each call, or read from a file, and again when the file changes. It stands in the Authorization header of
//     requests to the one configured host. It is in no error, log line, metric or printed value, an answer that repeats
//     it included, and a redirect is an error: it is never followed.
//   - Each call waits for its turn in a budget that is a little smaller than Fly's limits, per machine and action. Other
//     processes spend from the same limits, so 429 can happen still.
//   - A machine has at most one start in flight. After a start that was refused, or whose answer was lost, nothing is
//     sent before a look at the machine's state; a start that was accepted is never repeated by the same Wake. However
//     it goes, one Wake sends few starts, and pauses grow between them.
//   - A suspend is sent once per Suspend and not cut off half-way: a Wake that follows must know what it has to undo.
//   - Where other processes share the machine (a change has a fence) what changes it is sent under Fly's own lease, soon after that was
//     taken, and after a look at whether the right to change it has ended.
//   - Answers are read up to a limit and within a time. What does not look as documented is an error, and an error of an
//     action says nothing about whether the action was done.
//
// # Generations
//
// A generation is the machine's instance_id and the time of its newest event of type "start" with status "started",
// which Fly writes when the machine has come up, from a cold boot, from a snapshot, or after its process has ended and
// was restarted. The event with status "starting" is the request, which may come to nothing, and does not count, nor do
// launch, update, suspend and exit. When the few events that the API lists hold no start, the time is not known, and the
// generation is the instance_id alone.
package fly
