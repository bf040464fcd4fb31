package tenants

import (
	"fmt"
	"strings"
	"testing"
)

func TestValidateToken(t *testing.T) {
	for _, tc := range []struct {
		token Token
		want  string // paths of what is wrong
	}{
		{Token{Name: "ci", Scope: ScopeOperator}, "[]"},
		{Token{Name: "ci", Scope: ScopeMetrics}, "[]"},
		{Token{Name: strings.Repeat("ä", MaxTokenName), Scope: ScopeWrite, Tenant: "acme"}, "[]"},
		{Token{Name: "owner", Scope: ScopeRead, Tenant: "acme"}, "[]"},
		{Token{Name: " ", Scope: ScopeOperator}, "[name]"},
		{Token{Name: strings.Repeat("ä", MaxTokenName+1), Scope: ScopeOperator}, "[name]"},
		{Token{Name: "a\x00", Scope: ScopeOperator}, "[name]"},
		{Token{Name: "ci"}, "[scope]"},
		{Token{Name: "ci", Scope: "root"}, "[scope]"},
		{Token{Name: "ci", Scope: ScopeWrite}, "[tenant]"},
		{Token{Name: "ci", Scope: ScopeWrite, Tenant: "a\x00"}, "[tenant]"},
		{Token{Name: "ci", Scope: ScopeOperator, Tenant: "acme"}, "[tenant]"},
		{Token{Tenant: "acme"}, "[name scope tenant]"},
	} {
		paths := []string{}
		for _, p := range ValidateToken(tc.token) {
			paths = append(paths, p.Path)
		}
		if got := fmt.Sprint(paths); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.token, got, tc.want)
		}
	}
}
