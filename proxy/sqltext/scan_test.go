// Texts as applications write them: which may leave state in the session.

package sqltext

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// leaves stands, in these tests, for state that no command tag shows.
const leaves = Note(1 << 15)

func scanned(text []byte) Note {
	note, state := Scan(text)
	if state&(StateSet|StateNameInBind|StateTemp|StateLock|StateCursor|StateSeed) != 0 || note&HidesNames != 0 {
		note |= leaves
	}
	return note
}

func TestScan(t *testing.T) {
	const none, meanings = Note(0), Alters | Rereads | Timed | HidesNames | SetsHidden | BodyHides | Resets // these: see TestMeaning
	for want, texts := range map[Note][]string{
		none: {
			"", ";", "select 1", "SELECT * FROM temperature", "select temp from sensors", "select tempo, temporary_id from t",
			"insert into temp values (1)\x00"[:0],
			"UPDATE accounts SET balance = balance - 1 WHERE id = $1",
			`UPDATE "users" SET "name" = $1, "set" = 2`,
			"update t set local = 1", "begin; update t set x=1; commit",
			"INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING *",
			"ALTER TABLE t ALTER COLUMN c SET DEFAULT 1", "ALTER ROLE app SET search_path = x",
			"select pg_advisory_xact_lock(1)", "SELECT pg_try_advisory_xact_lock($1, $2)", "select pg_advisory_xact_lock_shared(1)",
			"select pg_advisory_unlock(1)", "select pg_advisory_unlock_all()",
			"BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "START TRANSACTION", "COMMIT", "ROLLBACK TO SAVEPOINT a",
			"create table t (id int)", "CREATE UNLOGGED TABLE t ()", "create index concurrently on t (a)",
			"DECLARE c CURSOR FOR SELECT 1", "create type mood as enum ('hot')", "select $1::text",
			"show search_path", "SELECT current_setting('x.y')", "select 'it''s the set'",
			"RESET ALL", "LISTEN ch", // their tags say so
			"copy t from stdin", "select * from pg_temperature", "select household, threshold from t",
		},
		leaves: {
			"create temp table x (a int)", "CREATE TEMPORARY TABLE x AS SELECT 1", "Create Temp Table If Not Exists x()",
			"create\n\ttemp\ntable x()", "CREATE LOCAL TEMP TABLE x()", "create global temporary table x()",
			"create or replace temp view v as select 1", "CREATE TEMP SEQUENCE s", "create temporary sequence s",
			"create/**/temp/**/table x()", "create -- a\n temp table x()", "create /* x */ temp table y()",
			"select 1 into temp x", "SELECT * INTO TEMPORARY TABLE x FROM y", "with a as (select 1) select * into temp b from a",
			"create table pg_temp.x()", `create table "pg_temp".x()`, "create function pg_temp.f() returns int language sql as 'select 1'",
			"select set_config('search_path', $1, false)", `SELECT pg_catalog.set_config('search_path', '', false)`, "select SET_CONFIG('a.b','c',false)",
			"select pg_advisory_lock(1)", "SELECT pg_try_advisory_lock($1,$2)", "select pg_advisory_lock_shared(1)", `select "pg_advisory_lock"(1)`,
			"select pg_catalog.pg_advisory_lock(hashtext('x'))", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "declare c scroll cursor with hold for select 1",
			"select setseed(0.5)", "begin; select 1; create temp table x(); commit",
			"set local a.b = 'c'; create temp table x() -- not harmless with a comment",
		},
		SetHarmless: {
			"SET LOCAL statement_timeout = '5s'", "set local search_path to x", "  SET LOCAL \"app.user\" = '1'",
			"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION READ ONLY", "SET CONSTRAINTS ALL DEFERRED",
			"SET application_name = 'x'", "SET SESSION application_name TO 'x'", "set client_encoding to 'UTF8'", "SET NAMES 'utf8'",
			"SET client_encoding TO 'UTF8'; SET datestyle TO ISO", "set timezone='UTC'", "SET TIME ZONE 'Europe/Berlin'", "SET TimeZone TO DEFAULT",
			"set intervalstyle = iso_8601", "SET standard_conforming_strings = on", "SET DateStyle TO 'ISO'",
			"BEGIN; SET LOCAL x.y = 1; UPDATE t SET a = 1; COMMIT", ";;set local a.b=1",
			"SET SESSION TIME ZONE 'UTC'", "SET\nLOCAL\nx.y = 1",
		},
		Deallocates: {
			"DISCARD ALL", "DEALLOCATE ALL", "deallocate s1", `DEALLOCATE PREPARE "a b"`, "select 1; discard plans", "/* x */ deallocate all",
			"select 'deallocate'",
		},
		SetHarmless | leaves: {
			"set local a.b = 1; create temp table x()",
		},
	} {
		for _, text := range texts {
			if got := scanned([]byte(text)) &^ meanings; got != want {
				t.Errorf("%q: %d, want %d", text, got, want)
			}
			if got := scanned([]byte(strings.ToUpper(text))) &^ meanings; got != want {
				t.Errorf("%q in upper case: %d, want %d", text, got, want)
			}
		}
	}
}

