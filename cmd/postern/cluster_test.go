// Tests of how a node finds out who and where it is.

package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern/postern/configs"
)

func TestAdvertised(t *testing.T) {
	addrs := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for name, tc := range map[string]struct {
		bind, advertise, fly string
		own                  []netip.Addr
		want                 string // "": where it is bound; ?: it has to be said
	}{
		"one address":              {bind: "192.0.2.7:7946", own: addrs("10.0.0.1")},
		"said":                     {bind: "[::]:7946", advertise: "fdaa::9", fly: "fdaa::3", want: "[fdaa::9]:0"},
		"said with a port":         {bind: "[::]:7946", advertise: "[fdaa::9]:17", want: "[fdaa::9]:17"},
		"at Fly":                   {bind: "[::]:7946", fly: "fdaa::3", own: addrs("127.0.0.1", "172.19.1.2", "fdaa::3", "fdaa::4"), want: "[fdaa::3]:0"},
		"at Fly, of both families": {bind: ":7946", fly: "fdaa::3", own: addrs("172.19.1.2"), want: "[fdaa::3]:0"},
		"at Fly, of the other":     {bind: "0.0.0.0:7946", fly: "fdaa::3", want: "?"},
		"one private address":      {bind: "0.0.0.0:7946", own: addrs("127.0.0.1", "10.0.0.1", "203.0.113.5", "fdaa::3", "169.254.1.1"), want: "10.0.0.1:0"},
		"of two families":          {bind: ":7946", own: addrs("10.0.0.1", "fdaa::3"), want: "?"},
		"two private addresses":    {bind: "0.0.0.0:7946", own: addrs("10.0.0.1", "172.17.0.1"), want: "?"},
		"none":                     {bind: "[::]:7946", own: addrs("::1", "fe80::1", "2001:db8::1"), want: "?"},
	} {
		got, err := advertised(configs.Cluster{Bind: tc.bind, Advertise: tc.advertise}, tc.fly, tc.own)
		switch {
		case tc.want == "?" && (err == nil || !strings.Contains(err.Error(), "cluster.advertise: is needed")):
			t.Errorf("%s: %v, %v", name, got, err)
		case tc.want == "?":
		case err != nil || addressText(got) != tc.want && (tc.want != "" || got.IsValid()):
			t.Errorf("%s: %v, %v, want %s", name, got, err, tc.want)
		}
	}
}

func TestNodeNameAndRegion(t *testing.T) {
	conf := &configs.Config{Listeners: []configs.Listener{{Address: "127.0.0.1:5"}}}
	t.Setenv("FLY_MACHINE_ID", "148e2d9f")
	t.Setenv("FLY_REGION", "ams")
	name := func(want string) {
		t.Helper()
		if got, err := nodeName(conf); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	name("148e2d9f")
	conf.Tenants.Postgres.Node = "n"
	name("n")
	conf.Cluster.Name = "c"
	name("c")
	if region(conf) != "ams" {
		t.Error(region(conf))
	}
	if conf.Region = "fra"; region(conf) != "fra" {
		t.Error(region(conf))
	}
}

// TestCheckConfigReadsTheClustersKeys, which it does not repeat.
func TestCheckConfigReadsTheClustersKeys(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"postern.yaml": "listeners: [{name: l, address: '127.0.0.1:0'}]\ntenants: {postgres: {dsn_file: dsn, key_file: store.key}}\ncluster: {bind: '127.0.0.1:7946', key_file: cluster.key}\n",
		"dsn":          "host=127.0.0.1 dbname=x\n",
		"store.key":    "k1 " + strings.Repeat("A", 43) + "=\n",
		"cluster.key":  "s3cret\n",
	})
	got := runCommand(t, "", "check-config", "--config", filepath.Join(dir, "postern.yaml"))
	if got.code != 1 || got.err == nil || !strings.Contains(got.err.Error(), "key file of the cluster") || strings.Contains(got.err.Error(), "s3cret") {
		t.Errorf("%+v", got)
	}
}

// TestCheckConfigMissesAdvertise where others could not be told at which address a node is.
func TestCheckConfigMissesAdvertise(t *testing.T) {
	const missing = "cluster.advertise: is needed"
	for _, tc := range []struct {
		bind, more, own string
		want            bool
	}{
		{"0.0.0.0:7946", "", "fdaa::3", true},
		{"[::]:7946", "", "10.0.0.1", true},
		{":7946", "", "203.0.113.1", true},
		{":7946", "", "fdaa::3", false},
		{"0.0.0.0:7946", "", "10.0.0.1", false},
		{"0.0.0.0:7946", ", advertise: 192.0.2.7", "fdaa::3", false},
		{"0.0.0.0:7946", ", advertise: '::'", "fdaa::3", false}, // which is told for itself
		{"localhost:7946", "", "fdaa::3", false},                // likewise
		{"10.0.0.1:7946", "", "fdaa::3", false},
	} {
		t.Setenv("FLY_PRIVATE_IP", tc.own)
		for _, wrong := range []string{"", "limits: {clients: -1}\n"} { // every mistake is told at once
			dir := writeFiles(t, map[string]string{
				"postern.yaml": wrong + "listeners: [{name: l, address: '127.0.0.1:0'}]\ntenants: {postgres: {dsn_file: dsn, key_file: store.key}}\n" +
					"cluster: {bind: '" + tc.bind + "', key_file: cluster.key" + tc.more + "}\n",
				"dsn":         "host=127.0.0.1 dbname=x\n",
				"store.key":   "k1 " + strings.Repeat("A", 43) + "=\n",
				"cluster.key": strings.Repeat("A", 43) + "=\n",
			})
			got := runCommand(t, "", "check-config", "--config", filepath.Join(dir, "postern.yaml"))
			if told := got.err != nil && strings.Contains(got.err.Error(), missing); told != tc.want || tc.want && got.code != exitFailed {
				t.Errorf("%+v, %q: %+v", tc, wrong, got)
			}
		}
	}
}
