// Package cluster makes one gate of several Posterns: who else is there, what one node asks another, and who holds what must happen once.
//
// What is true stands in the tenants' store, which all nodes share: their rows, leases and portions of limits. memberlist only hints at who
// is alive, so that nobody has to wait for a row to grow old.
//
// Two ports of a node are for other nodes. The gossip port (UDP and TCP) is memberlist's: what passes there is sealed with a key that is
// derived from the cluster's key file, and is believed in no more than a rumour is. The nodes' port, one above it (TCP), speaks HTTP/2 in
// TLS 1.3 in which both sides show a certificate. Connections of clients that are carried to another node go in such TLS without HTTP. A
// certificate is made when the process starts, and is never on a disk; the digest of its public key stands in the node's row in the store.
// Whose key no row has is not let in, whatever else it knows.
//
// Invariants:
//   - The cluster's key alone opens nothing on the nodes' port: who may call is who could write a row in the store.
//   - Of a stranger no byte of a request is read, and what is read before is bounded in size, time and number.
//   - A call ends with its context, and at the latest after its time; so does its handler at the other side.
//   - While the store is away the rows that were read last hold.
//   - No key, and nothing derived from one, is in a log, a metric or an error.
package cluster
