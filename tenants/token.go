// The rules of tokens.

package tenants

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTokenName is how many characters a token's name may have.
const MaxTokenName = 100

// ValidateToken judges what somebody wants a new token to be, and returns every problem, or none.
func ValidateToken(t Token) []Problem {
	var all []Problem
	p := place{problems: &all}
	switch n := utf8.RuneCountInString(t.Name); {
	case strings.TrimSpace(t.Name) == "":
		p.key("name").fail("name is missing")
	case n > MaxTokenName:
		p.key("name").fail("must have %d characters at most", MaxTokenName)
	}
	if strings.ContainsFunc(t.Name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		p.key("name").fail("must be printable")
	}
	oneOf(p.key("scope"), t.Scope, ScopeOperator, ScopeMetrics, ScopeWrite, ScopeRead)
	switch of := t.Scope == ScopeWrite || t.Scope == ScopeRead; {
	case of && t.Tenant == "":
		p.key("tenant").fail("tenant is missing: the scope is that of one")
	case of && !ValidID(t.Tenant):
		p.key("tenant").fail("%q is no tenant id: it must match %s", t.Tenant, IDPattern)
	case !of && t.Tenant != "":
		p.key("tenant").fail("scope %s is that of no tenant", t.Scope)
	}
	return all
}
