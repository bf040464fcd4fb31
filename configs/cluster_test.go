// Tests of what the configuration says about other nodes.

package configs

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidateCluster(t *testing.T) {
	const (
		badName  = "cluster.name: must be letters, digits and any of . : _ -, 64 at most"
		badTold  = "cluster.advertise: must be an IP address, perhaps with a port, such as fdaa::3 or 192.0.2.7:7946"
		noTold   = "cluster.advertise: must be an address at which others reach this node"
		badKind  = "cluster.advertise: nobody can reach it: cluster.bind is every address of the other family; with no host, such as :7946, it is those of both"
		badSeed  = "cluster.join[0]: must be an IP address or a DNS name, perhaps with a port, such as my-postern.internal or [fdaa::3]:7946"
		badPort  = "cluster.join[0]: its port must be a number from 1 to 65535"
		badNodes = "cluster.max_nodes: must be from 1 to 1000"
	)
	for _, tc := range []struct {
		name   string
		change func(c *Config)
		want   string // problems, joined with newlines
	}{
		{"as it is", func(*Config) {}, ""},
		{"none", func(c *Config) { c.Cluster = Cluster{} }, ""},
		{"none, and tenants in a file", func(c *Config) { c.Cluster, c.Tenants = Cluster{}, Tenants{File: "f"} }, ""},
		{"tenants in a file", func(c *Config) { c.Tenants = Tenants{File: "f"} }, "cluster: needs tenants.postgres: nodes agree by what stands there"},
		{"nothing but a name", func(c *Config) { c.Cluster = Cluster{Name: "a", MaxNodes: 1} },
			"cluster.bind: is missing: an address such as [::]:7946\ncluster.key_file: is missing: openssl rand -base64 32 makes one, which all nodes share"},
		{"name", func(c *Config) { c.Cluster.Name = "gate/1" }, badName},
		{"the name of the node", func(c *Config) { c.Cluster.Name, c.Tenants.Postgres.Node = "a", "a" }, ""},
		{"another than the node's", func(c *Config) { c.Cluster.Name, c.Tenants.Postgres.Node = "a", "b" },
			"cluster.name: is another one than tenants.postgres.node: a node has one name, and one of the two is enough"},
		{"a host's name to bind", func(c *Config) { c.Cluster.Bind = "localhost:7946" }, "cluster.bind: its host must be an IP address, not a name, or be left out"},
		{"no room for the next port", func(c *Config) { c.Cluster.Bind = "[::]:65535" }, "cluster.bind: its port must be below 65535: the next one is for calls of other nodes"},
		{"a listener's port", func(c *Config) { c.Cluster.Bind = "127.0.0.1:6432" }, "cluster.bind: its port or the next one, which is for calls of other nodes, is that of listeners[0]"},
		{"the port before a listener's", func(c *Config) { c.Cluster.Bind = "127.0.0.1:6431" }, "cluster.bind: its port or the next one, which is for calls of other nodes, is that of listeners[0]"},
		{"the port before admin's", func(c *Config) { c.Cluster.Bind, c.Admin.Address = "127.0.0.1:9186", "127.0.0.1:9187" },
			"cluster.bind: its port or the next one, which is for calls of other nodes, is that of admin.address"},
		{"advertised", func(c *Config) { c.Cluster.Advertise = "fdaa::3" }, ""},
		{"advertised with a port", func(c *Config) { c.Cluster.Advertise = "[fdaa::3]:7000" }, ""},
		{"advertised by name", func(c *Config) { c.Cluster.Advertise = "gate.internal" }, badTold},
		{"advertised everywhere", func(c *Config) { c.Cluster.Advertise = "::" }, noTold},
		{"advertised without a next port", func(c *Config) { c.Cluster.Advertise = "192.0.2.7:65535" }, noTold},
		{"advertised in IPv4, all of IPv6 bound", func(c *Config) { c.Cluster.Bind, c.Cluster.Advertise = "[::]:7946", "192.0.2.7" }, badKind},
		{"advertised in IPv6, all of IPv4 bound", func(c *Config) { c.Cluster.Bind, c.Cluster.Advertise = "0.0.0.0:7946", "fdaa::3" }, badKind},
		{"advertised in IPv4, all bound", func(c *Config) { c.Cluster.Bind, c.Cluster.Advertise = ":7946", "192.0.2.7" }, ""},
		{"seeds", func(c *Config) {
			c.Cluster.Join = []string{"my-postern.internal", "localhost:7946", "192.0.2.7", "fdaa::3", "[fdaa::3]:7946"}
		}, ""},
		{"a seed with a scheme", func(c *Config) { c.Cluster.Join = []string{"http://h"} }, badPort},
		{"a seed that is no name", func(c *Config) { c.Cluster.Join = []string{"h h"} }, badSeed},
		{"an empty seed", func(c *Config) { c.Cluster.Join = []string{""} }, badSeed},
		{"a seed's port", func(c *Config) { c.Cluster.Join = []string{"h:0"} }, badPort},
		{"no nodes", func(c *Config) { c.Cluster.MaxNodes = -1 }, badNodes},
		{"too many nodes", func(c *Config) { c.Cluster.MaxNodes = 1001 }, badNodes},
		{"region", func(c *Config) { c.Region = "in Amsterdam" }, "region: must be letters, digits and any of . : _ -, 64 at most"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := valid()
			c.Tenants = Tenants{Postgres: TenantsPostgres{DSNFile: "d", KeyFile: "k"}}
			c.Cluster = Cluster{Bind: "127.0.0.1:7946", KeyFile: "c", MaxNodes: 3}
			tc.change(&c)
			got := strings.Join(messages(t, c.Validate()), "\n")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestClusterDefaults(t *testing.T) {
	base := strings.Replace(minimal, "tenants:\n  file: tenants.yaml", "tenants: {postgres: {dsn_file: a, key_file: b}}", 1)
	c, err := loadBytes([]byte(base+"cluster: {bind: '[::]:7946', key_file: cluster.key}\n"), "/d")
	if err != nil {
		t.Fatal(err)
	}
	if c.Cluster.MaxNodes != DefaultMaxNodes || c.Cluster.KeyFile != "/d/cluster.key" {
		t.Errorf("got %+v", c.Cluster)
	}
	if c, err = loadBytes([]byte(base), "/d"); err != nil || c.Cluster.Configured() {
		t.Errorf("without a cluster: %+v, %v", c.Cluster, err)
	}
}

func TestAdvertiseAddress(t *testing.T) {
	for text, want := range map[string]netip.AddrPort{
		"":                     {},
		"192.0.2.7":            netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), 0),
		"::ffff:192.0.2.7":     netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), 0),
		"[::ffff:192.0.2.7]:5": netip.MustParseAddrPort("192.0.2.7:5"),
		"fdaa::3":              netip.AddrPortFrom(netip.MustParseAddr("fdaa::3"), 0),
		"[fdaa::3]:7946":       netip.MustParseAddrPort("[fdaa::3]:7946"),
	} {
		if got, err := (Cluster{Advertise: text}).AdvertiseAddress(); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
