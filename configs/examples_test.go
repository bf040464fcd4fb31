// Tests of the example files, and that they agree with each other.

package configs

import (
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/viper"
)

func TestExampleLoads(t *testing.T) {
	c, err := Load("postern.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckExposure(true); err != nil {
		t.Errorf("not safe with an allow_list: %v", err)
	}
	if err := c.CheckProviders(map[string]string{"fly.token_file": "initech"}); err != nil {
		t.Errorf("not enough for tenants.example.yaml: %v", err)
	}
	if c.Machines.Fly.API != DefaultFlyAPI {
		t.Errorf("shows %s, the default is %s", c.Machines.Fly.API, DefaultFlyAPI)
	}
	// Its comments say that it shows the defaults.
	d := Default()
	if c.Auth.Throttle != d.Auth.Throttle || c.Timeouts != d.Timeouts || c.Limits != d.Limits || c.Loops != d.Loops || c.IOUring != d.IOUring || c.TCP != d.TCP || c.Log != d.Log {
		t.Errorf("shows %+v\nthe defaults are %+v", *c, d)
	}
}

// TestExampleCommentedPartsLoad takes the comment signs off the examples inside comments.
func TestExampleCommentedPartsLoad(t *testing.T) {
	text, err := os.ReadFile("postern.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	on := strings.NewReplacer("# tls:", "tls:", "#   certificates:", "  certificates:", "#     - {cert", "    - {cert",
		"#   tenant_domain:", "  tenant_domain:", "  # mock_secret_file", "  mock_secret_file",
		"  # token_file", "  token_file", "  # local:", "  local:", "  #   dir:", "    dir:", "  # state_file:", "  state_file:",
		"  file: tenants.example.yaml", "  # file", "  # postgres:", "  postgres:", "  #   dsn_file", "    dsn_file", "  #   key_file", "    key_file",
		"# region:", "region:", "# cluster:", "cluster:", "#   name:", "  name:", "#   bind:", "  bind:", "#   advertise:", "  advertise:", "#   join:", "  join:",
		"#   key_file: cluster", "  key_file: cluster", "#   max_nodes:", "  max_nodes:").Replace(string(text))
	c, err := loadBytes([]byte(on), "/d")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.TLS.Certificates) != 1 || c.TLS.TenantDomain == "" || c.Auth.MockSecretFile == "" || c.Admin.TokenFile == "" {
		t.Errorf("got %+v, %+v, %+v", c.TLS, c.Auth, c.Admin)
	}
	if c.Region == "" || c.Cluster.Name == "" || len(c.Cluster.Join) != 1 || c.Cluster.KeyFile != "/d/cluster.key" || c.Cluster.MaxNodes != DefaultMaxNodes {
		t.Errorf("got %q, %+v", c.Region, c.Cluster)
	}
	if c.Machines.Local.Dir == "" || c.Machines.KnownFile() != "/d/known.json" {
		t.Errorf("got %+v", c.Machines)
	}
}

// TestExampleMentionsEveryBuiltKey keeps the example complete.
func TestExampleMentionsEveryBuiltKey(t *testing.T) {
	text, err := os.ReadFile("postern.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(t reflect.Type) []string
	walk = func(t reflect.Type) (keys []string) {
		for key, field := range fieldsByKey(t) {
			keys = append(keys, key)
			if field.Kind() == reflect.Slice {
				field = field.Elem()
			}
			if isSection(field) {
				keys = append(keys, walk(field)...)
			}
		}
		return keys
	}
	for _, key := range walk(reflect.TypeFor[Config]()) {
		if !strings.Contains(string(text), key+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

// fly is what the tests look at in fly.toml.
type fly struct {
	KillSignal  string `mapstructure:"kill_signal"`
	KillTimeout int    `mapstructure:"kill_timeout"`
	Services    []struct {
		InternalPort int    `mapstructure:"internal_port"`
		Protocol     string `mapstructure:"protocol"`
		Concurrency  struct {
			Hard int `mapstructure:"hard_limit"`
		} `mapstructure:"concurrency"`
		Ports []struct {
			Port     int      `mapstructure:"port"`
			Handlers []string `mapstructure:"handlers"`
			Options  struct {
				Version string `mapstructure:"version"`
			} `mapstructure:"proxy_proto_options"`
		} `mapstructure:"ports"`
	} `mapstructure:"services"`
	Checks map[string]struct {
		Port int    `mapstructure:"port"`
		Path string `mapstructure:"path"`
	} `mapstructure:"checks"`
	Metrics struct {
		Port int    `mapstructure:"port"`
		Path string `mapstructure:"path"`
	} `mapstructure:"metrics"`
}

func TestFlyAgreesWithTheExample(t *testing.T) {
	c, err := Load("postern.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	v := viper.New()
	v.SetConfigFile("fly.toml")
	if err := v.ReadInConfig(); err != nil {
		t.Fatal(err)
	}
	var f fly
	if err := v.Unmarshal(&f); err != nil {
		t.Fatal(err)
	}

	var served, want []string
	for _, l := range c.Listeners {
		if l.ProxyProtocol == ProxyRequire {
			want = append(want, l.Address)
		}
	}
	for _, s := range f.Services {
		served = append(served, "0.0.0.0:"+strconv.Itoa(s.InternalPort))
		if len(s.Ports) != 1 || s.Ports[0].Port != s.InternalPort || !slices.Equal(s.Ports[0].Handlers, []string{"proxy_proto"}) ||
			s.Ports[0].Options.Version != "v2" || s.Protocol != "tcp" {
			t.Errorf("service %d: %+v", s.InternalPort, s)
		}
		if s.Concurrency.Hard != c.Limits.Clients {
			t.Errorf("service %d: hard_limit %d, limits.clients %d", s.InternalPort, s.Concurrency.Hard, c.Limits.Clients)
		}
	}
	if !slices.Equal(sorted(served), sorted(want)) {
		t.Errorf("fly.toml serves %v, the example requires PROXY headers on %v", served, want)
	}
	admin := "0.0.0.0:" + strconv.Itoa(f.Metrics.Port)
	if admin != c.Admin.Address || f.Metrics.Path != "/metrics" || !c.Admin.MetricsPublic {
		t.Errorf("metrics %+v, admin %+v", f.Metrics, c.Admin)
	}
	if r := f.Checks["readyz"]; r.Port != f.Metrics.Port || r.Path != "/readyz" {
		t.Errorf("check %+v", r)
	}
	if f.KillSignal != "SIGTERM" || time.Duration(f.KillTimeout)*time.Second <= c.Timeouts.Drain {
		t.Errorf("%s after %d s, drain %v", f.KillSignal, f.KillTimeout, c.Timeouts.Drain)
	}
}
