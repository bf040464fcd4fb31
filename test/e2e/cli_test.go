// The command line against two processes on one store.

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

// ask runs a command of the command line against a gate, and fails unless it ends with the code.
func (g *gate) ask(t *testing.T, stdin string, code int, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), args...)
	cmd.Env = append(os.Environ(), "POSTERN_API="+g.AdminURL(), "POSTERN_TOKEN="+g.Token)
	cmd.Stdin = strings.NewReader(stdin)
	out, _ := cmd.CombinedOutput() // whose error is the code
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("postern %s ended with %d, want %d:\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// TestCommandLine lives a tenant's life by commands on one node, and sees it on the other.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	a, b := w.node("a"), w.node("b")
	says := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("nothing of %q in\n%s", text, out)
			}
		}
	}

	verifier, err := scram.NewVerifier(harness.AppPassword, scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	var acme struct {
		Document json.RawMessage `json:"document"`
	}
	if err := json.Unmarshal([]byte(a.ask(t, "", 0, "tenant", "show", "acme")), &acme); err != nil {
		t.Fatal(err)
	}
	says(a.ask(t, string(acme.Document), 0, "tenant", "put", "globex", "-", "--create"), "in force everywhere")
	says(a.ask(t, string(acme.Document), 1, "tenant", "put", "globex", "-", "--create"), "(412)")
	says(a.ask(t, "pool: {size: 0}", 1, "tenant", "patch", "globex", "-"), "/pool/size")
	a.ask(t, "upstream: {user: "+harness.App+"}\nserver_password: "+harness.AppPassword+"\nverifier: \""+verifier.Encode()+"\"", 0, "user", "put", "globex", "app", "-")
	conn := b.mustLogin(t, "globex")
	says(b.ask(t, "", 0, "session", "list", "globex"), conn.Config().Database)
	says(a.ask(t, "", 0, "tenant", "list"), "acme", "globex")

	// Restrictions: a first rule that would end what is open is asked about.
	says(a.ask(t, "", 0, "restriction", "list", "globex"), "everybody")
	says(b.ask(t, "", 1, "restriction", "add", "globex", "203.0.113.0/24"), "confirm")
	says(b.ask(t, "", 0, "restriction", "add", "globex", "203.0.113.0/24", "--comment", "office", "--confirm"), "in force everywhere")
	ends(t, conn, "57P01")
	if _, err := a.login(t, "globex"); err == nil {
		t.Error("logged in from an address that is not allowed")
	}
	says(a.ask(t, "", 0, "restriction", "list", "globex"), "203.0.113.0/24", "office")
	says(a.ask(t, "", 0, "restriction", "check", "globex", "127.0.0.1"), "no")
	says(a.ask(t, "", 0, "restriction", "refused", "globex"), "127.0.0.1", "address")
	a.ask(t, "", 0, "restriction", "add", "globex", "127.0.0.0/8")
	b.mustLogin(t, "globex")
	says(b.ask(t, "", 0, "session", "end", "globex", "--all"), "ended")

	// Passwords, bans, tokens.
	a.ask(t, "another\n", 0, "user", "password", "globex", "app")
	if _, err := b.login(t, "globex"); err == nil {
		t.Error("the old password is good")
	}
	a.ask(t, harness.AppPassword+"\n", 0, "user", "password", "globex", "app")
	b.mustLogin(t, "globex")
	a.ask(t, "", 0, "ban", "add", "globex", "198.51.100.7", "--for", "1h")
	says(a.ask(t, "", 0, "ban", "list", "globex"), "198.51.100.7")
	a.ask(t, "", 0, "ban", "lift", "globex", "198.51.100.7")
	token := strings.Fields(a.ask(t, "", 0, "token", "make", "ci", "--scope", "tenant:read", "--tenant", "globex"))
	made := token[len(token)-1]
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, []byte(made))
	says(b.ask(t, "", 0, "tenant", "show", "globex", "--token-file", path), `"id": "globex"`)
	says(b.ask(t, "", 1, "tenant", "show", "acme", "--token-file", path), "(404)")
	says(b.ask(t, "", 1, "user", "delete", "globex", "app", "--yes", "--token-file", path), "(403)")
	var tokens struct {
		Tokens []struct{ ID, Name string }
	}
	if err := json.Unmarshal([]byte(a.ask(t, "", 0, "token", "list", "--json")), &tokens); err != nil || len(tokens.Tokens) != 1 || tokens.Tokens[0].Name != "ci" {
		t.Fatalf("%+v, %v", tokens, err)
	}
	a.ask(t, "", 0, "token", "revoke", tokens.Tokens[0].ID)
	harness.Eventually(t, harness.Patience, "the token is not good any more", func() bool {
		cmd := exec.CommandContext(t.Context(), harness.Binary(t), "tenant", "show", "globex", "--api", b.AdminURL(), "--token-file", path)
		out, _ := cmd.CombinedOutput()
		return strings.Contains(string(out), "(401)")
	})

	says(a.ask(t, "", 0, "audit", "list", "--tenant", "globex"), "tenant.put", "pool.size", "user.patch")
	says(a.ask(t, "", 0, "audit", "verify", "--config", filepath.Join(w.dir, "postern.yaml")), "as they were written")
	says(a.ask(t, "", 0, "cluster", "status"), "NODE")
	says(a.ask(t, "", 2, "tenant", "delete", "globex"), "--yes")
	a.ask(t, "", 0, "tenant", "delete", "globex", "--yes")
	if _, err := b.login(t, "globex"); err == nil {
		t.Error("logged in at a tenant that is gone")
	}
}
