// Package proxyproto takes one PROXY protocol header (https://www.haproxy.org/download/3.4/doc/proxy-protocol.txt,
// version 1 or 2) off a connection and says who is really calling.
//
// The exact bytes of the header are collected here, because three things matter to a gate that judges addresses and
// are left open by github.com/pires/go-proxyproto, which then parses them: a version 1 header may arrive in pieces, the
// checksum must be verified, and the extensions (TLVs) must fill the header exactly.
//
// # Invariants
//
//   - There is no falling back: without a valid header that names a TCP client there is no Peer, and nothing may be
//     served. In particular a health check by the balancer (LOCAL, UNKNOWN, UNSPEC) never counts as a client that comes
//     from the balancer's address.
//   - Exactly the header is consumed. What follows, be it a TLS hello in the same segment, is the next reader's.
//   - A decision falls with the first byte that allows it, so that a caller with the wrong protocol is not waited for.
//   - At most 107 bytes (version 1) or 16 + MaxV2Length (version 2) are collected.
//   - Addresses in a Peer are unmapped: an IPv4 client is an IPv4 address, however it was written.
//   - Reasons are a closed set, fit for metric labels. Text from a header is checked before it becomes part of a Peer.
//
// Whether the sender may be believed is the caller's question, to be asked before Read (Trusted, ReasonUntrusted), and
// so is the deadline, to be set on the connection. The package is a leaf.
package proxyproto
