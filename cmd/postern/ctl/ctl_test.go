package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// api is a Postern that answers what a test says, and keeps what it was asked.
type api struct {
	*httptest.Server
	t       *testing.T
	asked   []string // method, path with its escapes and query, condition, body
	answers []string // the next ones: a status and a body
}

const token = "postern_canary"

func newAPI(t *testing.T, answers ...string) *api {
	a := &api{t: t, answers: answers}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+token {
		a.t.Errorf("asked with %q", r.Header.Get("Authorization"))
	}
	body, _ := io.ReadAll(r.Body)
	line := r.Method + " " + r.URL.EscapedPath()
	for _, part := range []string{r.URL.RawQuery, r.Header.Get("If-Match"), r.Header.Get("If-None-Match"), string(body)} {
		if part != "" {
			line += " " + part
		}
	}
	a.asked = append(a.asked, line)
	if len(a.answers) == 0 {
		a.t.Errorf("asked once more than expected: %s", line)
		return
	}
	status, text, _ := strings.Cut(a.answers[0], " ")
	a.answers = a.answers[1:]
	code := 0
	_, _ = fmt.Sscan(status, &code)
	if code == http.StatusFound {
		w.Header().Set("Location", text)
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// run is the command line, with a token in the environment.
func (a *api) run(args ...string) (out string, err error) {
	a.t.Helper()
	a.t.Setenv("POSTERN_TOKEN", token)
	return command(a.t, "", append(args, "--api", a.URL)...)
}

func command(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "postern", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands(func(cmd *cobra.Command) (string, error) {
		b, err := io.ReadAll(cmd.InOrStdin())
		return string(b), err
	}, &cobra.Command{Use: "verify"})...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

// TestCommands has each command ask what it should, and print the answer for people.
func TestCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "acme.yaml")
	if err := os.WriteFile(file, []byte("upstream: {host: db, port: 5432}\nallow_list: [10.0.0.0/8]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "list.yaml")
	if err := os.WriteFile(list, []byte("[10.0.0.0/8]"), 0o600); err != nil {
		t.Fatal(err)
	}
	two, none := filepath.Join(t.TempDir(), "two.yaml"), filepath.Join(t.TempDir(), "none.yaml")
	for path, text := range map[string]string{two: "database: a\n---\ndatabase: b\n", none: "# nothing\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	body := `{"allow_list":["10.0.0.0/8"],"upstream":{"host":"db","port":5432}}`
	stored := `200 {"id":"acme","applied":{"everywhere":true,"missing":[]}}`
	for _, row := range []struct{ args, answers, asked, out string }{
		{"tenant list", `200 {"tenants":[{"id":"acme","revision":"7","document":{"upstream":{"host":"db"},"pool":{"size":20},"require_tls":true}}],"next":"acme"}|
			200 {"tenants":[{"id":"globex","document":{"machine":{"name":"g"},"database":"x"}}],"next":null}`,
			"GET /v1/tenants limit=1000|GET /v1/tenants after=acme&limit=1000",
			"TENANT  SERVER  DATABASE  POOL  TLS REQUIRED  CHANGED  REVISION\nacme    db      -         20    yes           -        7\nglobex  g       x         -     -             -        -\n"},
		{"tenant list --json", `200 {"tenants":[],"next":null}`, "GET /v1/tenants limit=1000", "{\n  \"tenants\": []\n}\n"},
		{"tenant show acme", `200 {"id":"acme","n":12345678901234567890}`, "GET /v1/tenants/acme", "{\n  \"id\": \"acme\",\n  \"n\": 12345678901234567890\n}\n"},
		{"tenant show ../tokens", `404 {"detail":"there is no such tenant"}`, "GET /v1/tenants/..%2Ftokens", "there is no such tenant (404)"},
		{"tenant show ..", `404 {"detail":"x"}`, "GET /v1/tenants/%2E%2E", "x (404)"},
		{"tenant put acme " + file, stored, "PUT /v1/tenants/acme " + body, "stored: in force everywhere\n"},
		{"tenant put acme --create --confirm " + file, stored, "PUT /v1/tenants/acme confirm=true * " + body, "stored: in force everywhere\n"},
		{"tenant patch acme --if-revision 7 " + file, `200 {"applied":{"everywhere":false,"missing":["b","c"]}}`, `PATCH /v1/tenants/acme "7" ` + body, "stored, and not in force yet on b,c\n"},
		{"tenant put acme " + file, `422 {"detail":"x","errors":[{"pointer":"/pool/size","detail":"must be more"},{"pointer":"","detail":"wrong"}]}`, "PUT /v1/tenants/acme " + body,
			"refused (422):\n  /pool/size: must be more\n  wrong"},
		{"tenant delete acme", "", "", "this cannot be undone: say --yes"},
		{"tenant delete acme --yes", `200 {}`, "DELETE /v1/tenants/acme", "removed\n"},
		{"tenant wake acme", `202 {}`, "POST /v1/tenants/acme/machine/wake", "waking\n"},
		{"user list acme", `200 {"users":[{"name":"a\u001b[2Jb","document":{"pool_size":3},"verifier_set":true}],"next":null}`, "GET /v1/tenants/acme/users",
			"USER         VERIFIER  PASSWORD  SERVER PASSWORD  POOL  SERVER ROLE\na\\u001b[2Jb  yes       -         -                3     -\n"},
		{"user delete acme a/b --yes", `200 {}`, "DELETE /v1/tenants/acme/users/a%2Fb", "removed\n"},
		{"restriction check acme 203.0.113.7", `200 {"allowed":false,"mode":"enforce","reason":"no rule"}`, `POST /v1/tenants/acme/restrictions/check {"address":"203.0.113.7"}`,
			"ALLOWED  MODE     RULE  WHY\nno       enforce  -     no rule\n"},
		{"restriction check acme 10.0.0.7", `200 {"allowed":true,"mode":"enforce","text":"This rule allows it.","rule":{"cidr":"10.0.0.0/8","comment":"x"}}`,
			`POST /v1/tenants/acme/restrictions/check {"address":"10.0.0.7"}`, "ALLOWED  MODE     RULE        WHY\nyes      enforce  10.0.0.0/8  This rule allows it.\n"},
		{"restriction check acme 10.0.0.8", `200 {"allowed":true,"mode":"observe","rule":"10.0.0.0/8"}`,
			`POST /v1/tenants/acme/restrictions/check {"address":"10.0.0.8"}`, "ALLOWED  MODE     RULE        WHY\nyes      observe  10.0.0.0/8  -\n"},
		{"restriction refused acme", `200 {"refusals":[{"address":"10.0.0.7","reason":"address","mode":"observe","user":"app","count":2,"first":"2026-11-30T11:35:39.863955481Z","last":"2026-11-30T11:35:39Z"}]}`,
			"GET /v1/tenants/acme/refusals", "ADDRESS   REASON   MODE     USER  COUNT  FIRST                 LAST\n10.0.0.7  address  observe  app   2      2026-11-30T11:35:39Z  2026-11-30T11:35:39Z\n"},
		{"restriction remove acme 10.0.0.0/8", `200 {"revision":"7","document":{"allow_list":["10.0.0.0/8"]}}|409 {"detail":"say ?confirm=true to do it"}`,
			`GET /v1/tenants/acme|PATCH /v1/tenants/acme "7" {"allow_list":[]}`, "say --confirm to do it (409)"},
		{"tenant put ACME " + file, `422 {"detail":"x","errors":[{"pointer":"","detail":"\"ACME\" is no tenant id"}]}`, "PUT /v1/tenants/ACME " + body,
			"refused (422):\n  \"ACME\" is no tenant id"},
		{"tenant put acme --create " + file, `412 {"detail":"x"}`, "PUT /v1/tenants/acme * " + body, "there is a tenant acme already (412)"},
		{"ban add acme 203.0.113.7 --for 90s", `201 {}`, `POST /v1/tenants/acme/bans {"address":"203.0.113.7","seconds":90}`, "banned\n"},
		{"token make ci --scope tenant:read --tenant acme", `201 {"id":"t1","token":"postern_new"}`, `POST /v1/tokens {"name":"ci","scope":"tenant:read","tenant":"acme"}`, "postern_new\n"},
		{"token list --tenant acme", `200 {"tokens":[],"next":null}`, "GET /v1/tokens limit=1000&tenant=acme", "ID  NAME  SCOPE  TENANT  CREATED  EXPIRES  USED\n"},
		{"token list", `200 {"tokens":[{"id":"a","created":"2026-11-30T11:35:40Z"},{"id":"b","created":"2026-11-30T11:35:39.5Z"}],"next":"b"}|200 {"tokens":[{"id":"c","created":"2026-11-30T11:35:38Z"}],"next":null}`,
			"GET /v1/tokens limit=1000|GET /v1/tokens after=b&limit=1000", "ID  NAME  SCOPE  TENANT  CREATED               EXPIRES  USED\n" +
				"c   -     -      -       2026-11-30T11:35:38Z  -        -\nb   -     -      -       2026-11-30T11:35:39Z  -        -\na   -     -      -       2026-11-30T11:35:40Z  -        -\n"},
		{"session end acme", "", "", "name one session, or say --all"},
		{"session end acme x --all", "", "", "name one session, or say --all"},
		{"session list acme", `200 {"sessions":[{"id":"s1","node":"a","user":"app"}],"next":"a:s1","missing":["c"]}|200 {"sessions":[{"id":"s2","node":null}],"next":null,"missing":["c"]}`,
			"GET /v1/tenants/acme/sessions|GET /v1/tenants/acme/sessions after=a%3As1",
			"ID  NODE  USER  DATABASE  ADDRESS  MODE  STATE  APPLICATION  SINCE  LAST ACTIVITY\ns1  a     app   -         -        -     -      -            -      -\ns2  -     -     -         -        -     -      -            -      -\n"},
		{"session end acme --all", `200 {"ended":3,"missing":["c"]}`, "DELETE /v1/tenants/acme/sessions", "ended\n"},
		{"session end acme s1", `200 {"ended":1}`, "DELETE /v1/tenants/acme/sessions/s1", "ended\n"},
		{"audit list --limit 1", `200 {"entries":[{"number":3,"by":{"name":"ops"},"action":"tenant.put","changes":[{"path":"pool.size"},{"path":"database"}],"applied":[{"node":"a"},{"node":"b"}]}],"next":3}`, "GET /v1/audit limit=1",
			"NUMBER  AT  WHO  FROM  ACTION      TENANT  OUTCOME  IN FORCE  CHANGED\n3       -   ops  -     tenant.put  -       -        a,b       pool.size,database\n"},
		{"audit list", `200 {"entries":[{"number":3,"outcome":"0123456789012345678901234567890123456789012345678901234567890","changes":[{"path":"a"},{"path":"b"},{"path":"c"},{"path":"d"},{"path":"e"}]}]}`, "GET /v1/audit limit=50",
			"NUMBER  AT  WHO  FROM  ACTION  TENANT  OUTCOME                                                        IN FORCE  CHANGED\n3       -   -    -     -       -       012345678901234567890123456789012345678901234567890123456789…  -         a,b,c,and 2 more\n"},
		{"restriction add acme 10.0.0.0/8 --for -1h", "", "", "--for must be 1s at least; without it there is no end"},
		{"token make ci --scope operator --for 10ms", "", "", "--for must be 1s at least; without it there is no end"},
		{"tenant put acme " + list, "", "", list + " must have keys and values, such as upstream: {host: acme-db.internal}"},
		{"tenant put acme " + two, "", "", two + " must hold one document, and nothing after it"},
		{"tenant patch acme " + none, "", "", none + " has no document"},
		{"cluster forget n1", `200 {}`, "DELETE /v1/cluster/n1", "forgotten\n"},
	} {
		t.Run(row.args, func(t *testing.T) {
			var answers []string
			if row.answers != "" {
				for a := range strings.SplitSeq(row.answers, "|") {
					answers = append(answers, strings.TrimSpace(a))
				}
			}
			a := newAPI(t, answers...)
			out, err := a.run(strings.Fields(row.args)...)
			if err != nil {
				out += err.Error()
			}
			want(t, "printed", out, row.out)
			want(t, "asked", strings.Join(a.asked, "|"), row.asked)
		})
	}
}

// TestRestrictionsAreEdited: rules are added to what is there, as it is, and again if somebody else was faster.
func TestRestrictionsAreEdited(t *testing.T) {
	was := `200 {"revision":"7","document":{"allow_list":["10.0.0.0/8",{"cidr":"192.0.2.0/24","comment":"office"}]}}`
	a := newAPI(t, was, `412 {"detail":"changed"}`, strings.Replace(was, `"7"`, `"8"`, 1), `200 {"applied":{"everywhere":true}}`)
	out, err := a.run("restriction", "add", "acme", "203.0.113.0/24", "--confirm")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "printed", out, "added: in force everywhere\n")
	want(t, "asked last", a.asked[3], `PATCH /v1/tenants/acme confirm=true "8" {"allow_list":["10.0.0.0/8",{"cidr":"192.0.2.0/24","comment":"office"},"203.0.113.0/24"]}`)

	a = newAPI(t, was, `200 {}`)
	if _, err := a.run("restriction", "remove", "acme", "192.0.2.0/24"); err != nil {
		t.Fatal(err)
	}
	want(t, "asked last", a.asked[1], `PATCH /v1/tenants/acme "7" {"allow_list":["10.0.0.0/8"]}`)

	a = newAPI(t, `200 {"revision":"7","document":{"allow_list":["203.0.113.7/32","2001:db8::/32","10.0.0.0/8"]}}`, `200 {}`)
	if _, err := a.run("restriction", "remove", "acme", "203.0.113.7", "2001:DB8:0::/32"); err != nil {
		t.Fatal(err)
	}
	want(t, "asked last", a.asked[1], `PATCH /v1/tenants/acme "7" {"allow_list":["10.0.0.0/8"]}`)

	a = newAPI(t, was)
	if _, err := a.run("restriction", "remove", "acme", "10.0.0.0/8", "192.0.2.0/25"); err == nil || err.Error() != "there is no rule 192.0.2.0/25" {
		t.Errorf("removing what is not there: %v", err)
	}

	a = newAPI(t, `200 {"revision":"1","document":{}}`, `200 {}`)
	if _, err := a.run("restriction", "add", "acme", "203.0.113.7", "--comment", "x", "--for", "8h"); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(a.asked[1], `"1" `)
	var body struct {
		AllowList []struct{ CIDR, Comment, Expires string } `json:"allow_list"`
	}
	if err := json.Unmarshal([]byte(text), &body); err != nil || len(body.AllowList) != 1 || body.AllowList[0].Comment != "x" || body.AllowList[0].Expires == "" {
		t.Errorf("asked %s (%v)", text, err)
	}

	// An expired rule for the same network goes, and is marked until then; one that lasts stays, and so does another's.
	was = `200 {"revision":"7","document":{"allow_list":[{"cidr":"203.0.113.7/32","expires":"2026-01-01T00:00:00Z"},{"cidr":"203.0.113.7/32","expires":"9999-01-01T00:00:00Z"},{"cidr":"10.0.0.0/8","expires":"2026-01-01T00:00:00Z"}]}}`
	a = newAPI(t, was, `200 {}`, was)
	if _, err := a.run("restriction", "add", "acme", "203.0.113.7"); err != nil {
		t.Fatal(err)
	}
	want(t, "asked last", a.asked[1], `PATCH /v1/tenants/acme "7" {"allow_list":[{"cidr":"203.0.113.7/32","expires":"9999-01-01T00:00:00Z"},{"cidr":"10.0.0.0/8","expires":"2026-01-01T00:00:00Z"},"203.0.113.7"]}`)
	out, err = a.run("restriction", "list", "acme")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "printed", out, "RULE            EXPIRES                         COMMENT\n"+
		"203.0.113.7/32  2026-01-01T00:00:00Z (expired)  -\n"+
		"203.0.113.7/32  9999-01-01T00:00:00Z            -\n"+
		"10.0.0.0/8      2026-01-01T00:00:00Z (expired)  -\n")

	a = newAPI(t, `200 {"revision":"1","document":{}}`)
	out, err = a.run("restriction", "list", "acme")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "printed", out, "there are none: everybody may connect\n")
}

// TestPasswordsStay: what is sent of a password is a verifier.
func TestPasswordsStay(t *testing.T) {
	a := newAPI(t, `200 {}`)
	t.Setenv("POSTERN_TOKEN", token)
	out, err := command(t, "s3cret", "user", "password", "acme", "app", "--api", a.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.asked[0]; !strings.HasPrefix(got, `PATCH /v1/tenants/acme/users/app {"verifier":"SCRAM-SHA-256$`) || strings.Contains(got, "s3cret") {
		t.Errorf("asked %s", got)
	}
	if _, verifier, _ := strings.Cut(a.asked[0], `{"verifier":"`); out != "stored\nALTER ROLE \"app\" PASSWORD '"+strings.TrimSuffix(verifier, `"}`)+"';\n" {
		t.Errorf("printed %s", out)
	}
	for answers, want := range map[string]string{
		`200 {"server_password_set":true}`:                             "stored\n",
		`200 {"document":{"upstream":{"auth":"cert"}}}`:                "stored\n",
		`200 {"document":{"upstream":{"auth":"scram","user":"a\"b"}}}`: `ALTER ROLE "a""b" PASSWORD 'SCRAM`,
		`404 {"detail":"the tenant has no such user"}`:                 "the tenant has no such user (404): postern user put makes one",
	} {
		a := newAPI(t, answers)
		out, err := command(t, "s3cret", "user", "password", "acme", "app", "--api", a.URL)
		if err != nil {
			out = err.Error()
		}
		if !strings.Contains(out, want) || strings.Contains(want, "ALTER") != strings.Contains(out, "ALTER") {
			t.Errorf("after %s: printed %s", answers, out)
		}
	}
}

// TestTokens: where a token comes from, and where it does not go.
func TestTokens(t *testing.T) {
	t.Setenv("POSTERN_TOKEN", "")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("# ops\n\n  "+token+"  \nother\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, `200 {"tokens":[]}`, "302 "+"http://127.0.0.1:1/", "200 <html>", "503 gateway")
	if _, err := command(t, "", "token", "list", "--api", a.URL, "--token-file", file); err != nil {
		t.Error(err)
	}
	for _, wanted := range []string{"Found (302)", "no JSON", "Service Unavailable (503)"} {
		_, err := command(t, "", "token", "list", "--api", a.URL, "--token-file", file)
		if err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("%v, want %s", err, wanted)
		}
	}
	var usage UsageError
	for _, args := range [][]string{{"--api", a.URL}, {"--api", "127.0.0.1:9187", "--token-file", file}, {"--api", "http://u:p@h", "--token-file", file}} {
		if _, err := command(t, "", append([]string{"token", "list"}, args...)...); !errors.As(err, &usage) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%v: %v", args, err)
		}
	}
	t.Setenv("POSTERN_TOKEN", token)
	if _, err := command(t, "", "token", "list", "--api", "http://127.0.0.1:1"); err == nil || strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

// TestCompletion completes the ids of tenants and the names of files, each in its place.
func TestCompletion(t *testing.T) {
	t.Setenv("POSTERN_TOKEN", token)
	const files, nothing = "\n:0\n", "\n:4\n" // cobra's directives
	for _, c := range []struct {
		args  string
		asked bool
		says  string
	}{
		{"session list acm", true, "acme\nacme2\n:4\n"},
		{"tenant delete acm", true, "acme\nacme2\n:4\n"},
		{"tenant patch acm", true, "acme\nacme2\n:4\n"},
		{"tenant patch acme acm", false, files},
		{"user put acme app x", false, files},
		{"user put acme acm", false, nothing},
		{"restriction check acme 10", false, nothing},
		{"token revoke acm", false, nothing},
		{"token list acm", false, nothing},
		{"cluster forget acm", false, nothing},
	} {
		var answers []string
		if c.asked {
			answers = []string{`200 {"tenants":[{"id":"acme"},{"id":"acme2"},{"id":"b"}],"next":null}`}
		}
		a := newAPI(t, answers...)
		args := strings.Fields(c.args)
		last := len(args) - 1
		out, err := command(t, "", slices.Concat([]string{"__complete"}, args[:last], []string{"--api", a.URL}, args[last:])...)
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.args, "\n"+out, "\n"+strings.TrimPrefix(c.says, "\n"))
	}
}

// TestMissingNodesAreTold on stderr, and that the store is away: that is not part of the list.
func TestMissingNodesAreTold(t *testing.T) {
	for text, want := range map[string]string{`{"missing":["b","c"]}`: "nodes that have not answered: b,c\n", `{"missing":[]}`: "", `{}`: "", `{"store_away":false}`: "",
		`{"store_away":true}`: "the store is away: nodes are listed as the one that was asked has read them there last; MEMBER alone is of now\n"} {
		var said bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetErr(&said)
		v, err := decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if warnMissing(cmd, v); said.String() != want {
			t.Errorf("%s: %q", text, &said)
		}
	}
}
