// Package backend makes one server connection: it dials, speaks TLS, logs in,
// and hands over a connection that is ready for its first query. It also sends
// CancelRequests. All of it is blocking code for goroutines, under the one
// deadline of the context it is given.
//
// The server belongs to a tenant and may be hostile. Invariants:
//
//   - Nothing a server sends is trusted: lengths, counts and PBKDF2 iterations
//     are bounded, and an unexpected message ends the login at once.
//   - A Conn exists only after the server has taken part in the authentication
//     that the target asks for. With SCRAM it has proved to know the verifier;
//     an AuthenticationOk out of the blue is refused, but with AuthCert, where
//     TLS has proved who the server is, and shown it who we are.
//   - A password leaves this process in cleartext only over TLS with a verified
//     host, and only if the target says so; as md5 only if the target says so.
//   - There is no way back from TLS to plaintext, and no plaintext byte of the
//     server survives into TLS.
//   - A Conn has no unread bytes in user space, in any layer, and no deadline.
//   - Whoever gets a Conn closes it. On error nothing is left open and no
//     goroutine is left running, but perhaps the one that Derive uses.
//
// With TLSMode TLSRequire the certificate is not verified. SCRAM with channel
// binding then still tells an eavesdropper in the middle apart from the server,
// because the proof covers the certificate; md5 does not.
//
// Sources: PostgreSQL documentation, "Message Flow" and "SASL Authentication";
// RFC 5802, RFC 7677 (SCRAM), RFC 5929 (tls-server-end-point).
package backend