// SETs whose effect outlives the transaction and is not tracked: with their
// tag, they leave state.
func TestSetLeaves(t *testing.T) {
	for _, text := range []string{
		"SET search_path = evil", "set search_path to 'x', public", "SET SESSION search_path = x", "SET ROLE admin", "SET SESSION ROLE admin",
		"SET SESSION AUTHORIZATION bob", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "set statement_timeout = 0",
		"SET app.tenant = 'a'", "SET default_transaction_isolation = serializable", "SET transaction_isolation = serializable",
		"SET LOCAL a.b = 1; SET search_path = x", "SET search_path = x; SET LOCAL a.b = 1", "SET client_encoding = UTF8; SET role = x",
		"begin; set statement_timeout=1; commit", `SET "search_path" = x`, `SET "application_name" = x`,
		// What looks harmless at first sight.
		"SET local.tenant = 'a'", "set local . tenant = 'a'", "SET transaction.x = 1", "SET time.zone = 1", "SET names.x = 1",
		"SET session.tenant = 'a'", "SET SESSION local.tenant = 'a'", "SET timezone.x = 1", "set application_name.x = 1",
		"/* set local */ SET search_path = x", "-- set local x\nSET search_path = x", "/* set time zone */ set role admin",
		"/* trace: 1 */ SET LOCAL a.b = 1", "SET /* LOCAL */ search_path = x", "SET --local\n search_path = x", "set/**/local x.y = 1",
		"SETsearch_path", "",
	} {
		if note := scanned([]byte(text)); TagState([]byte("SET"), note) == 0 {
			t.Errorf("%q: unnoticed (%d)", text, note)
		}
	}
}

func TestScanFindsWhatPutsBack(t *testing.T) {
	for text, want := range map[string]bool{
		"RESET ALL": true, "reset work_mem": true, "select 1; reset role": true, "/* a */ reset all": true, "DISCARD ALL": true, "discard plans": true,
		"SET x TO DEFAULT": true, "set session authorization default": true, "set x = 1; set y to default": true, "-- a\nset x = default": true,
		"select set_config('x', null, false)": true, "select set_config($1, $2, false)": true, "do $$ begin reset all; end $$": true,
		"update pg_settings set setting = null": true, `select U&"\0073et_config"('x', null, false)`: true, "select ts_stat($1)": true,
		"select setting from pg_settings": false, "update settings set pg_setting = 1": false,
		"set x = 1": false, "set local x = 1": false, "select set_config('x', '1', true)": false, "insert into t values (default)": false,
		"alter table t alter c set default 1": false, "update t set a = default": false, "select reset from t": false, "begin": false,
	} {
		for _, text := range []string{text, strings.ToUpper(text)} {
			if note, _ := Scan([]byte(text)); note&Resets != 0 != want {
				t.Errorf("%q: %v", text, !want)
			}
		}
	}
}

// A word is found wherever it stands, and whatever stands around it.
func TestScanFindsWordsAnywhere(t *testing.T) {
	for _, word := range []string{"set_config(x", "setseed", "hold", "pg_temp", "pg_advisory_lock", "create temp", "into temporary"} {
		for _, around := range []string{"%", " %", "% ", "x;%;y", "(%)", "\t%\n", "'%'", "$$%$$", "a.%(b)", "\x00%\x00", "\"%\"", "--%", "é%é"[:0] + "%"} {
			text := strings.ReplaceAll(around, "%", word)
			if scanned([]byte(text))&leaves == 0 {
				t.Errorf("%q: unnoticed", text)
			}
		}
		for _, glued := range []string{"x%", "%x", "_%", "%1", "é%"} {
			if text := strings.ReplaceAll(glued, "%", strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(word, "create "), "into "), "(x")); text != "pg_advisory_lockx" &&
				text != "pg_advisory_lock1" && scanned([]byte(text))&leaves != 0 {
				t.Errorf("%q is another word", text)
			}
		}
	}
}

