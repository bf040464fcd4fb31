// Tests of startup packets: what is dropped of them, cleaned, or added.

package params

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

func TestStartupParametersWithoutEffect(t *testing.T) {
	list := []pgwire.Param{{Name: "Transaction_Isolation", Value: "Repeatable Read"}, {Name: "transaction_isolation", Value: "best"},
		{Name: "transaction_read_only", Value: "TRUE"}, {Name: "transaction_deferrable", Value: "o"}, {Name: "Seed", Value: "0.5"},
		{Name: "geqo", Value: "off"}, {Name: "default_transaction_read_only", Value: "on"}}
	var left []string
	for _, p := range Effective(list) {
		left = append(left, p.Name+"="+p.Value)
	}
	want := "transaction_isolation=best transaction_deferrable=o geqo=off default_transaction_read_only=on"
	if got := strings.Join(left, " "); got != want || list[2].Value != "TRUE" || list[4].Name != "Seed" {
		t.Errorf("%s, want %s, and %v", got, want, list)
	}
}

func TestStartOnly(t *testing.T) {
	for name, want := range map[string]string{"Session_Preload_Libraries": "session_preload_libraries", "geqo": ""} {
		if got := StartOnly([]pgwire.Param{{Name: "local_preload_libraries"}, {Name: name, Value: "x"}}); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"psql":                  "psql",
		"tab\tand\nline":        "tab?and?line",
		"über":                  "??ber",
		strings.Repeat("x", 80): strings.Repeat("x", 63),
		"":                      "",
	} {
		if got := CleanName(in); got != want {
			t.Errorf("CleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestTheLongestAddress fits into an application name, however it is written.
func TestTheLongestAddress(t *testing.T) {
	const address = "fe80:1111:2222:3333:4444:5555:6666:7777"
	from := netip.MustParseAddrPort("[" + address + "%abcdefghijklmno]:65535")
	claimed := []pgwire.Param{{Name: "Postern.Client_Address", Value: "mine"}, {Name: ApplicationName, Value: strings.Repeat("n", 100)}}
	name := func(list []pgwire.Param) string {
		if len(list) != 2 && len(list) != 1 || strings.EqualFold(list[0].Name, ClientAddress) {
			t.Errorf("what a client claims is left: %v", list)
		}
		return list[len(list)-1].Value
	}
	inName := new(Sets).Intern(WithAddressInName(claimed, from))
	if got, _ := inName.Get(ApplicationName); len(got) != sqltext.MaxName || !strings.HasSuffix(got, "n - ["+address+"]:65535") {
		t.Errorf("application_name is %q, of %d bytes", got, len(got))
	}
	if got := name(WithAddress(claimed, from)); got != address {
		t.Errorf("the setting is %q", got)
	}
	if got := name(WithoutAddress(claimed)); got != claimed[1].Value || claimed[0].Value != "mine" {
		t.Errorf("without any: %q of %v", got, claimed)
	}
}
