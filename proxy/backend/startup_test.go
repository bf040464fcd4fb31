// What a startup message says, and what can never be said through it.

package backend

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/proxy/pgwire"
)

func TestStartupMessage(t *testing.T) {
	settings := []Parameter{{Name: "search_path", Value: "a, b"}, {Name: "application_name", Value: "x"}, {Name: "application_name", Value: ""}}
	for name, tc := range map[string]struct {
		target Target
		want   []Parameter
	}{
		"a pool's":  {Target{User: "u", Database: "d"}, []Parameter{{Name: "user", Value: "u"}, {Name: "database", Value: "d"}}},
		"physical":  {Target{User: "u", Replication: "true"}, []Parameter{{Name: "user", Value: "u"}, {Name: "replication", Value: "true"}}},
		"a dressed": {Target{User: "u", Database: "d", Replication: "database", Settings: settings}, append([]Parameter{{Name: "user", Value: "u"}, {Name: "database", Value: "d"}, {Name: "replication", Value: "database"}}, settings...)},
	} {
		var got []Parameter
		message, err := startupMessage(&tc.target)
		if err != nil {
			t.Fatal(err)
		}
		code, body, err := pgwire.ReadPacket(strings.NewReader(string(message)))
		if err != nil || code != pgwire.Version30 {
			t.Fatalf("%s: code %d, %v", name, code, err)
		}
		for len(body) > 1 {
			key, rest, _ := pgwire.CString(body)
			value, rest, _ := pgwire.CString(rest)
			got, body = append(got, Parameter{Name: string(key), Value: string(value)}), rest
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// TestSettingsAreOnlySettings: neither another role nor a second parameter fits into them.
func TestSettingsAreOnlySettings(t *testing.T) {
	for name, setting := range map[string]Parameter{
		"user":         {Name: "user", Value: "postgres"},
		"database":     {Name: "database", Value: "x"},
		"replication":  {Name: "replication", Value: "true"},
		"options":      {Name: "options", Value: "-c x=y"},
		"an extension": {Name: "_pq_.x", Value: "y"},
		"no name":      {Value: "y"},
		"NUL in value": {Name: "a", Value: "b\x00user\x00postgres"},
		"NUL in name":  {Name: "a\x00b\x00user", Value: "postgres"},
		"too long":     {Name: "a", Value: strings.Repeat("b", pgwire.MaxStartup)},
	} {
		target := serve(t, func(c net.Conn) {
			if n, _ := c.Read(make([]byte, 1)); n > 0 {
				t.Errorf("%s: a startup message was sent", name)
			}
		})
		target.Settings = []Parameter{setting}
		if _, err := Dial(within(t, patience), target); err == nil || Retryable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