// everyWord has Scan look at every word.
func everyWord() *lengths {
	var t lengths
	for i := range t {
		t[i] = 1<<32 - 1
	}
	return &t
}

// What is not a known word, by its first letter and its length, says nothing.
func TestKnownWordsAreAll(t *testing.T) {
	every := everyWord()
	for _, name := range wordsOfThePackage(t) {
		for _, text := range []string{name, name + " x", "select " + name + "('a.b', 1)", "'" + name + "'", "/**/ " + name + " temp t", "create " + name} {
			note, state := scan([]byte(text), &knownLengths)
			if n, s := scan([]byte(text), every); n != note || s != state {
				t.Errorf("%q: %b, %b; looking at every word %b, %b", text, note, state, n, s)
			}
		}
	}
}

// wordsOfThePackage are all words that its code compares with.
func wordsOfThePackage(t *testing.T) (list []string) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`equalFold\(\w+, "(\w+)"\)`).FindAllSubmatch(code, -1) {
			list = append(list, string(m[1]))
		}
	}
	if len(list) < 30 {
		t.Fatalf("only %d words found: %q", len(list), list)
	}
	return append(list, "pg_advisory_lock", "pg_try_advisory_lock_shared", "pg_advisory_unlock_all", "PG_Create_Logical_Replication_Slot", "pg_copy_physical_replication_slot")
}

func FuzzScan(f *testing.F) {
	every := everyWord()
	for _, s := range []string{"", "set local x", "set local.x", "create temp", "/* set local */ set x", "\x00\xff", "SET", "set session"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		note, state := scan(text, &knownLengths)
		if n, s := scan(text, every); n != note || s != state {
			t.Fatalf("%q: %b, %b; looking at every word %b, %b", text, note, state, n, s)
		}
		if note&^(SetHarmless|Deallocates|SetsSeed|Alters|Rereads|Timed|SetsHidden|HidesNames|BodyHides|Resets|Unseen) != 0 {
			t.Fatalf("%q: %d", text, note)
		}
		note = scanned(text)
		if upper := []byte(strings.ToUpper(string(text))); len(upper) == len(text) && isASCII(text) && scanned(upper) != note {
			t.Fatalf("%q: %d, in upper case %d", text, note, scanned(upper))
		}
		// More text behind it hides nothing.
		if more := scanned(append(text[:len(text):len(text)], " ;select 1"...)); more&leaves < note&leaves {
			t.Fatalf("%q: %d, with more behind it %d", text, note, more)
		}
		_ = TagState(text, note)
	})
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// What meets every statement allocates nothing, whatever it finds.
func TestNoAllocations(t *testing.T) {
	for _, text := range []string{
		"SELECT abalance FROM pgbench_accounts WHERE aid = 1;", "set session app.user = 'x'; reset all", "select set_config('app.user', $1, false)",
		"/* x */ do $$ begin execute 'x'; end $$", `select U&"\0073et"`, "create temp table t as select nextval('s'), 'now'::date",
	} {
		text, tag := []byte(text), []byte("INSERT 0 1")
		if n := testing.AllocsPerRun(100, func() {
			note, _ := Scan(text)
			TagState(tag, note)
			Refusable(text)
			FunctionState(2880)
		}); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	text := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 1;")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if note, state := Scan(text); note != 0 || state != 0 {
			b.Fatal("found something")
		}
	}
}

// A text of which every other word is one of known.
func BenchmarkScanKnown(b *testing.B) {
	text := []byte("INSERT INTO t SELECT nextval('s'), currval('s') FROM u; SET x = 1; CREATE TABLE v; DROP TABLE v; " +
		"CALL p(1); COPY t FROM stdin; CLOSE c; MERGE INTO t; UNLISTEN c; SELECT setval('s', 1), lastval(), pg_sleep(1)")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, state := Scan(text); state&StateSequence == 0 {
			b.Fatal("found nothing")
		}
	}
}
