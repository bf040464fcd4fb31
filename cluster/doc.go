// Package cluster makes one gate of several Posterns: who else is there, what one node asks another, and who holds what must happen once.
//
// What is true stands in the tenants' store, which all nodes share: their rows, leases and portions of limits. memberlist only hints at who
// is alive, so that nobody has to wait for a row to grow old.
package cluster

import _ "github.com/hashicorp/memberlist" // who is alive
