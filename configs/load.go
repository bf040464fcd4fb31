// From the bytes of a file and the environment to a Config.

package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"github.com/postern/postern/files"
)

// maxFile bounds the configuration file, in bytes. A real one has a few kilobytes.
const maxFile = 1 << 20

// envPrefix opens the names of the variables that override keys.
const envPrefix = "POSTERN_"

// Load reads the YAML file at path, lets variables of the environment override its scalar keys, fills in the defaults, makes
// relative paths absolute (from the file's folder, also those that came from variables), and validates the result. The error
// joins every Problem there is. Certificates, secrets and the tenants file are not opened. Safe for concurrent use.
func Load(path string) (*Config, error) {
	c, err := Read(path)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Read is Load for who looks for more problems, in the files that are named: beside an error there is what could be read all the
// same, for nothing else; nil if there is nothing.
func Read(path string) (*Config, error) {
	data, err := files.Read(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := loadBytes(data, filepath.Dir(abs))
	if err != nil {
		err = fmt.Errorf("%s:\n%w", path, err)
	}
	return c, err
}

// loadBytes is Read for a file of this content in the folder dir, which is absolute.
func loadBytes(data []byte, dir string) (*Config, error) {
	s := shape{lines: make(map[string]int)}
	keys := s.read(data)
	found := s.problems

	c := Default()
	found.addNew(decode(keys, &c))
	for i := range c.Listeners {
		c.Listeners[i].setDefaults()
	}
	c.Machines.Fly.setDefaults()
	c.Cluster.setDefaults()
	found.addNew(c.validate())
	for _, p := range found {
		s.locate(p)
	}
	c.Dir = dir
	c.resolvePaths()
	return &c, found.err()
}

// locate says where the value with the problem came from, as far as that is known.
func (s *shape) locate(p *Problem) {
	if variable := envName(p.Path); os.Getenv(variable) != "" && isScalarKey(p.Path) {
		p.Env = variable
	} else if p.Line == 0 {
		p.Line = s.lines[p.Path]
	}
}

// decode puts the keys of the file and the variables that override them over what is in c. The keys have passed shape, so
// that only single values can be wrong here.
//
// A new viper for each load: it has state, and its own watching races with its readers. Keys are bound to their variables
// one by one, because viper's AutomaticEnv does not see a key that is neither in the file nor has a default.
func decode(keys map[string]any, c *Config) problems {
	var ps problems
	v := viper.New()
	if err := v.MergeConfigMap(keys); err != nil {
		ps.add("", "%v", err)
		return ps
	}
	for _, key := range scalarKeys(reflect.TypeFor[Config](), "") {
		if err := v.BindEnv(key, envName(key)); err != nil {
			ps.add(key, "%v", err)
		}
	}
	err := v.UnmarshalExact(c, func(dc *mapstructure.DecoderConfig) {
		dc.WeaklyTypedInput = false
		dc.DecodeHook = mapstructure.DecodeHookFuncType(readScalar)
	})
	ps.addDecodeErrors(err, "")
	return ps
}

// addDecodeErrors takes the tree of errors that mapstructure returns apart into its leaves. The innermost DecodeError around
// a leaf names its path.
func (ps *problems) addDecodeErrors(err error, path string) {
	switch e := err.(type) {
	case nil:
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			ps.addDecodeErrors(one, path)
		}
	case *mapstructure.DecodeError:
		ps.addDecodeErrors(e.Unwrap(), e.Name())
	default:
		if inner := errors.Unwrap(err); inner != nil {
			ps.addDecodeErrors(inner, path)
			return
		}
		ps.add(path, "%v", err)
	}
}

// envName returns the variable that overrides a scalar key: POSTERN_TIMEOUTS_LOGIN for timeouts.login.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func isScalarKey(path string) bool {
	for _, key := range scalarKeys(reflect.TypeFor[Config](), "") {
		if key == path {
			return true
		}
	}
	return false
}

// resolvePaths makes every path of a file or folder absolute.
func (c *Config) resolvePaths() {
	for i := range c.TLS.Certificates {
		c.resolve(&c.TLS.Certificates[i].Cert)
		c.resolve(&c.TLS.Certificates[i].Key)
	}
	c.resolve(&c.Auth.MockSecretFile)
	c.resolve(&c.Admin.TokenFile)
	c.resolve(&c.Tenants.File)
	c.resolve(&c.Tenants.Postgres.DSNFile)
	c.resolve(&c.Tenants.Postgres.KeyFile)
	c.resolve(&c.Tenants.Postgres.CacheFile)
	c.resolve(&c.Cluster.KeyFile)
	c.resolve(&c.Machines.Fly.TokenFile)
	c.resolve(&c.Machines.Local.Dir)
	c.resolve(&c.Machines.StateFile)
}

func (c *Config) resolve(path *string) {
	if *path != "" && !filepath.IsAbs(*path) {
		*path = filepath.Join(c.Dir, *path)
	}
}
