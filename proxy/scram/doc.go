// Package scram judges clients by SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 5929) from stored
// verifiers, and logs in to servers with the key that a client's proof gives away, so that no plaintext password is
// needed anywhere on the way.
//
// # Towards clients
//
// A Server is one conversation, on top of github.com/xdg-go/scram, which computes and compares. Around it stands what a
// Postgres client expects and the library leaves to its user: messages are checked as Postgres checks them before the
// library sees them, the mechanism and the channel-binding flag must agree, users who do not exist get a full
// conversation with a Mock verifier, and the ClientKey is recovered.
//
// # Invariants
//
//   - The user name inside SCRAM messages is ignored, as in Postgres: the startup packet's counts. (It must be validly
//     escaped, which Postgres does not ask; the library does.)
//   - A Mock conversation is told from a genuine one with a wrong password neither by its bytes nor by its work.
//   - No message from a peer makes this package do more work than a few HMACs over at most MaxMessage bytes; the one
//     costly function, PBKDF2, runs only where NewVerifier, KeyOf or a client login asks for it, bounded by MaxIterations.
//   - Secrets print as placeholders, errors and their details repeat nothing a peer sent, comparisons are constant time.
//
// The package is a leaf: it imports nothing else of this module and does no I/O.
package scram
