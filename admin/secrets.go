// The secrets of a tenant itself, which stand in bodies where they belong and are no part of its document: they go in, and of those
// that are there only the names come out.

package admin

import (
	"encoding/json"
	"strings"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// given are the secrets that a body names, by their paths; nil: it takes the secret away.
type given map[string]*string

// takeSecrets takes the secrets out of a body, which is well-formed. In a patch null takes one away.
func takeSecrets(text []byte, patch bool) (rest []byte, g given, wrong invalid) {
	var body map[string]json.RawMessage
	if json.Unmarshal(text, &body) != nil {
		return text, nil, nil // which the document's reader has something to say about
	}
	g = make(given)
	for _, s := range document.TenantSecrets() {
		section, key, _ := strings.Cut(s.Path, ".")
		var object map[string]json.RawMessage
		if json.Unmarshal(body[section], &object) != nil {
			continue
		}
		if _, named := object[key+"_file"]; named { // as in a tenants file
			wrong = append(wrong, fieldError{pointer(s.Path + "_file"), "there is no such key: the secret itself goes into " + s.Path})
			delete(object, key+"_file")
			body[section] = document.Encode(object)
		}
		value, ok := object[key]
		if !ok {
			continue
		}
		var secret *string
		if json.Unmarshal(value, &secret) != nil || secret != nil && *secret == "" || secret == nil && !patch {
			wrong = append(wrong, fieldError{pointer(s.Path), "must be text, and not empty"})
		}
		g[s.Path] = secret
		delete(object, key)
		body[section] = document.Encode(object)
	}
	if len(g) == 0 && len(wrong) == 0 {
		return text, nil, nil
	}
	return document.Encode(body), g, wrong
}

// put gives the tenant its secrets.
func (g given) put(t *tenants.Tenant) error {
	var wrong invalid
	for _, s := range document.TenantSecrets() {
		text, named := g[s.Path]
		if !named {
			continue
		}
		at := s.Of(t)
		switch {
		case at != nil && text != nil:
			*at = tenants.NewSecret(*text)
		case at != nil:
			*at = tenants.Secret{}
		case text != nil:
			wrong = append(wrong, fieldError{pointer(s.Path), "means nothing here: there is nothing that it belongs to"})
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// secretsSet are the paths of the secrets that a tenant has, its users' aside.
func secretsSet(t *tenants.Tenant) []string {
	set := []string{}
	for _, s := range document.TenantSecrets() {
		if at := s.Of(t); at != nil && !at.IsZero() {
			set = append(set, s.Path)
		}
	}
	return set
}
