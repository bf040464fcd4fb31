// Tests of rules in documents: how each is written, what is refused, and that what is written is read.

package document

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
)

func TestRuleDocuments(t *testing.T) {
	six := time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC)
	for want, r := range map[string]netrestrict.Rule{
		`"203.0.113.0/24"`: {Network: netip.MustParsePrefix("203.0.113.0/24")},
		`{"cidr":"2001:db8::/32","comment":"a \"b\"","expires":"2027-01-31T18:00:00Z"}`: {Network: netip.MustParsePrefix("2001:db8::/32"), Comment: `a "b"`, Expires: six},
		`{"endpoint":{"provider":"azure","id":"7"},"expires":"2027-01-31T18:00:00.5Z"}`: {Endpoint: netrestrict.Endpoint{Provider: netrestrict.Azure, ID: "7"}, Expires: six.Add(time.Second / 2)},
		`{"flycast":"fdaa::3"}`: {Flycast: netip.MustParseAddr("fdaa::3")},
	} {
		text := string(Encode(ruleOf(r)))
		if text != want {
			t.Errorf("%+v is written as %s", r, text)
		}
		var back rule
		if err := Decode([]byte(text), &back); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if made, err := back.make(); err != nil || made != r {
			t.Errorf("%s is read as %+v, %v", text, made, err)
		}
	}
}

func TestRuleDocumentsRefused(t *testing.T) {
	for entry, want := range map[string]string{
		`"10.0.0.1/8"`: "allow_list[1]: cidr: ",
		`""`:           "allow_list[1]: needs exactly one of cidr, endpoint and flycast",
		`{}`:           "allow_list[1]: needs exactly one of cidr, endpoint and flycast",
		`{"cidr":"10.0.0.0/8","flycast":"fdaa::3"}`:  "allow_list[1]: needs exactly one of cidr, endpoint and flycast",
		`{"flycast":"::1"}`:                          "allow_list[1]: flycast: must be an address of Flycast's",
		`{"cidr":"10.0.0.0/8","expires":"tomorrow"}`: "allow_list[1]: expires: must be a time",
		`{"endpoint":{"provider":"aws","id":"x"}}`:   "allow_list[1]: endpoint.id: must be the id of a VPC endpoint",
		`{"cidr":"10.0.0.0/8","until":"2027"}`:       `a rule has no key "until"`,
		`{"endpoint":{"provider":"gcp","name":"x"}}`: `a rule has no key "name"`,
		`{"CIDR":"10.0.0.0/8"}`:                      `a rule has no key "CIDR"`,
		`{"cidr":"10.0.0.0/8","Comment":"x"}`:        `a rule has no key "Comment"`,
		`{"endpoint":{"provider":"gcp","ID":"7"}}`:   `a rule has no key "ID"`,
		`7`:              "neither a network nor a rule",
		`["10.0.0.0/8"]`: "neither a network nor a rule",
		`{"cidr":null}`:  "null means nothing",
		`{"cidr":"10.0.0.0/8","comment":"\u001b[2J"}`: "allow_list[1]: comment: must be printable",
	} {
		var r Reader
		_, err := r.Tenant("acme", []byte(`{"upstream":{"host":"h"},"allow_list":["192.0.2.0/24",`+entry+`]}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", entry, err, want)
		}
	}
}

// TestKeysAreExact: a key in another case is another key, wherever it stands, and a text is no key.
func TestKeysAreExact(t *testing.T) {
	for _, key := range []string{"Database", "DATABASE", "databa\u017fe", "\\u0064atabase", `"`, `\\`, "pool.size", ""} {
		text := []byte(`{"upstream" : {"host" : "a\"B\\" } , "pool":{"size":3},"databases": ["Pool", "A:", "B"],"` + strings.ReplaceAll(key, `"`, `\"`) + `" : "x"}`)
		var d Tenant
		if err := Decode(text, &d); err == nil || !strings.Contains(err.Error(), "unknown field") {
			t.Errorf("%s: %v", text, err)
		}
	}
	var d Tenant
	if err := Decode([]byte("{\"upstream\" :\n{\"host\"\t: \"a\\\"B\\\\\"}, \"databases\":[\"Pool\",\"A:\",\"\"],\"state\":{\"advisory_lock\":\"pin\"}} "), &d); err != nil {
		t.Error(err)
	}
	for _, text := range []string{`{"cidr":"10.0.0.0/8"}`, `"A"`} {
		if err := json.Unmarshal([]byte(text), new(rule)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"Cidr":"10.0.0.0/8"}`), new(rule)); err == nil { // as the admin API reads it
		t.Error("a rule's key is taken in any case")
	}
}

// FuzzRule: whatever is read as a rule is written as one that is read as the same.
func FuzzRule(f *testing.F) {
	for _, s := range []string{`"203.0.113.0/24"`, `{"cidr":"::/0","expires":"2027-01-31T18:00:00+01:00"}`, `{"endpoint":{"provider":"aws","id":"vpce-08d2bf15"},"comment":"x"}`,
		`{"flycast":"fdaa:0:0:0::3"}`, `{"cidr":"1.2.3.4","CIDR":"::"}`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d rule
		if Decode(text, &d) != nil {
			return
		}
		r, err := d.make()
		if err != nil {
			return
		}
		list, err := netrestrict.CompileRules([]netrestrict.Rule{r})
		if err != nil {
			t.Fatalf("%s is read as %+v, and refused: %v", text, r, err)
		}
		again, err := allowList([]rule{ruleOf(list.Rules()[0])})
		if err != nil || !again.Equal(list) {
			t.Fatalf("%s is read as %+v and written as %s: %v", text, r, Encode(ruleOf(r)), err)
		}
		if _, err := json.Marshal(d); err != nil {
			t.Fatal(err)
		}
	})
}
