// Package roles has the rules for the list of a tenant's roles that its own Postgres gives: what Postgres is asked, what is taken of
// the answer, who of the list may log in at a moment, and when it is asked for again. It is pure.
//
// All roles are listed at once, in the background. No login asks by name, so that neither time nor text tells who exists, and
// nothing of an unauthenticated client gets near a server.
//
// The server belongs to a tenant and may be hostile. What it says is bounded, and taken or refused as a whole; a role whose
// password is no SCRAM verifier is one that cannot log in.
package roles
