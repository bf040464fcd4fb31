// The entries of an allow_list: networks as plain text, and rules with more to say.

package file

import (
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/netrestrict"
)

// allowList reads a list of rules. A bad one spoils the load, never just itself.
func allowList(v value) *netrestrict.AllowList {
	if v.isNull() {
		v.fail("must not be null: leave the key out to allow everyone, write [] to allow nobody")
		return nil
	}
	var rules []netrestrict.Rule
	if !v.each(func(_ int, v value) {
		if r, ok := rule(v); ok {
			rules = append(rules, r)
		}
	}) {
		return nil
	}
	list, err := netrestrict.CompileRules(rules)
	if err != nil {
		v.fail("%v", err)
	}
	return list
}

// rule reads one: a network as text, or a mapping.
func rule(v value) (r netrestrict.Rule, ok bool) {
	if v.node.Kind != yaml.MappingNode {
		r.Network, ok = parsed(v, netrestrict.ParsePrefix)
		return r, ok
	}
	before := len(v.found.all)
	v.keys(map[string]func(value){
		"cidr":    func(v value) { r.Network, _ = parsed(v, netrestrict.ParsePrefix) },
		"flycast": func(v value) { r.Flycast, _ = parsed(v, netrestrict.ParseFlycast) },
		"comment": func(v value) { r.Comment, _ = v.text() },
		"expires": func(v value) { r.Expires = expiry(v) },
		"endpoint": func(v value) {
			v.keys(map[string]func(value){
				"provider": func(v value) { r.Endpoint.Provider = word[netrestrict.Cloud](v) },
				"id":       func(v value) { r.Endpoint.ID = v.name() },
			})
		},
	})
	if len(v.found.all) > before {
		return r, false
	}
	if err := r.Check(); err != nil {
		v.fail("%v", err)
		return r, false
	}
	return r, true
}

// networks reads a list of networks.
func networks(v value) (prefixes []netip.Prefix, ok bool) {
	ok = v.each(func(_ int, v value) {
		if p, ok := parsed(v, netrestrict.ParsePrefix); ok {
			prefixes = append(prefixes, p)
		}
	})
	return prefixes, ok
}

// parsed reads a text that has a form of its own.
func parsed[T any](v value, parse func(string) (T, error)) (x T, ok bool) {
	s, ok := v.text()
	if !ok {
		return x, false
	}
	x, err := parse(s)
	if err != nil {
		v.fail("%v", err)
	}
	return x, err == nil
}

// expiry reads a time, which YAML takes for one as well if it is not in quotes.
func expiry(v value) time.Time {
	if v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!timestamp" {
		plain := *v.node
		plain.Tag = "!!str"
		v.node = &plain
	}
	at, _ := parsed(v, netrestrict.ParseExpiry)
	return at
}
