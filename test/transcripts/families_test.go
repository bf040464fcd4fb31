// Families of scripts: those that differ in one thing only come from tables.

package transcripts

import (
	"fmt"
	"slices"
	"strings"
)

// families is every script of every family.
func families() []Script {
	return slices.Concat(pipelines(), rowLimits(), values(), failures(), settings(), transfers())
}

// wait is the line.
const wait = "wait\n"

func query(text string) string { return line("Query", quote(text)) + "\n" }

// asked is a Query that is waited for.
func asked(text string) string { return query(text) + wait }

// round is a statement by the extended protocol, without Sync.
func round(text string, params ...string) string {
	return line("Parse", `""`, quote(text)) + "\n" + line("Bind", `""`, `""`, list(params, quote)) + "\n" + "Execute \"\" 0\n"
}

// pipelines are rounds in one write, up to a depth at which servers and poolers have flushed something in between. The
// division holds something volatile, or it would fail at Bind with a custom plan and at Execute with a generic one, and which
// of them a server uses depends on how often anybody has run the statement there.
func pipelines() (all []Script) {
	for _, n := range []int{1, 2, 3, 5, 10, 20, 35, 50} {
		for _, fails := range []int{0, 3} { // each third one fails, and no others with it
			var unnamed, named, oneSync, simple strings.Builder
			named.WriteString("Parse \"s\" \"select 100 / ($1::int + (random() * 0)::int), repeat('x', 200)\"\nSync\nwait\n")
			for i := 1; i <= n; i++ {
				by := fmt.Sprint(i)
				if fails > 0 && i%fails == 0 {
					by = "0"
				}
				unnamed.WriteString(round("select 100 / ($1::int + (random() * 0)::int), repeat('x', 200)", by) + "Sync\n")
				named.WriteString("Bind \"\" \"s\" [" + quote(by) + "]\nDescribe P \"\"\nExecute \"\" 0\nSync\n")
				oneSync.WriteString(round("select 100 / $1::int", by))
				simple.WriteString(query("select 100 / " + by))
			}
			suffix := fmt.Sprintf("-%02d", n)
			if fails > 0 {
				suffix += "-with-errors"
			}
			all = append(all,
				Script{"pipeline/unnamed" + suffix, unnamed.String() + wait},
				Script{"pipeline/named" + suffix, named.String() + wait},
				Script{"pipeline/one-sync" + suffix, oneSync.String() + "Sync\n" + wait},
				Script{"pipeline/simple" + suffix, simple.String() + wait})
		}
	}
	return all
}

// rowLimits take limit rows of a number at a time, in a transaction over several rounds.
func rowLimits() (all []Script) {
	for _, limit := range []int{1, 2, 3, 4} {
		for _, rows := range []int{0, 1, 3, 4} {
			take := fmt.Sprintf("Execute \"p\" %d\nSync\nwait\n", limit)
			all = append(all, Script{fmt.Sprintf("rows/limit-%d-of-%d", limit, rows),
				asked("begin") + "Parse \"\" \"select generate_series(1, $1)\"\nBind \"p\" \"\" [" + quote(fmt.Sprint(rows)) + "]\nSync\nwait\n" +
					strings.Repeat(take, rows/limit+2) + asked("commit")})
		}
	}
	return all
}

