// Another key for all secrets, while nodes serve: one is waited for by its name, and the command may be killed.

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// TestStoreRotateKey: the command is killed while a node lacks the new key, and goes on with the same one; clients of both nodes
// notice nothing, and the old key can go.
func TestStoreRotateKey(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	key := filepath.Join(w.dir, "store.key")
	here := w.node("here")
	away := filepath.Join(w.dir, "away.key")
	read := func(path string) []byte {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write(t, away, read(key))
	w.tenants["postgres"].(harness.Map)["key_file"] = away
	there := w.node("there")
	conns := []*pgx.Conn{here.mustLogin(t, "acme"), there.mustLogin(t, "acme")}

	if out := w.command("rotate-key", "--dry-run"); !strings.Contains(out, "rows with key k2") || !strings.Contains(out, "node there has k1\n") {
		t.Errorf("--dry-run says %q", out)
	}
	start := func() (*exec.Cmd, *harness.Log) {
		t.Helper()
		said := new(harness.Log)
		cmd := exec.CommandContext(t.Context(), harness.Binary(t), "store", "rotate-key", "--config", filepath.Join(w.dir, "postern.yaml"))
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, said
	}
	says := func(said *harness.Log, text string) {
		t.Helper()
		harness.Eventually(t, harness.Patience, "it says "+text, func() bool { return said.Contains(text) })
	}
	killed, said := start()
	says(said, "waiting for nodes to have key k2: give them the key file\n  there has k1\n")
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	cmd, said := start()
	says(said, "being changed to key k2: going on\n")
	write(t, away, read(key))
	says(said, "  there seals with k1\n")
	write(t, away, read(key))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	says(said, "nothing needs k1 any more")
	for _, path := range []string{key, away} {
		lines := strings.Split(string(read(path)), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "k1 ") {
				lines[i] = ""
			}
		}
		write(t, path, []byte(strings.Join(lines, "\n")))
	}
	for _, conn := range conns {
		if v := value(t, conn, "select 1"); v != "1" {
			t.Error(v)
		}
	}
	w.acme["pool"] = harness.Map{"size": 3}
	w.load(w.acme) // with the new key alone
	for _, g := range []*gate{here, there} {
		g.mustLogin(t, "acme")
	}
	for what, text := range map[string]string{"the logs": here.Log().String() + there.Log().String(), "the command": said.String()} {
		for line := range strings.Lines(string(read(key))) {
			if fields := strings.Fields(line); len(fields) == 2 && !strings.HasPrefix(line, "#") && strings.Contains(text, fields[1]) {
				t.Errorf("%s have a key", what)
			}
		}
	}
}
