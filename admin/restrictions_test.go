// Tests of what owners are told of their restrictions: verdicts of addresses, and who was turned away.

package admin

import "testing"

func TestCheckRestrictions(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme/restrictions/check"
	for body, want := range map[string]string{
		`{"address":"203.0.113.7"}`:                                     `{"allowed":true,"refused":false,"mode":"enforce","reason":"rule","text":"This rule allows it.","index":1,"rule":{"cidr":"203.0.113.0/24","comment":"office","expires":"2100-01-01T00:00:00Z"}}`,
		`{"address":"198.51.100.7"}`:                                    `"allowed":false,"refused":true,"mode":"enforce","reason":"expired","text":"This rule has allowed it, and has expired.","index":0,`,
		`{"address":"192.0.2.1"}`:                                       `"reason":"no_rule","text":"No rule allows it.","index":null,"rule":null}`,
		`{"address":"2001:db8::1"}`:                                     `"reason":"no_family"`,
		`{"address":"2001:db8::1","flycast":"fdaa::3"}`:                 `"rule":{"flycast":"fdaa::3"}`,
		`{"address":"10.0.0.1","endpoint":{"provider":"gcp","id":"7"}}`: `"rule":{"endpoint":{"provider":"gcp","id":"7"}}`,
		`{"address":"::ffff:203.0.113.7"}`:                              `"allowed":true`,
	} {
		for _, kind := range []string{"operator", "read", "write"} {
			w.to(t, kind, "POST", path, body, "Content-Type", "application/json").is(200, want)
		}
	}
	for body, pointer := range map[string]string{
		`{}`:                                "/address",
		`{"address":"x"}`:                   "/address",
		`{"address":"fe80::1%eth0"}`:        "/address",
		`{"address":"203.0.113.0/24"}`:      "/address",
		`{"address":"::1","flycast":"::1"}`: "/flycast",
		`{"address":"::1","port":5}`:        "/port",
		`{"address":"::1","endpoint":{"provider":"aws","id":"x"}}`: "/endpoint",
	} {
		w.to(t, "read", "POST", path, body, "Content-Type", "application/json").is(422, `"pointer":"`+pointer+`"`)
	}
	w.to(t, "read", "POST", path, "").is(400)
	w.to(t, "read", "POST", path, `{"address":"::1"}`, "Content-Type", "text/plain").is(415)
	for kind, code := range map[string]int{"other read": 404, "other write": 404, "metrics": 403} {
		w.to(t, kind, "POST", path, `{"address":"::1"}`, "Content-Type", "application/json").is(code)
	}
	w.gate.fail = map[string]error{"check": ErrNoTenant}
	w.to(t, "operator", "POST", path, `{"address":"::1"}`, "Content-Type", "application/json").is(404)
}

func TestListRefusals(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme/refusals"
	for _, kind := range []string{"operator", "read", "write"} {
		w.to(t, kind, "GET", path, "").is(200, `{"refusals":[{"address":"203.0.113.7","reason":"address","mode":"observe","user":"app","count":3,"first":"2001-09-09T01:46:40Z","last":"2001-09-09T01:47:40Z"},`,
			`"mode":"enforce","user":null,`)
	}
	w.to(t, "operator", "GET", path, "").is(200, `"missing":[]`)
	w.gate.silent = []string{"b"}
	w.to(t, "operator", "GET", path, "").is(200, `"missing":["b"]`)
	w.to(t, "other read", "GET", path, "").is(404)
	w.to(t, "operator", "GET", path+"?limit=5", "").is(400)
	w.gate.fail = map[string]error{"refusals": ErrNoTenant}
	w.to(t, "operator", "GET", path, "").is(404)
}
