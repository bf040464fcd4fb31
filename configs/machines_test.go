// Tests of what the configuration says about machines.

package configs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidateMachines(t *testing.T) {
	const (
		noURL = "machines.fly.api: must be a URL, such as http://_api.internal:4280 or https://api.machines.dev"
		more  = "machines.fly.api: must end after its host and port"
		user  = "machines.fly.api: must not hold a user: the token is in token_file"
	)
	api := func(address string) Machines { return Machines{Fly: FlyMachines{API: address, TokenFile: "t"}} }
	for _, tc := range []struct {
		name string
		m    Machines
		want string // problems, joined with newlines
	}{
		{"none", Machines{}, ""},
		{"local ones", Machines{Local: LocalMachines{Dir: "d"}}, ""},
		{"from inside", api("http://_api.internal:4280"), ""},
		{"from outside", api("https://api.machines.dev"), ""},
		{"slash at the end", api("https://api.machines.dev/"), ""},
		{"IPv6", api("http://[::1]:4280"), ""},
		{"both", Machines{FlyMachines{"http://h", "t"}, LocalMachines{"d"}, "s"}, ""},
		{"no API", api(""), noURL},
		{"no scheme", api("_api.internal:4280"), noURL},
		{"host alone", api("api.machines.dev"), noURL},
		{"other scheme", api("unix:///.fly/api"), noURL},
		{"no host", api("http://:4280"), noURL},
		{"no URL", api("http://a b"), noURL},
		{"no port", api("http://h:port"), noURL},
		{"user", api("https://s3cret@h"), user},
		{"password", api("https://u:s3cret@h"), user},
		{"query", api("https://h?token=s3cret"), more},
		{"empty query", api("https://h?"), more},
		{"fragment", api("https://h#s3cret"), more},
		{"empty fragment", api("https://h#"), more},
		{"path", api("https://h/v1"), more},
		{"tenants' own tokens alone", Machines{Fly: FlyMachines{API: "https://h"}}, ""},
		{"state of nothing", Machines{StateFile: "s"}, "machines.state_file: has no meaning without machines.fly or machines.local"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := valid()
			c.Machines = tc.m
			got := strings.Join(messages(t, c.Validate()), "\n")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestFlyAPIDefault(t *testing.T) {
	c, err := loadBytes([]byte(minimal+"machines: {fly: {token_file: fly.token}}\n"), "/d")
	if err != nil {
		t.Fatal(err)
	}
	if want := (FlyMachines{"http://_api.internal:4280", "/d/fly.token"}); c.Machines.Fly != want {
		t.Errorf("got %+v, want %+v", c.Machines.Fly, want)
	}
}

func TestKnownFile(t *testing.T) {
	for yaml, want := range map[string]string{
		"":                                 "",
		"machines: {fly: {token_file: t}}": "",
		"machines: {fly: {token_file: t}, state_file: x/s.json}":          "/d/x/s.json",
		"machines: {fly: {token_file: t}, local: {dir: clusters}}":        "/d/clusters/known.json",
		"machines: {local: {dir: /var/lib/clusters}}":                     "/var/lib/clusters/known.json",
		"machines: {local: {dir: clusters}, state_file: /var/state.json}": "/var/state.json",
	} {
		c, err := loadBytes([]byte(minimal+yaml+"\n"), "/d")
		if err != nil {
			t.Errorf("%s: %v", yaml, err)
		} else if got := c.Machines.KnownFile(); got != want {
			t.Errorf("%s: got %q, want %q", yaml, got, want)
		}
	}
}

func TestCheckProviders(t *testing.T) {
	const (
		noToken = `machines.fly.token_file: is missing, while tenant "acme" has a machine there and no token of its own`
		noFly   = `machines.fly: is missing, while tenant "acme" has a machine there`
		noLocal = `machines.local: is missing, while tenant "globex" has a machine there`
	)
	fly, local := Machines{Fly: FlyMachines{API: DefaultFlyAPI, TokenFile: "t"}}, Machines{Local: LocalMachines{Dir: "d"}}
	own, all := Machines{Fly: FlyMachines{API: DefaultFlyAPI}}, map[string]string{"fly": "other", "fly.token_file": "acme"}
	uses := map[string]string{"fly": "acme", "local": "globex"}
	for _, tc := range []struct {
		name string
		m    Machines
		uses map[string]string
		want []string
	}{
		{"nothing, for nobody", Machines{}, nil, nil},
		{"all, for nobody", Machines{Fly: fly.Fly, Local: local.Local}, nil, nil},
		{"all, for all", Machines{Fly: fly.Fly, Local: local.Local}, uses, nil},
		{"nothing, for all", Machines{}, uses, []string{noFly, noLocal}},
		{"Fly's, for all", fly, uses, []string{noLocal}},
		{"local ones, for all", local, uses, []string{noFly}},
		{"local ones, for local ones", local, map[string]string{"local": "globex"}, nil},
		{"own tokens, and one for all", fly, all, nil},
		{"own tokens, and none for all", own, map[string]string{"fly": "acme"}, nil},
		{"none for all, which one needs", own, all, []string{noToken}},
		{"nothing, for who has no token", Machines{}, map[string]string{"fly.token_file": "acme"}, []string{noToken}},
		{"a provider that nobody knows", fly, map[string]string{"other": "acme"}, []string{`machines.other: is missing, while tenant "acme" has a machine there`}},
	} {
		c := valid()
		c.Machines = tc.m
		if diff := cmp.Diff(tc.want, messages(t, c.CheckProviders(tc.uses))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tc.name, diff)
		}
	}
}