// values are a text and a binary value of each type, as parameter and as result in both formats.
func values() (all []Script) {
	for _, v := range []struct {
		name   string
		oid    int
		text   string
		binary string
	}{
		{"bool", 16, "t", "\x01"},
		{"bytea", 17, `\x00ff`, "\x00\xff"},
		{"int8", 20, "-2", "\xff\xff\xff\xff\xff\xff\xff\xfe"},
		{"int2", 21, "7", "\x00\x07"},
		{"int4", 23, "2147483647", "\x7f\xff\xff\xff"},
		{"text", 25, "żółć", "żółć"},
		{"oid", 26, "4294967295", "\xff\xff\xff\xff"},
		{"json", 114, `{"a": [1, null]}`, `{"a": [1, null]}`},
		{"float4", 700, "1.5", "\x3f\xc0\x00\x00"},
		{"float8", 701, "NaN", "\x7f\xf8\x00\x00\x00\x00\x00\x00"},
		{"varchar", 1043, "", ""},
		{"date", 1082, "2000-01-02", "\x00\x00\x00\x01"},
		{"timestamptz", 1184, "2000-01-01 00:00:01+00", "\x00\x00\x00\x00\x00\x0f\x42\x40"},
		{"interval", 1186, "1 mon", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
		{"numeric", 1700, "12.5", "\x00\x02\x00\x00\x00\x00\x00\x01\x00\x0c\x13\x88"},
		{"uuid", 2950, "00112233-4455-6677-8899-aabbccddeeff", "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"},
		{"int4-array", 1007, "{1,2}", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x02"},
		{"jsonb", 3802, `{"b": 1}`, "\x01{\"b\": 1}"},
	} {
		bind := func(value string, in, out int) string {
			return fmt.Sprintf("Bind \"\" \"\" [%s] [%d] [%d]\nDescribe P \"\"\nExecute \"\" 0\n", quote(value), in, out)
		}
		all = append(all, Script{"values/" + v.name, fmt.Sprintf("Parse \"\" \"select $1\" [%d]\nDescribe S \"\"\n", v.oid) +
			bind(v.text, 0, 0) + bind(v.text, 0, 1) + bind(v.binary, 1, 0) + bind(v.binary, 1, 1) + "Bind \"\" \"\" [null]\nExecute \"\" 0\nSync\nwait\n"})
	}
	return all
}

// failures are errors of many kinds, each in the simple protocol, in the extended one, and in a transaction.
func failures() (all []Script) {
	for _, f := range []struct{ name, text string }{
		{"syntax", "select from where"},
		{"no-such-table", "select * from nowhere"},
		{"no-such-function", "select nothing(1)"},
		{"ambiguous-column", "select id from fruit a, fruit b"},
		{"division", "select 1/0"},
		{"cast", "select 'x'::int"},
		{"overflow", "select 2147483647 + 1"},
		{"unique", "insert into fruit values (1, 'twice')"},
		{"not-null", "insert into fruit values (9, null)"},
		{"permission", "select * from pg_authid"},
		{"raised", "select say('error', 'raised')"},
		{"notice-before", "select say('notice', 'before'), 1/0"},
		{"read-only", "set transaction read only; create table never(a int)"},
		{"too-long", "select 'x'::int /* " + strings.Repeat("long ", 2000) + "*/"},
	} {
		all = append(all,
			Script{"failures/" + f.name + "-simple", asked(f.text) + asked("select 'after'")},
			Script{"failures/" + f.name + "-extended", round(f.text) + round("select 'skipped'") + "Sync\n" + round("select 'after'") + "Sync\n" + wait},
			Script{"failures/" + f.name + "-in-a-block", asked("begin") + asked("savepoint s") + asked(f.text) + asked("rollback to s") + asked("select 'after'") + asked(f.text) +
				asked("select 'refused'") + asked("commit") + asked("select 'last'")})
	}
	return all
}

// settings set a parameter in every way there is and look at it from two sessions.
func settings() (all []Script) {
	ways := []struct{ name, script string }{
		{"set", "set %[1]s = %[2]s"},
		{"set-session", "set session %[1]s to %[2]s"},
		{"set-local", "begin; set local %[1]s = %[2]s; show %[1]s; commit"},
		{"set-config", "select set_config('%[1]s', %[2]s, false)"},
		{"set-config-local", "select set_config('%[1]s', %[2]s, true)"},
		{"rolled-back", "begin; set %[1]s = %[2]s; rollback"},
		{"committed", "begin; set %[1]s = %[2]s; commit"},
		{"set-and-reset", "set %[1]s = %[2]s; reset %[1]s"},
		{"upper-case", "SET %[1]s TO %[2]s"},
	}
	for _, p := range []struct{ name, value string }{
		{"datestyle", "'German'"},
		{"application_name", "'mine'"},
		{"timezone", "'Asia/Tokyo'"},
		{"search_path", "'pg_catalog'"},
		{"work_mem", "'3MB'"},
		{"enable_seqscan", "'off'"},
		{"my.own@@", "'x'"},
	} {
		for _, w := range ways {
			show := "show " + p.name
			if strings.HasPrefix(p.name, "my.") {
				show = "select coalesce(current_setting('" + p.name + "', true), '')" // unset and empty are the same for once
			}
			all = append(all, Script{"settings/" + strings.Trim(strings.NewReplacer(".", "-", "@", "").Replace(p.name), "-") + "-" + w.name,
				asked(fmt.Sprintf(w.script, p.name, p.value)) + asked(show) + "B " + query(show) + "B wait\n" + asked(show) + asked("discard all") + asked(show)})
		}
	}
	return all
}

// transfers are COPYs of every format and both directions, in both protocols, with each end that they can have.
func transfers() (all []Script) {
	for _, format := range []struct{ name, good, bad string }{
		{"text", "1\tone\n2\ttwo\n", "x\tone\n"},
		{"csv", "1,one\n2,\"t,wo\"\n", "1,one,more\n"},
		{"binary", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x03one\xff\xff", "not at all"},
	} {
		in, out := fmt.Sprintf("copy t@@ from stdin (format %s)", format.name), fmt.Sprintf("copy t@@ to stdout (format %s)", format.name)
		for _, protocol := range []struct {
			name  string
			begin func(string) string
			end   string
		}{{"simple", query, ""}, {"extended", func(s string) string { return round(s) }, "Sync\n"}} {
			for _, end := range []struct{ name, data string }{
				{"good", line("CopyData", quote(format.good)) + "\nCopyDone\n"},
				{"bad", line("CopyData", quote(format.bad)) + "\nCopyDone\n"},
				{"cancelled", line("CopyData", quote(format.good)) + "\nCopyFail \"enough\"\n"},
			} {
				all = append(all, Script{"transfers/" + format.name + "-" + protocol.name + "-" + end.name,
					asked("create table t@@(a int, b text)") + protocol.begin(in) + end.data + protocol.end + wait + protocol.begin(out) + protocol.end + wait})
			}
		}
	}
	return all
}
