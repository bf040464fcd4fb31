// Tests of whose token Fly's API is asked with about a machine.

package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/fakefly"
)

// TestMachinesOwnTokens: each machine is asked about with its tenant's token as it is now, also when it is nobody's any more, and is the
// same machine still.
func TestMachinesOwnTokens(t *testing.T) {
	api := fakefly.New(t, fakefly.Options{Unlimited: true})
	for _, app := range []string{"a", "b"} {
		api.AddMachine(app, "m", fakefly.NewMemory())
	}
	conf := configs.Default()
	conf.Machines.Fly = configs.FlyMachines{API: api.URL, TokenFile: api.TokenFile()}
	said := newOutput()
	d, err := newDrivers(&conf, slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	all, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	all.Subscribe(d.learn)
	of := func(id, app, token string) *tenants.Tenant {
		x := tenants.New(id)
		x.Machine = &tenants.Machine{Provider: tenants.ProviderFly, App: app, ID: "m", Token: tenants.NewSecret(token)}
		x.Complete()
		return x
	}
	drivers := make(map[string]machines.Driver)
	put := func(x *tenants.Tenant) {
		t.Helper()
		if err := all.Put(x); err != nil {
			t.Fatal(err)
		}
		driver, err := d.of(x)
		if err != nil {
			t.Fatal(err)
		}
		if was := drivers[x.Machine.App]; was != nil && was != driver {
			t.Errorf("%s has another machine now", x.ID)
		}
		drivers[x.Machine.App] = driver
	}
	asked := func(app string, kind machines.Kind) {
		t.Helper()
		_, err := drivers[app].State(t.Context())
		if (err == nil) != (kind == 0) || err != nil && machines.KindOf(err) != kind {
			t.Errorf("machine of %s: %v", app, err)
		}
	}
	api.SetAppToken("a", "s3cret-a")
	api.SetAppToken("b", "s3cret-b")
	put(of("one", "a", "s3cret-a"))
	put(of("two", "b", ""))
	asked("a", 0)
	asked("b", machines.Auth) // all's
	put(of("two", "b", "s3cret-b"))
	asked("b", 0)
	asked("a", 0)
	api.SetAppToken("a", "s3cret-new")
	asked("a", machines.Auth)
	put(of("one", "a", "s3cret-new"))
	all.Remove("one")
	asked("a", 0) // nobody has asked with the new one before it was nobody's
	put(of("three", "a", "s3cret-b"))
	asked("a", machines.Auth)
	all.Remove("two")
	put(of("two", "b", "")) // another tenant, or this one again: with all's
	asked("b", machines.Auth)
	refused := 0
	for _, c := range api.Calls() {
		if c.Status == http.StatusUnauthorized {
			refused++
		}
	}
	if refused != 4 || strings.Contains(said.String(), "s3cret") {
		t.Errorf("%d calls were refused\n%s", refused, said)
	}
}

// TestFitsWithoutAToken: who has a token of its own needs none of all, but the address of the API.
func TestFitsWithoutAToken(t *testing.T) {
	conf := configs.Default()
	x := tenants.New("acme")
	x.Machine = &tenants.Machine{Provider: tenants.ProviderFly, App: "a", ID: "m"}
	own := *x
	own.Machine = &tenants.Machine{Provider: tenants.ProviderFly, App: "a", ID: "m", Token: tenants.NewSecret("s3cret")}
	for _, step := range []struct {
		fly configs.FlyMachines
		of  *tenants.Tenant
		ok  bool
	}{
		{configs.FlyMachines{}, x, false}, {configs.FlyMachines{}, &own, false},
		{configs.FlyMachines{API: "http://localhost"}, x, false}, {configs.FlyMachines{API: "http://localhost"}, &own, true},
		{configs.FlyMachines{API: "http://localhost", TokenFile: "t"}, x, true}, {configs.FlyMachines{API: "http://localhost", TokenFile: "t"}, &own, true},
	} {
		conf.Machines.Fly = step.fly
		if err := fits(&conf, step.of); (err == nil) != step.ok {
			t.Errorf("%+v, %+v: %v", step.fly, step.of.Machine, err)
		}
	}
}
