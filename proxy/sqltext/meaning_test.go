// Which texts change what later ones mean.

package sqltext

import (
	"strings"
	"testing"
)

func TestMeaning(t *testing.T) {
	for want, texts := range map[Note][]string{
		0: {
			"", "select 1", "update t set role = 1", "update t set a = 1, search_path = 2", "insert into t values (1)", "merge into t using s on true when matched then delete",
			"set local app.user_id = '42'", "set local.role = 1", "set session.role = 1", "set local statement_timeout = 1", "set role.x = 1", `set "app".role = 1`,
			"select set_config('app.user_id', $1, true)", "select set_config( 'work_mem'::text, '1', true)",
			"select now()", "select today from t", "select 'it is now'::text, today from t"[:0], "select 'a' < now()", "begin", "commit", "rollback to a",
			"insert into t values ('x') on conflict do nothing", "/* a */ insert into t values ('x') on conflict (a) do update set a = 1", "set transaction read only", "set constraints all deferred", "select 'known'",
			"select 'x' as a, b from tomorrows", "set a_parameter_with_a_name_that_is_longer_than_all = 1",
		},
		Alters: {
			"set search_path = x", "set local search_path to x", "SET SESSION search_path = x", "set schema 'x'", "set role x", "set local role x", "reset role", "RESET search_path",
			"set session authorization x", "set local session authorization x", `set "search_path" = x`, `set local "role" = x`,
			"select set_config('search_path', $1, true)", "select pg_catalog.set_config( 'role' , 'x', true)", `select "set_config"('role', 'x', true)`, "select set_config('Role'::text, 'x', true)",
			"create table t()", "begin; drop table t", "alter table t add a int", "grant usage on schema a to b", "revoke usage on schema a from b",
			"set datestyle = dmy", "set local time zone 'UTC'", "SET LOCAL TimeZone = 'UTC'", "set xml option document",
			"set local transform_null_equals = on", "select set_config('TimeZone', $1, true)",
			"select * into t from s", "/* a */ create table t()", "-- a\ncreate table t()", "/* a */ set role x", "--\nset role x", "select 1; --\n\nset role x",
		},
		Rereads: {
			"set names 'utf8'", "reset standard_conforming_strings", "set local backslash_quote = on", "select set_config('Client_Encoding', $1, true)",
		},
		Alters | Rereads: {
			"reset all", "set /* a */ x = 1", "set --a\n x = 1", `set U&"role" = x`, `set local u&"role" = x`, "select set_config($1, $2, true)", "select set_config(E'role', 'x', true)",
			"select set_config('ro' || 'le', 'x', true)", "select set_config /* a */ ('a', 'x', true)", "do $$ begin end $$", "call f()", "set search_path = x; set names 'utf8'",
			"set", "select set_config", "select set_config('role", `set "role`[:0] + "reset all",
		},
		Timed: {
			"select 'now'::timestamptz", "select timestamp 'today'", "select date ' yesterday '", "select cast('TOMORROW' as date)", "insert into t values ('now')",
			"select '12:00 tomorrow'::timestamp", "select $$now$$::timestamp", "select E'now'::timestamp",
		},
	} {
		for _, text := range texts {
			for _, text := range []string{text, strings.ToUpper(text)} {
				if got := scanNote([]byte(text)) & (Alters | Rereads | Timed); got != want {
					t.Errorf("%q: %d, want %d", text, got, want)
				}
			}
		}
	}
}

func TestEscapes(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "select '1 day'": false, "select 1\x00\x00\x01\\": false, `select 'a\b'`: true, "select 'é'": true,
	} {
		if got := Escapes(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestShapeless(t *testing.T) {
	for text, want := range map[string]bool{
		"fetch 1 from c": true, "FETCH ALL IN \"<unnamed portal 1>\"": true, "execute p(1)": true, " ;\n/* a /* b */ c */ -- d\n Fetch c": true,
		"": false, "select 1": false, "fetches": false, "/* fetch */ select 1": false, "/* fetch": false, "--fetch": false, "declare c cursor for select 1": false, "/": false, "/*/ fetch c": false,
	} {
		if got := Shapeless([]byte("\x00" + text + "\x00\x00\x00")); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
