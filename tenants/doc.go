// Package tenants knows who the tenants are: where each one's Postgres is and whether that can sleep, who its users are,
// and what its rules say. It also finds out which tenant a client means.
//
// # Jobs
//
//   - LoadFile reads the tenants file, strictly, and reports every problem at once.
//   - A Directory holds the current Snapshot and replaces it: all or nothing, the last good one is kept.
//   - Resolve turns what a client said (options, user, SNI) into a tenant's id; it looks nothing up.
//
// # Invariants
//
//   - A Snapshot and everything that hangs off it never changes. Readers take Current once per decision, without a lock.
//   - A file with any problem changes nothing. A list that was meant to restrict can therefore never be lost to a typing
//     error: null is refused where absence means "everyone".
//   - Passwords and verifiers are Secrets and are printed nowhere, not even in error messages about them.
//   - A key that is documented but not built yet is an error, never ignored.
//
// # Reading YAML
//
// The process configuration is read with viper; this file is not, but from the parser's own node tree. viper lower-cases
// keys, takes null for absent, and forgets the lines; here null must not mean absent, and a person who gets twenty
// messages about a file of ten thousand tenants wants the line of each.
package tenants
