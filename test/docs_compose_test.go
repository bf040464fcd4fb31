// compose.yaml beside what it starts: the files that it mounts load, and agree with it and with each other.

package test

import (
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/file"
)

// compose is what the test looks at in compose.yaml. A key that is not here is an error.
type compose struct {
	Services map[string]struct {
		Build       string
		Image       string
		Ports       []string
		Volumes     []string
		Environment map[string]string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		StopGrace   string                                `yaml:"stop_grace_period"`
		Healthcheck struct {
			Test     []string
			Interval string
			Retries  int
		}
	}
}

const composePassword = "change-me-app"

func TestCompose(t *testing.T) {
	var c compose
	d := yamlv3.NewDecoder(strings.NewReader(read(t, "../compose.yaml")))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	gate, server := c.Services["postern"], c.Services["postgres"]
	if len(c.Services) != 2 || gate.Build != "." || !strings.HasPrefix(server.Image, "postgres:") || gate.DependsOn["postgres"].Condition != "service_healthy" {
		t.Fatalf("got %+v", c)
	}

	// The Dockerfile's CMD finds the configuration below what is mounted.
	conf, err := configs.Load(mounted(t, gate.Volumes, configOfTheImage(t)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := file.Load(file.Options{Path: conf.Tenants.File, CheckVerifier: func(text string) error {
		_, err := scram.ParseVerifier(text)
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := conf.CheckExposure(s.AnyAllowList()); err != nil {
		t.Error(err)
	}

	// Every port that is published is listened on, and only on this computer's own address.
	listened := map[string]bool{portOf(t, conf.Admin.Address): true}
	for _, l := range conf.Listeners {
		listened[portOf(t, l.Address)] = true
	}
	for _, p := range gate.Ports {
		parts := strings.Split(p, ":")
		if len(parts) != 3 || parts[0] != "127.0.0.1" || parts[1] != parts[2] || !listened[parts[2]] {
			t.Errorf("port %q: listened on are %v", p, listened)
		}
		delete(listened, parts[len(parts)-1])
	}
	if len(listened) > 0 {
		t.Errorf("not published: %v", listened)
	}
	if grace, err := time.ParseDuration(gate.StopGrace); err != nil || grace <= conf.Timeouts.Drain {
		t.Errorf("stop_grace_period %s (%v), drain %v", gate.StopGrace, err, conf.Timeouts.Drain)
	}

	// The tenant's server is the other service, which makes the role with the same verifier, and its database.
	scripts, err := filepath.Glob(filepath.Join(mounted(t, server.Volumes, "/docker-entrypoint-initdb.d"), "*.sql"))
	if err != nil || len(scripts) != 1 {
		t.Fatalf("scripts %v, %v", scripts, err)
	}
	sql := read(t, scripts[0])
	for _, tenant := range s.Tenants {
		if _, ok := c.Services[tenant.Upstream.Host]; !ok || tenant.Upstream.TLS != tenants.TLSDisable {
			t.Errorf("tenant %s is at %+v", tenant.ID, tenant.Upstream)
		}
		if !strings.Contains(sql, "CREATE DATABASE "+tenant.Database+" ") {
			t.Errorf("nobody makes database %s", tenant.Database)
		}
		for name, u := range tenant.Users {
			if !strings.Contains(sql, "CREATE ROLE "+name+" LOGIN PASSWORD '"+u.Verifier.Reveal()+"';") {
				t.Errorf("nobody makes role %s with its verifier", name)
			}
			checkPassword(t, u.Verifier.Reveal(), composePassword)
			url := "postgres://" + name + "." + tenant.ID + ":" + composePassword + "@localhost:6543/" + tenant.Database
			for _, file := range []string{"../compose.yaml", "../README.md"} {
				if !strings.Contains(read(t, file), "psql '"+url+"'") {
					t.Errorf("%s does not show %s", file, url)
				}
			}
		}
	}
}

// configOfTheImage is the file that the Dockerfile's CMD names.
func configOfTheImage(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^CMD \["serve", "--config", "([^"]+)"\]$`).FindStringSubmatch(read(t, "../Dockerfile"))
	if m == nil {
		t.Fatal("the Dockerfile's CMD is not understood")
	}
	return m[1]
}

// mounted is what a path in a container is on this side.
func mounted(t *testing.T, volumes []string, name string) string {
	t.Helper()
	for _, v := range volumes {
		parts := strings.Split(v, ":")
		if len(parts) != 3 || parts[2] != "ro" {
			t.Fatalf("volume %q", v)
		}
		rest, ok := strings.CutPrefix(name, parts[1])
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		here := filepath.Join("..", parts[0], filepath.FromSlash(path.Clean("/"+rest)))
		if _, err := os.Stat(here); err != nil {
			t.Fatal(err)
		}
		return here
	}
	t.Fatalf("nothing is mounted at %s", name)
	return ""
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "0.0.0.0" {
		t.Errorf("%s is not for a container's network (%v)", address, err)
	}
	return port
}

// checkPassword says whether a verifier was made of a password.
func checkPassword(t *testing.T, text, password string) {
	t.Helper()
	v, err := scram.ParseVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := scram.NewVerifier(password, v.Iterations, v.Salt)
	if err != nil || !again.Equal(v) {
		t.Errorf("the verifier is not one of %s (%v)", password, err)
	}
}
