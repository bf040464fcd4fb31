// Package tenants knows who the tenants are: where each one's Postgres is and whether that can sleep, who its users are,
// and what its rules say. It also finds out which tenant a client means.
//
// # Jobs
//
//   - Validate judges one tenant, whichever store it comes from, and reports every problem at once. Defaults are New's and
//     Complete's.
//   - A Directory holds all tenants as they are now, and tells its subscribers which ones have changed. Stores, which are packages
//     of their own (file), say "this one is now that" or "these are all". A tenant that is not there does not exist: nothing is
//     looked up on demand.
//   - Resolve turns what a client said (options, user, SNI) into a tenant's id; it looks nothing up.
//
// # Invariants
//
//   - A Tenant and everything that hangs off it never changes once it is in the Directory. Readers take it once per decision.
//   - A change of one tenant costs nothing to the others: neither time in proportion to their number, nor a call.
//   - Only what is good as a whole is put in force: what the stores cannot vouch for leaves what there was.
//   - Passwords and verifiers are Secrets and are printed nowhere, not even in error messages about them.
package tenants
