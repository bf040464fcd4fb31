// DEALLOCATE as people write it.

package sqltext

import "testing"

func TestDeallocated(t *testing.T) {
	for text, want := range map[string]string{
		"deallocate s": "s", "DEALLOCATE PREPARE S;": "s", " deallocate\n\tprepare \"S x\" ; ;\x00": "S x", `deallocate"a""b"`: `a"b`,
		"deallocate prepare": "prepare", "DEALLOCATE prepare;": "prepare", "deallocate _pg3_0\x00": "_pg3_0", "deallocate prepare prepare": "prepare",
		// What is left to the server.
		"": "", "deallocate": "", "deallocate all": "", "DEALLOCATE PREPARE ALL": "", "deallocate a b": "", "deallocate a; select 1": "", "deallocate /* x */ a": "",
		"deallocate 1a": "", "deallocate é": "", "deallocate \"a\nb\"": "", `deallocate "a`: "", `deallocate ""`: "", "deallocates s": "", "select 1": "", "deallocate a.b": "",
		"deallocate a$b": "",
	} {
		got, ok := Deallocated([]byte(text))
		if string(got) != want || ok != (want != "") {
			t.Errorf("%q: %q %v", text, got, ok)
		}
	}
}
