// The file of what servers have reported: written, read again, bounded, and broken.

package proxy

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/proxy/pgwire"
)

// TestKnownFile: what is known outlives the process, and a file that is none is said and costs nothing else.
func TestKnownFile(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	path := filepath.Join(t.TempDir(), "folder", "known.json")
	k := OpenKnown(path, log)
	pool := knownPool{"acme", "local/acme", "app", "app"}
	set := knownSet{Status: []pgwire.Param{{Name: "server_version", Value: "17"}}}
	k.put(pool, set)
	k.save()
	if diff := cmp.Diff([]knownSet{set}, OpenKnown(path, log).sets(pool)); diff != "" || said.Len() > 0 {
		t.Errorf("%s %s", diff, &said)
	}

	pipe := filepath.Join(t.TempDir(), "known.json")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := OpenKnown(pipe, log).sets(pool); got != nil || !strings.Contains(said.String(), "not a regular file") {
		t.Errorf("%v, said: %s", got, &said)
	}
}
