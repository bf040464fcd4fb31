// What a call of a function by its oid may leave or read, which has no text.

package sqltext

import "slices"

// functions are the server's own that leave session state, or read it, by
// their oids, which never change.
var functions = map[uint32]State{
	1574: StateSequence, 1576: StateSequence, 1765: StateSequence, // nextval, setval
	1575: StateReads, 2559: StateReads, // currval, lastval
	1599: StateSeed,                  // setseed
	2172: StateLoad, 6006: StateLoad, // pg_backup_start, pg_replication_origin_session_setup
	3779: StateLoad, 3786: StateLoad, 4220: StateLoad, 4221: StateLoad, 4222: StateLoad, 4223: StateLoad, 4224: StateLoad, // pg_create_..., pg_copy_..._replication_slot
	2078: StateSet | StateNameUnknown,                                  // set_config
	2880: StateLock, 2881: StateLock, 2882: StateLock, 2883: StateLock, // pg_advisory_lock, and what is like it
	2886: StateLock, 2887: StateLock, 2888: StateLock, 2889: StateLock,
	2884: StateEnds, 2885: StateEnds, 2890: StateEnds, 2891: StateEnds, 2892: StateEnds, // pg_advisory_unlock
}

// largeObjects are functions that drivers call and that leave nothing.
var largeObjects = []uint32{715, 764, 765, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172}

// FunctionState says what a FunctionCall of a function may leave or read. Its
// arguments are not read, and what others of the server's functions or a user's
// do is not known.
func FunctionState(oid uint32) State {
	if state, ok := functions[oid]; ok {
		return state
	}
	if slices.Contains(largeObjects, oid) {
		return 0
	}
	return StateAny | StateNameUnknown
}
