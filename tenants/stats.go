// How a store is doing.

package tenants

import "time"

// Stats tells how a store's loads went.
type Stats struct {
	LastOK     bool      // whether the last one succeeded
	LoadedAt   time.Time // when the tenants in force were last known to be what the store has
	OK, Failed uint64    // loads so far, the first included
	Refused    int       // tenants of the store that are not in force as it has them
}
