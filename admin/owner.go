// What a tenant's own token may change: nothing but what is listed here.

package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// ownersKeys are the keys of a tenant's document that are its owner's: with a dot the whole key, without one also all below it.
func ownersKeys() []string {
	return []string{"allow_list", "restrictions_mode", "never_ban", "require_tls", "pool.size", "pool.max_clients", "pool.max_servers", "pool.max_database_clients", "pool.max_database_servers"}
}

// isOwners reports whether the value at path, as document.Differences has it, is the owner's to change.
func isOwners(old *tenants.Tenant, path string) bool {
	if slices.ContainsFunc(ownersKeys(), func(key string) bool {
		return path == key || strings.HasPrefix(path, key+".") || strings.HasPrefix(path, key+"[")
	}) {
		return true
	}
	for name := range old.Users {
		if at := tenants.UserPath(name); path == at+".verifier" || path == at+".password" {
			return true
		}
	}
	return false
}

func notOwners(key string) error {
	return &refusal{http.StatusForbidden, "a token of scope " + string(tenants.ScopeWrite) + " may not change " + key}
}

// ownersPatch refuses a patch that names what is not the owner's, even if it would change nothing: that would tell what it is.
func ownersPatch(patch json.RawMessage) error {
	return eachKey("", patch, func(path string) error {
		if !slices.ContainsFunc(ownersKeys(), func(key string) bool { return path == key || strings.HasPrefix(key, path+".") }) {
			return notOwners(path)
		}
		return nil
	})
}

// ownersUserPatch refuses a patch of a user that names anything but what clients log in with.
func ownersUserPatch(patch json.RawMessage) error {
	return eachKey("", patch, func(path string) error {
		if path != "verifier" && path != "password" {
			return notOwners(path)
		}
		return nil
	})
}

// eachKey goes through the keys of an object and of those that lead on to the owner's.
func eachKey(at string, text json.RawMessage, judge func(path string) error) error {
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		below := object[key]
		if err := judge(at + key); err != nil {
			return err
		}
		if !slices.Contains(ownersKeys(), at+key) {
			if err := eachKey(at+key+".", below, judge); err != nil {
				return err
			}
		}
	}
	return nil
}

// asOwner does an edit for a tenant's owner, and refuses what is not the owner's, and what is too much.
func asOwner(e edit, room func([]tenants.Difference) error) edit {
	return existing(func(old *tenants.Tenant) (*tenants.Tenant, error) {
		now, err := e(old)
		if err != nil {
			return nil, err
		}
		if now == nil {
			return nil, notOwners("that there is such a tenant")
		}
		changes := document.Differences(old, now)
		for _, d := range changes {
			if !isOwners(old, d.Path) {
				return nil, notOwners(d.Path)
			}
		}
		if err := room(changes); err != nil {
			return nil, err
		}
		if now.Pool != old.Pool {
			capped := *now
			capped.Caps = old.Caps.Over(old.Pool) // the numbers were the operator's so far
			now = &capped
		}
		return now, nil
	})
}
