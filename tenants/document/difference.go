// What is different between two forms of a tenant, in words that tell no secret.

package document

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/postern/postern/tenants"
)

// Secret is one of a user's secrets: what it is called, and where it is.
type Secret struct {
	Field string
	Of    func(*tenants.User) *tenants.Secret
}

// TenantSecret is one of a tenant's own secrets: what a store calls it, where it stands, and where it is. Of those with one Field
// at most one has a place in a tenant.
type TenantSecret struct {
	Field string
	Path  string
	Of    func(*tenants.Tenant) *tenants.Secret // nil: the tenant has nothing that it belongs to
}

// TenantSecrets are all that a tenant can have beside its users'.
func TenantSecrets() []TenantSecret {
	clientKey := func(ofMachine bool) func(*tenants.Tenant) *tenants.Secret {
		return func(t *tenants.Tenant) *tenants.Secret {
			if t.Upstream.ClientCert == "" || ofMachine != (t.Machine != nil) {
				return nil
			}
			return &t.Upstream.ClientKey
		}
	}
	return []TenantSecret{
		{"client_key", "upstream.client_key", clientKey(false)},
		{"client_key", "machine.client_key", clientKey(true)},
		{"auth_query_password", "auth_query.password", func(t *tenants.Tenant) *tenants.Secret {
			if t.AuthQuery == nil {
				return nil
			}
			return &t.AuthQuery.Password
		}},
		{"service_password", "service.password", func(t *tenants.Tenant) *tenants.Secret {
			if t.Service == nil {
				return nil
			}
			return &t.Service.Password
		}},
		{"machine_token", "machine.token", func(t *tenants.Tenant) *tenants.Secret {
			if t.Machine == nil || t.Machine.Provider != tenants.ProviderFly {
				return nil
			}
			return &t.Machine.Token
		}},
	}
}

// KeepSecrets gives a tenant the secrets that its predecessor had where it has none: a document that says nothing of them leaves
// them as they are. What they belong to takes them with it when it goes.
func KeepSecrets(t, old *tenants.Tenant) {
	for _, s := range TenantSecrets() {
		if now, was := s.Of(t), s.Of(old); now != nil && was != nil && now.IsZero() {
			*now = *was
		}
	}
}

// Secrets are all that a user can have.
func Secrets() []Secret {
	return []Secret{
		{"verifier", func(u *tenants.User) *tenants.Secret { return &u.Verifier }},
		{"password", func(u *tenants.User) *tenants.Secret { return &u.Password }},
		{"server_password", func(u *tenants.User) *tenants.Secret { return &u.ServerPassword }},
	}
}

// there is what is shown of a user that has nothing to show.
const there = "there"

// Differences lists what is different, in the order of paths. Of a list it has the entries that went and those that came, at the
// list's path with [] behind it. Two nil tenants have none; a tenant that appears or goes has every value that is not a default.
func Differences(old, now *tenants.Tenant) (out []tenants.Difference) {
	was, is := flat(old), flat(now)
	switch {
	case old == nil && now != nil:
		dropDefaults(is, now)
	case old != nil && now == nil:
		dropDefaults(was, old)
	}
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		a, b := was[path], is[path]
		switch {
		case a == b:
		case a.secret || b.secret:
			out = append(out, tenants.Difference{Path: path, Secret: true})
		default:
			out = append(out, differenceOf(path, a.shown, b.shown))
		}
	}
	return out
}

// differenceOf is that of two values. Lists can be long, and are changed a little: who reads of it wants to know what.
func differenceOf(path, old, now string) tenants.Difference {
	var was, is []json.RawMessage
	if old == "" || now == "" || json.Unmarshal([]byte(old), &was) != nil || json.Unmarshal([]byte(now), &is) != nil {
		return tenants.Difference{Path: path, Old: old, New: now}
	}
	went, came := lessThan(was, is), lessThan(is, was)
	if len(went)+len(came) == 0 { // they are in another order
		return tenants.Difference{Path: path, Old: old, New: now}
	}
	return tenants.Difference{Path: path + "[]", Old: listed(went), New: listed(came)}
}

// lessThan are the entries of a list without those of another one, each as often as it is there.
func lessThan(list, other []json.RawMessage) (rest []json.RawMessage) {
	count := make(map[string]int, len(other))
	for _, entry := range other {
		count[string(entry)]++
	}
	for _, entry := range list {
		if count[string(entry)]--; count[string(entry)] < 0 {
			rest = append(rest, entry)
		}
	}
	return rest
}

// listed is a list of entries, if there are any.
func listed(entries []json.RawMessage) string {
	if len(entries) == 0 {
		return ""
	}
	return string(Encode(entries))
}

// dropDefaults leaves out of a tenant's values those that a tenant has of which nobody has said anything.
func dropDefaults(all map[string]leaf, t *tenants.Tenant) {
	usual := tenants.New(t.ID)
	for name := range t.Users {
		usual.Users[name] = &tenants.User{Name: name}
	}
	usual.Complete()
	for path, value := range flat(usual) {
		if all[path] == value && value.shown != there {
			delete(all, path)
		}
	}
}

// leaf is one value of a tenant. Secrets are compared, and not shown.
type leaf struct {
	shown  string
	secret bool
	value  tenants.Secret
}

// flat is a tenant's values by path.
func flat(t *tenants.Tenant) map[string]leaf {
	all := make(map[string]leaf)
	if t == nil {
		return all
	}
	flatten("", Encode(Of(t)), all)
	for _, s := range TenantSecrets() {
		if text := s.Of(t); text != nil && !text.IsZero() {
			all[s.Path] = leaf{secret: true, value: *text}
		}
	}
	for name, u := range t.Users {
		at := tenants.UserPath(name)
		all[at] = leaf{shown: there}
		flatten(at, Encode(OfUser(u)), all)
		for _, s := range Secrets() {
			if text := *s.Of(u); !text.IsZero() {
				all[at+"."+s.Field] = leaf{secret: true, value: text}
			}
		}
	}
	return all
}

func flatten(path string, text json.RawMessage, into map[string]leaf) {
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil {
		into[path] = leaf{shown: string(text)}
		return
	}
	for key, value := range object {
		if path != "" {
			key = path + "." + key
		}
		flatten(key, value, into)
	}
}
