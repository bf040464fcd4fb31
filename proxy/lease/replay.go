// The setting of a client's parameters on a server: what came of it.

package lease

import "github.com/postern/postern/proxy/params"

// Replay is the setting of a client's parameters on its server: change by
// change, in one transaction. Not safe for concurrent use.
type Replay struct {
	list    []params.Change
	done    int
	outcome Facts // Refused, perhaps Inherited, or Failed; 0: all went well so far
}

// NewReplay begins with changes that are about to be made.
func NewReplay(list []params.Change) Replay { return Replay{list: list} }

// Completed takes note of a change that was made, by its tag: what else may be
// on its way has others.
func (r *Replay) Completed(tag []byte) {
	if string(tag) == "SELECT 1" {
		r.done++
	}
}

// Erred takes note of an error, which has undone all of it, and the routine that
// it came from. It is the fault of whoever had the server before if something of
// theirs cannot be taken back, or if they have used temporary tables, whose
// buffers have a size then.
func (r *Replay) Erred(routine string) {
	if r.done >= len(r.list) {
		r.outcome = Failed
		return
	}
	r.outcome = Refused
	if c := r.list[r.done]; c.Value == nil || c.Name == "temp_buffers" && routine == "call_int_check_hook" {
		r.outcome |= Inherited
	}
}

// Facts says how it went.
func (r *Replay) Facts() Facts { return r.outcome }
