// Package pgwire knows the bytes of the PostgreSQL frontend/backend protocol
// and nothing else: message framing, startup packets, the options string,
// error responses and the few other messages that Postern builds itself.
//
// It never decodes what it can pass on. What else a login must understand,
// package backend decodes with pgx's pgproto3.
//
// Invariants: no function allocates more than MaxStartup by a length that a peer
// only claims; no function reads beyond the message it was asked for; nothing here panics on
// any input (see the fuzz targets).
//
// Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol".
package pgwire
