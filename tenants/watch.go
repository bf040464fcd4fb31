// Reloading when files change.

package tenants

import (
	"context"
	"slices"
	"time"

	"github.com/postern/postern/files"
)

// Watch reloads when one of paths changes, or one of the other files that the current Snapshot was read from (password
// files, certificates). It reloads once at the start, so that no change since the first load is missed, and returns when
// ctx ends. A file that disappears is a failed reload, after which the last good Snapshot stays; when it comes back it is
// read again.
func (d *Directory) Watch(ctx context.Context, paths ...string) { d.watch(ctx, 0, paths) }

func (d *Directory) watch(ctx context.Context, rescan time.Duration, paths []string) {
	files.Watch{What: "tenants", Paths: func() []string { return slices.Concat(paths, d.Current().files) },
		Changed: d.Reload, Log: d.log, Rescan: rescan}.Run(ctx)
}
