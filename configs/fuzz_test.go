// Fuzzing of the whole way from bytes to a Config.

package configs

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzLoad checks that any bytes give either problems or a configuration that is valid, complete, and the same each time.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("postern.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{minimal, full, string(example), "", "a: &a [*a]", "listeners: [[]]", minimal + "---\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := loadBytes(data, "/d")
		if err != nil {
			if len(messages(t, err)) == 0 {
				t.Fatal("an error without a problem")
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("loaded, but not valid: %v", err)
		}
		if !filepath.IsAbs(c.Tenants.File) || c.Dir != "/d" {
			t.Fatalf("relative: %q in %q", c.Tenants.File, c.Dir)
		}
		for _, l := range c.Listeners {
			if l.Network() == "" || l.PoolMode == "" || l.ProxyProtocol == "" {
				t.Fatalf("not complete: %+v", l)
			}
		}
		again, err := loadBytes(data, "/d")
		if err != nil {
			t.Fatalf("once it loads, once not: %v", err)
		}
		if diff := cmp.Diff(c, again, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
