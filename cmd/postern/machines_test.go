// Tests of what changed tenants mean for the clusters on this computer.

package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/tenants"
)

// TestClustersFollowTheirTenants: one whose users are what they were is left alone, and what failed is tried again when asked.
func TestClustersFollowTheirTenants(t *testing.T) {
	conf := configs.Default()
	conf.Machines.Local.Dir = t.TempDir()
	said := newOutput()
	d, err := newDrivers(&conf, slog.New(slog.NewTextHandler(said, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	all, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	all.Subscribe(d.changed)
	put := func(role string, size int) {
		t.Helper()
		x := tenants.New("a")
		x.Machine = &tenants.Machine{Provider: tenants.ProviderLocal, Name: "m"}
		x.Users["u"] = &tenants.User{Name: "u", Password: tenants.NewSecret("p"), ServerUser: role}
		x.Pool.Size = size
		x.Complete()
		if err := all.Put(x); err != nil {
			t.Fatal(err)
		}
		if _, err := d.of(x); err != nil { // as a wake does
			t.Fatal(err)
		}
	}
	failures := func(want int) {
		t.Helper()
		if got := strings.Count(said.String(), "not as configured"); got != want {
			t.Errorf("%d failures, want %d", got, want)
		}
	}
	put("good", 1)
	failures(0)
	put("postgres", 1) // the superuser, which no cluster lets be a tenant's
	failures(1)
	put("postgres", 2)
	failures(1)
	d.again(all)
	failures(2)
	put("good", 2)
	if len(d.failed) > 0 {
		t.Errorf("what succeeds is going to be tried again: %v", d.failed)
	}
	d.again(all)
	failures(2)
	put("postgres", 2)
	all.Remove("a")
	d.again(all) // of nobody
	failures(3)
	if len(d.failed) > 0 {
		t.Errorf("left behind: %v", d.failed)
	}
}
