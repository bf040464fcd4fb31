// Scripts that are known to differ because of a fault which is being mended.

package transcripts

import "testing"

// shape is the fault: in transaction mode a statement may be prepared anew for a client that was told another shape of it.
const shape = "what a client was told of a statement is not compared with what runs"

// notYet are scripts whose differences are told and fail nothing, and why. It shall be empty.
var notYet = map[string]string{
	"named/cached-plan-changed-outside": shape,
	"ddl/column-of-another-type":        shape,
	"ddl/columns-swapped":               shape,
	"ddl/function-of-another-type":      shape,
	"ddl/in-a-block":                    shape,
	"ddl/parameter-of-a-text":           shape,
	"ddl/pipeline":                      shape,
	"ddl/returning":                     shape,
	"ddl/told-again":                    shape,
	"ddl/told-at-different-times":       shape,
	"ddl/unnamed":                       shape,
	"ddl/view-with-one-more":            shape,
}

// checkNotYet fails for a script that does not exist: an entry that means nothing would stand forever.
func checkNotYet(t *testing.T, exist map[string]bool) {
	t.Helper()
	for name := range notYet {
		if !exist[name] {
			t.Errorf("no script %s", name)
		}
	}
}
