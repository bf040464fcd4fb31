// Supabase's own CLI, unchanged, with Postern for its API.

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// projectRef has the form that the CLI takes for a project's.
const projectRef = "abcdefghijklmnopqrst"

// cliLimit bounds one run of the CLI, which takes a second or two.
const cliLimit = 3 * time.Minute

// supabase is the CLI for one project.
type supabase struct {
	t           *testing.T
	home, token string
}

func newSupabase(t *testing.T, api, token string) *supabase {
	t.Helper()
	s := &supabase{t, t.TempDir(), token}
	write(t, filepath.Join(s.home, "profile.yaml"), []byte("name: postern\napi_url: "+api+"\ndashboard_url: "+api+"\nproject_host: example.com\n"))
	return s
}

// run runs a command, and fails the test unless it succeeds or, with fails, does not.
func (s *supabase) run(fails bool, command string) string {
	s.t.Helper()
	program, err := filepath.Abs(filepath.Join("..", "..", ".cache", "supabase-npm", "node_modules", "@supabase", "cli-linux-x64", "bin", "supabase"))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), cliLimit)
	defer cancel()
	args := append(strings.Fields(command), "--project-ref", projectRef, "--experimental", "--yes", "--profile", filepath.Join(s.home, "profile.yaml"))
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.home
	cmd.Env = append(cmd.Environ(), "HOME="+s.home, "SUPABASE_ACCESS_TOKEN="+s.token, "SUPABASE_TELEMETRY_DISABLED=1", "DO_NOT_TRACK=1", "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if (err != nil) != fails {
		s.t.Fatalf("supabase %s: %v\n%s", command, err, out)
	}
	if strings.Contains(string(out), s.token) {
		s.t.Errorf("supabase %s tells the token", command)
	}
	return string(out)
}

// printed fails the test unless a text has all of these parts.
func printed(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
}

// TestSupabaseCLI: what it is told is in force when it says so. Each command takes a second or more.
func TestSupabaseCLI(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.acme["id"] = projectRef
	w.command("init")
	w.load(w.acme)
	g := &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: harness.Map{"tenants": w.tenants,
		"auth": harness.Map{"throttle": harness.Map{"tenant_failures": 3, "address_failures": 1000, "window": "10m", "block": "1h"}}}})}
	made := g.api(t, g.Token, "POST", "/v1/tokens", harness.Map{"name": "cli", "scope": "tenant:write", "tenant": projectRef, "form": "supabase"}).want(t, 201).body
	cli := newSupabase(t, g.AdminURL(), fmt.Sprint(made["token"]))
	// A command waits for a second until the change is in force; a busy computer may need longer.
	applied := func() { t.Helper(); g.everywhere(t, projectRef) }

	applied()
	printed(t, cli.run(false, "network-restrictions get"), "0.0.0.0/0", "::/0", "Restrictions applied successfully: true")
	session := g.mustLogin(t, projectRef)
	printed(t, cli.run(false, "network-restrictions update --db-allow-cidr 203.0.113.0/24 --db-allow-cidr 2001:db8::/32"),
		"203.0.113.0/24", "2001:db8::/32")
	applied()
	ends(t, session, "57P01")
	_, err := g.login(t, projectRef)
	wantState(t, err, "28000")
	printed(t, cli.run(false, "network-restrictions update --append --bypass-cidr-checks --db-allow-cidr 127.0.0.0/8"), "127.0.0.0/8", "203.0.113.0/24")
	applied()
	session = g.mustLogin(t, projectRef)

	if got := g.tries(t, projectRef, 3, "password=wrong"); got["28P01"] != 3 {
		t.Errorf("guesses: %v", got)
	}
	_, err = g.login(t, projectRef)
	wantState(t, err, "53400")
	printed(t, cli.run(false, "network-bans get"), `"127.0.0.1"`)
	cli.run(false, "network-bans remove --db-unban-ip 127.0.0.1")
	g.mustLogin(t, projectRef)

	cli.run(false, "ssl-enforcement update --enable-db-ssl-enforcement")
	applied()
	ends(t, session, "57P01") // which has none
	_, err = g.login(t, projectRef)
	wantState(t, err, "28000")
	printed(t, cli.run(false, "ssl-enforcement get"), "SSL is being enforced")

	if !harness.Long() {
		return
	}
	if out := cli.run(false, "network-bans get"); strings.Contains(out, "127.0.0.1") {
		t.Errorf("still banned:\n%s", out)
	}
	printed(t, cli.run(false, "ssl-enforcement update --disable-db-ssl-enforcement"), "SSL is *NOT* being enforced")
	applied()
	g.mustLogin(t, projectRef)
	printed(t, cli.run(true, "network-restrictions update --db-allow-cidr 203.0.113.7/24"), "write 203.0.113.0/24") // our words
	g.api(t, g.Token, "DELETE", fmt.Sprint("/v1/tokens/", made["id"]), nil).want(t, 200)
	printed(t, cli.run(true, "ssl-enforcement get"), "the bearer token is not a valid one")
}
