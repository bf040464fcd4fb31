// What runs tenants' machines: the rules, and what follows from them.

package configs

import (
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// knownName is the file of what is known about sleeping tenants, in the folder of local machines. No machine's folder has
// a dot in its name.
const knownName = "known.json"

// KnownFile returns where what was learned about sleeping tenants is kept over a restart; "": nowhere.
func (m Machines) KnownFile() string {
	switch {
	case m.StateFile != "":
		return m.StateFile
	case m.Local.Dir != "":
		return filepath.Join(m.Local.Dir, knownName)
	}
	return ""
}

// CheckProviders reports what is needed to run machines and not configured. uses has, by a key below machines, the id of a tenant
// that needs it. It depends on the tenants and is therefore asked again whenever they change.
func (c *Config) CheckProviders(uses map[string]string) error {
	const own = "fly.token_file" // which a tenant can have itself
	configured := map[string]bool{"fly": c.Machines.Fly != (FlyMachines{}), own: c.Machines.Fly.TokenFile != "", "local": c.Machines.Local != (LocalMachines{})}
	var ps problems
	for _, key := range slices.Sorted(maps.Keys(uses)) {
		switch {
		case configured[key]:
		case key == own:
			ps.add("machines."+key, "is missing, while tenant %q has a machine there and no token of its own", uses[key])
		default:
			ps.add("machines."+key, "is missing, while tenant %q has a machine there", uses[key])
		}
	}
	return ps.err()
}

func (c *Config) checkMachines(ps *problems) {
	m := c.Machines
	if m.Fly != (FlyMachines{}) {
		if message := checkAPI(m.Fly.API); message != "" {
			ps.add("machines.fly.api", "%s", message)
		}
	}
	if m.StateFile != "" && m.Fly == (FlyMachines{}) && m.Local == (LocalMachines{}) {
		ps.add("machines.state_file", "has no meaning without machines.fly or machines.local")
	}
}

// checkAPI says what is wrong with an address that a token is sent to; "": nothing. It does not repeat the address, which
// could hold a password.
func checkAPI(address string) string {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "must be a URL, such as " + DefaultFlyAPI + " or https://api.machines.dev"
	case u.User != nil:
		return "must not hold a user: the token is in token_file"
	case strings.ContainsAny(address, "?#") || strings.Trim(u.Path, "/") != "":
		return "must end after its host and port"
	}
	return ""
}
