// Tests of the console's language: what is a command, and what is refused.

package console

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/pgwire"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Command{
		"show pools":                        {Show, "POOLS"},
		"SHOW POOLS;":                       {Show, "POOLS"},
		" \t\r\n Show\n Stats_Totals \n; ":  {Show, "STATS_TOTALS"},
		`show "pools"`:                      {Show, "POOLS"},
		"select version":                    {Show, "VERSION"},
		"-- a word first\nshow lists -- so": {Show, "LISTS"},
		"/* a */ show /* b */ mem /* c */;": {Show, "MEM"},
		"show timezone":                     {Show, "TIMEZONE"},
		"":                                  {},
		";":                                 {},
		"-- ping":                           {},
		"/* ping */ ;":                      {},
		"pause":                             {Pause, ""},
		"PAUSE acme;":                       {Pause, "acme"},
		`pause "acme"`:                      {Pause, "acme"},
		`resume "a""b c"`:                   {Resume, `a"b c`},
		"resume my-tenant_2":                {Resume, "my-tenant_2"},
		"resume acme/app":                   {Resume, "acme/app"},
		"Reconnect":                         {Reconnect, ""},
		"wait_close acme":                   {WaitClose, "acme"},
		"KILL acme":                         {Kill, "acme"},
		"kill_client 17":                    {KillClient, "17"},
		"disable acme":                      {Disable, "acme"},
		"clear ban 198.51.100.7;":           {ClearBan, "198.51.100.7"},
		"CLEAR /* a */ BAN 2001:db8::/64":   {ClearBan, "2001:db8::/64"},
		`clear ban "fe80::1%eth0"`:          {ClearBan, "fe80::1%eth0"},
		"Clear Ban acme":                    {ClearBan, "acme"},
		"show bans":                         {Show, "BANS"},
		"enable acme":                       {Enable, "acme"},
		"reload":                            {Reload, ""},
		"suspend":                           {Suspend, ""},
		"shutdown":                          {Shutdown, ""},
		"shutdown wait_for_servers":         {Shutdown, "wait_for_servers"},
		"set verbose = 1":                   {Set, "verbose"},
		"SET DateStyle TO 'ISO';":           {Set, "datestyle"},
		"set verbose=1":                     {Set, "verbose"},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, message := range map[string]string{
		"shows":                      "invalid command 'shows', use SHOW HELP;",
		"show":                       "invalid command 'show', use SHOW HELP;",
		"show nothing":               "invalid command 'show nothing', use SHOW HELP;",
		"show pools clients":         "invalid command",
		"show pools; show clients":   "invalid command",
		"show pools;;":               "invalid command",
		"reload now":                 "invalid command",
		"suspend acme":               "invalid command",
		"pause acme globex":          "invalid command",
		`pause "acme`:                "invalid command",
		`pause ""`:                   "invalid command",
		`"show" pools`:               "invalid command",
		"begin":                      "invalid command",
		"select 1":                   "invalid command",
		"/* never ends":              "invalid command",
		"pause 'acme'":               "invalid command",
		"kill":                       "a database is required",
		"disable;":                   "a database is required",
		"kill_client":                "invalid client id supplied",
		"clear ban":                  "an address or a tenant is required",
		"clear":                      "invalid command",
		"clear bans 198.51.100.7":    "invalid command",
		"clear ban 198.51.100.7 x":   "invalid command",
		"set":                        "invalid command",
		"set verbose":                "invalid command",
		"set = 1":                    "invalid command",
		"set verbose 1":              "invalid command",
		"set verbose =":              "invalid command",
		"\xff\xfe":                   "invalid command",
		strings.Repeat("x", 100_000): "invalid command",
	} {
		_, err := Parse(text)
		var e *pgwire.Error
		if !errors.As(err, &e) || e.Severity != pgwire.Err || e.Code != "42601" || !strings.Contains(e.Message, message) || len(e.Message) > 1000 {
			t.Errorf("%.40q: %v; want %q", text, err, message)
			continue
		}
		if strings.HasPrefix(e.Message, "invalid command") && !strings.Contains(e.Hint, "KILL_CLIENT <client_id>") {
			t.Errorf("%.40q: hint %q", text, e.Hint)
		}
	}
}

// TestHelpNamesEverything: what can be said is in the list, and what is in the list can be said.
func TestHelpNamesEverything(t *testing.T) {
	for name := range shows {
		if !setUp(strings.ToLower(name)) && name != showFDs && !strings.Contains(commands, name) {
			t.Errorf("SHOW %s is not in the list", name)
		}
	}
	for verb := range verbs {
		if verb != Suspend && !strings.Contains(commands, verb) {
			t.Errorf("%s is not in the list", verb)
		}
	}
	for line := range strings.Lines(commands) {
		words := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(line))
		for choice := range strings.SplitSeq(words[len(words)-1], "|") {
			text := strings.Join(append(words[:len(words)-1:len(words)-1], choice), " ")
			if _, err := Parse(strings.NewReplacer("<tenant>", "acme", "<client_id>", "1", "<address>", "198.51.100.7").Replace(text)); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"show pools;", `pause "a""b"`, "set a = 1", "-- x\n/* y */ kill acme", `"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		if c.Verb == Empty || c.Verb == Set {
			return
		}
		// Whatever was understood can be said again in quotes.
		again := c.Verb
		if c.Arg != "" {
			again += ` "` + strings.ReplaceAll(c.Arg, `"`, `""`) + `";`
		}
		if got, err := Parse(again); err != nil || got != c {
			t.Errorf("%q is %+v, but %q is %+v, %v", text, c, again, got, err)
		}
	})
}
