// Package files reads small files, and notices when they change, without ever waiting long for a file system.
//
// All that a running process is configured by comes through here: a pipe in the place of a file, or a mount whose server is away,
// must cost an error, not a goroutine that never comes back, nor a process that no signal reaches.
//
// Invariants:
//   - Only regular files are read, and of those no more than a limit.
//   - Nobody waits for work in a Lane longer than patience, and one goroutine at most hangs in each.
//   - A Watch misses no change that lasts, and fires in time in a folder that is never quiet.
package files
