// Tests of what texts and tags say about session state.

package sqltext

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestScanState(t *testing.T) {
	for text, want := range map[string]State{
		"":                                     0,
		"select 1":                             0,
		"select settled, hold_on from t":       0,
		"select set_config('a.b', 'c', false)": StateSet,
		"select pg_catalog.SET_CONFIG ( 'work_mem' , '1MB' , FALSE )":               StateSet,
		"select set_config('a.b', 'c', true)":                                       0,
		"select set_config('a.b', f(1, 2), true), 1":                                0,
		"select set_config('a.b', 'x,true)', false)":                                StateSet,
		"select set_config('a.b', 'it''s', true)":                                   0,
		"select set_config('a.b', $1, $2)":                                          StateSet,
		"select set_config('a.b', E'it\\', true)', false)":                          StateSet,
		"select set_config('a.b', $x$it's, true)$x$, false)":                        StateSet,
		"select set_config($1, $2, true)":                                           0,
		"select set_config($1, $2, false)":                                          StateSet | StateNameInBind,
		"select set_config(name, value, false) from wanted":                         StateSet,
		`select "set_config"('a.b', 'c', false)`:                                    StateSet,
		"select set_config":                                                         0,
		"create temp table x (y int)":                                               StateTemp | StateMakes,
		"create local temporary sequence s":                                         StateTemp | StateMakes,
		"create /* */ temp view v as select 1":                                      StateTemp | StateMakes,
		"select 1 into temp x":                                                      StateTemp | StateMakes,
		"CREATE view v as select 1":                                                 StateMakes,
		"with x as (select 1) select * INTO t from x":                               StateMakes,
		"insert into t select 1":                                                    StateSequence,
		"explain analyze create table t as select created, into_ from u":            StateMakes,
		"select pg_create_logical_replication_slot('s', 'x', true)":                 StateLoad,
		"select pg_copy_physical_replication_slot('s', 't', true)":                  StateLoad,
		"select pg_drop_replication_slot('s') from pg_replication_slots":            0,
		"select pg_replication_origin_session_setup('o')":                           StateLoad,
		"select pg_replication_origin_session_is_setup()":                           0,
		"select pg_backup_start('x', true), \"pg_backup_stop\"()":                   StateLoad,
		"select pg_start_backup('x')":                                               StateLoad,
		"select pg_is_in_backup(), pg_backup_start_time()":                          0,
		"select temp from weather":                                                  0,
		"create table pg_temp.x (y int)":                                            StateTemp | StateMakes,
		"create collation pg_temp.x (locale = 'C')":                                 StateTemp | StateMakes,
		"alter table x set schema pg_temp_12":                                       StateTemp,
		"select * from pg_temperature, pg_temp_stat":                                0,
		"update pg_settings set setting = 'x' where name = 'y'":                     StateSet,
		"update only pg_catalog.\"pg_settings\" set setting = 'x'":                  StateSet,
		"with x as (select from pg_settings) update/**/pg_settings set setting = 1": StateSet,
		"prepare p as update pg_settings set setting = $1":                          StateSet,
		"select name, setting from pg_settings for update":                          0,
		"insert into t values (1) on conflict do update set x = 1":                  StateSequence,
		`select U&"\0073et_config"('a.b', 'c', false)`:                              StateUnseen,
		`select u&"set!005fconfig" uescape '!' ('a.b', 'c', false)`:                 StateUnseen,
		`select U&"pg!+00005fadvisory_lock" uescape '!' (1)`:                        StateUnseen,
		`select U&"gr\00f6\00dfe", u & "0073", menu&"0073", U&'\0073' from t`:       0,
		`select U&"x", '0073"' from t`:                                              0,
		"select query_to_xml($1, true, false, '')":                                  StateUnseen,
		"select query_to_xmlschema('select 1', true, false, '')":                    StateUnseen,
		"select \"query_to_xml_and_xmlschema\"('select 1', true, false, '')":        StateUnseen,
		"select * from pg_catalog.ts_stat('select 1')":                              StateUnseen,
		"select ts_rewrite('a'::tsquery, 'select 1')":                               StateUnseen,
		"select table_to_xml('t', true, false, ''), ts_stats, query_to_json from t": 0,
		"select set_limit(0.77)":                                                    StateSet,
		`select public."set_limit" ($1)`:                                            StateSet,
		"select SET_LIMIT/* */(0.5), show_limit()":                                  StateSet,
		"select set_limits(1), offset_limit(2), show_limit()":                       0,
		"select isn_weak(true)":                                                     StateLoad,
		"select isn_weak(/* */)":                                                    StateLoad, // to be on the safe side
		"select isn_weak(), \"isn_weak\" ( )":                                       0,
		"select dblink_connect('host=a')":                                           StateLoad,
		"select dblink_connect_u('mine', $1)":                                       StateLoad,
		"select dblink('host=a', 'select 1'), dblink_disconnect('mine')":            0,
		"select sepgsql_setcon(null)":                                               StateLoad,
		"select pg_advisory_lock(1)":                                                StateLock,
		"select pg_try_advisory_lock_shared(1)":                                     StateLock,
		"select pg_advisory_xact_lock(1)":                                           0,
		"select pg_advisory_unlock(1)":                                              StateEnds,
		"select pg_advisory_unlock_all()":                                           StateEnds,
		"declare c cursor with hold for select 1":                                   StateCursor,
		"drop table x":                           StateEnds,
		"discard all":                            StateEnds,
		"close c":                                StateEnds,
		"unlisten *":                             StateEnds,
		"deallocate all":                         StateEnds,
		"select setseed(0.5)":                    StateSeed,
		"select set_config('seed', '0.5', true)": StateSeed,
		"select set_config('Seed'::text, '0.5', false)":     StateSeed,
		"select set_config('se' || 'ed', '0.5', false)":     StateSet,
		"select set_config('work_mem'::text, '1MB', false)": StateSet,
		"set seed = 0.5":                   0, // its tag says so
		"update games set seed = 0.5":      0,
		"select nextval('s')":              StateSequence,
		"select pg_catalog.setval('s', 1)": StateSequence,
		"insert into t default values":     StateSequence,
		"with x as (insert into t default values returning id) select 1": StateSequence,
		"merge into t using u on true when not matched then do nothing":  StateSequence,
		"call p(1)":           StateSequence,
		"copy t from stdin":   StateSequence,
		"select currval('s')": StateReads,
		`select "currval"('s'), pg_catalog."lastval"()`:                  StateReads,
		"select lastval/**/()":                                           StateReads,
		"insert into t default values; select lastval()":                 StateReads | StateSequence,
		"select current_value, lastvalue, nextvalue, insertion from t":   0,
		"do $$ begin perform pg_advisory_lock(1); end $$":                StateLock | StateSequence,
		"select pg_advisory_lock(1); create temp table x(); discard all": StateLock | StateTemp | StateMakes | StateEnds,
	} {
		got := scanState([]byte(text))
		if got&StateNamed == 0 && len(ParameterNames([]byte(text))) > 0 {
			t.Errorf("%s: sets parameters, and is not said to", text)
		}
		if got &^= StateNamed; got != want {
			t.Errorf("%s: %v %b, want %b", text, got.Names(), got, want)
		}
		if got := scanState([]byte(strings.ToUpper(text))) &^ StateNamed; got != want {
			t.Errorf("%s in capitals: %b, want %b", text, got, want)
		}
	}
}

func TestTagState(t *testing.T) {
	for tag, want := range map[string]State{"SET": StateSet, "RESET": StateSet, "LISTEN": StateListen, "UNLISTEN": StateEnds, "LOAD": StateLoad,
		"PREPARE": StatePrepared, "DO": StateAny | StateSequence, "INSERT 0 1": StateSequence, "COPY 3": StateSequence,
		"MERGE 1": StateSequence, "CALL": StateSequence, "CREATE TABLE": 0, "COMMIT": 0, "INSERT": 0, "MOVE 1": 0, "DISCARD ALL": StateEnds | StateSet, "DEALLOCATE ALL": StateEnds, "SELECT 1": 0, "": 0, "SETTLE": 0} {
		if got := TagState([]byte(tag), 0); got != want {
			t.Errorf("%s: %b, want %b", tag, got, want)
		}
	}
	if got := TagState([]byte("SET"), SetHarmless); got != 0 {
		t.Errorf("a harmless SET: %b", got)
	}
}

// A seed that was set is there for good, however it was set: by its tag, so that
// a column of this name costs nothing.
func TestSetsSeed(t *testing.T) {
	for text, want := range map[string]bool{
		"set seed = 0.5": true, "SET SESSION Seed TO 0.5": true, "set local seed = 0.5": true, `set "seed" = 0.5`: true, `set local "seed" to 1`: true,
		"begin; set seed to 0.5; commit": true, "set /* */ seed = 0.5": true, "set --\nseed = 0.5": true, "set local/**/seed = 0.5": true,
		"/* */ set seed = 0.5": true, `set U&"s\0065ed" = 0.5`: true, "do $$ begin set seed = 0.5; end $$": true,
		"set seeds = 1": false, "set s = 1": false, "set seed_ = 1": false, "set session characteristics as transaction read only": false,
		"set time zone 'UTC'": false, `set "search_path" = x`: false, "set x.seed = 1": false, "select seed from games": false, "set": false, "set u&": false,
	} {
		note := scanNote([]byte(text))
		if got := note&SetsSeed != 0; got != want {
			t.Errorf("%s: %t", text, got)
		}
		for tag, sets := range map[string]bool{"SET": true, "DO": true, "UPDATE 1": false, "SELECT 1": false, "": false} {
			if got := TagState([]byte(tag), note)&StateSeed != 0; got != (want && sets) {
				t.Errorf("%s with the tag %s: %t", text, tag, got)
			}
		}
		if got := Refusable([]byte(text))&StateSeed != 0; got && !want {
			t.Errorf("%s is refused", text)
		}
	}
}

func TestFunctionState(t *testing.T) {
	for oid, want := range map[uint32]State{6006: StateLoad, 2172: StateLoad, 3786: StateLoad, 1574: StateSequence, 2559: StateReads, 1599: StateSeed, 2078: StateSet | StateNameUnknown, 2880: StateLock,
		957: 0, 1397: StateAny | StateNameUnknown, 1 << 20: StateAny | StateNameUnknown} {
		if got := FunctionState(oid); got != want {
			t.Errorf("%d: %b", oid, got)
		}
	}
}

func TestRefusable(t *testing.T) {
	for text, want := range map[string]State{
		"set work_mem = 1":                        StateSet,
		"select 1; SET SESSION x.y = 1":           StateSet,
		"set local work_mem = 1":                  0,
		"set transaction isolation level default": 0,
		"listen c":                StateListen,
		"load 'auto_explain'":     StateLoad,
		"/* x */ -- y\n listen c": StateListen, "select 1; /* set a */ load 'x'": StateLoad, "/*x*/set work_mem = 1": StateSet, "set local.user = 1": StateSet,
		"/* listen */ select 1":                     0,
		"prepare p as select 1":                     StatePrepared,
		"prepare transaction 'x'":                   0,
		"set local seed = 1":                        StateSeed,
		"select setseed(1)":                         StateSeed,
		"select lastval()":                          StateReads,
		"update t set x = 1":                        0,
		"update pg_settings set setting = 1":        StateSet,
		"select pg_backup_start('x')":               StateLoad,
		"select set_limit(1), isn_weak(true)":       StateSet | StateLoad,
		`select U&"set\005fconfig"('a', 'b', true)`: 0, // what gets past is reset
		"select query_to_xml('select pg_advisory_lock(1)', true, true, '')": StateLock,
	} {
		if got := Refusable([]byte(text)) &^ StateNamed; got != want {
			t.Errorf("%s: %b, want %b", text, got, want)
		}
	}
}

func TestParameterNames(t *testing.T) {
	for text, want := range map[string][]string{
		"set work_mem = 1":                           nil,
		"set app.user = 'x'":                         {"app.user"},
		"SET SESSION App.User TO 'x'":                {"app.user"},
		"set local app.user = 'x'":                   {"app.user"},
		`set "app"."User" = 1`:                       {"app.user"},
		"set app . user = 1; reset other.x":          {"app.user", "other.x"},
		"set role admin":                             {"role"},
		"set session role admin":                     {"role"},
		"reset role":                                 {"role"},
		"set session authorization bob":              {"session_authorization"},
		"reset session authorization":                {"session_authorization"},
		"select set_config('app.user', 'x', false)":  {"app.user"},
		"select set_config('ROLE', 'x', false)":      {"role"},
		"select set_config('work_mem', 'x', false)":  nil,
		"select set_config($1, 'x', false)":          nil,
		"set app.a = 1; set app.b = 2; set app.a =1": {"app.a", "app.b"},
		"do $$ begin set app.z = 1; end $$":          {"app.z"},
		`set "unfinished`:                            nil,
		"set " + strings.Repeat("x", 70) + ".y = 1":  nil,
		"set session.user_id = '42'":                 {"session.user_id"}, "SET LOCAL . user_id = '42'": {"local.user_id"}, "set role.x = 1": {"role.x"},
		"set /* c */ app.y = 1": {"app.y"}, "set -- c\n session /* /* */ */ app /**/ . /**/ y = 1": {"app.y"}, "set session session authorization x": {"session_authorization"},
		"set " + strings.Repeat("x", 60) + "." + strings.Repeat("y", 60) + " = 1": {strings.Repeat("x", 60) + "." + strings.Repeat("y", 60)},
		"select set_config /* c */ ( 'a.b', E'\\', true)', false)":                {"a.b"},
		"set":                    nil,
		"select set_limit(0.77)": {"pg_trgm.similarity_threshold"}, "select isn_weak(true), set_limit": {"pg_trgm.similarity_threshold"},
	} {
		if len(want) > 0 && scanState([]byte(text))&StateNamed == 0 {
			t.Errorf("%s: is not said to set parameters", text)
		}
		if got := ParameterNames([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	var many strings.Builder
	for i := range maxNames + 44 {
		fmt.Fprintf(&many, "set a.b%d = 1;", i)
	}
	if got := ParameterNames([]byte(many.String())); len(got) != maxNames {
		t.Errorf("%d names", len(got))
	}
	if scanNote([]byte(many.String()))&SetsHidden == 0 {
		t.Error("nothing says that there are more")
	}
}

// What a text does not tell is said, where its tag may make it count.
func TestUntold(t *testing.T) {
	for text, want := range map[string]Note{
		"set app.x = 1": 0, "set session.x = 1": 0, "update t set (a, b) = (1, 2)": 0, `update t set "a""b" = 1`: 0, "set work_mem = 1": 0, "set": 0, "select 1; set (": 0,
		"set größe = 1": 0, "alter table t alter c set (n_distinct = 5)": 0,
		`set U&"a.b" = 1`: SetsHidden, `set app."x""y" = 1`: SetsHidden, "/* c */ set U&\"a.b\" = 1": SetsHidden, "set app.größe = 1": SetsHidden,
		"set /*" + strings.Repeat("x", maxBlank) + "*/ app.x = 1": SetsHidden, "set " + strings.Repeat("x", 70) + ".y = 1": SetsHidden,
		"set /* unfinished": SetsHidden, "set app /* unfinished": SetsHidden,
		"select set_config(a || 'b', 'x', false)": HidesNames, "select set_config(E'a.b', 'x', false)": HidesNames, `select "set_config"(a, b, c)`: HidesNames,
		"select set_config('a' '.b', 'x', false)": HidesNames, `select set_config('a\b', 'x', false)`: HidesNames, "select set_config(a, b, true)": 0,
		"select set_config($1, $2, $3)": 0, "select set_config($1 || '', $2, $3)": HidesNames, "select 'set_config'": 0, "select set_config('größe.x', '1', false)": HidesNames,
		"do $$ begin execute 'set ' || 'a.b=1'; end $$": BodyHides, "/* c */ do $$ begin execute x; end $$": BodyHides, "do $$ begin set a.b = 1; end $$": 0,
		`do $$ begin set U&"a.b" = 1; end $$`: BodyHides, "insert into t values (1) on conflict do nothing; execute p": 0,
		"do language plperl $$ spi_exec_query($x) $$": BodyHides,
		"do 'begin set a.b = 1; end'":                 BodyHides, `do language plpgsql E'begin \x73et a.b = 1; end'`: BodyHides, "do U&'begin \\0073et a.b = 1; end'": BodyHides,
		"/* $$ */ do /* $$ */ 'begin set a.b = 1; end'": BodyHides, "do language plpgsql $x$ begin perform regexp_replace(a, '\\d', ''); end $x$": 0,
		"do language \"plpgsql\" /* c */ $$ begin set a.b = 1; end $$": 0, "select 1; do $$ begin end $$; do 'begin end'": BodyHides,
	} {
		if got := scanNote([]byte(text)) & (SetsHidden | HidesNames | BodyHides); got != want {
			t.Errorf("%s: %b, want %b", text, got, want)
		}
	}
	for _, tc := range []struct {
		tag  string
		note Note
		want State
	}{
		{"SET", SetsHidden, StateHidden}, {"UPDATE 1", SetsHidden, 0}, {"SET", SetsHidden | SetHarmless, 0}, {"SELECT 1", HidesNames, StateNameUnknown}, {"", HidesNames, StateNameUnknown},
		{"DO", BodyHides, StateNameUnknown}, {"SELECT 1", BodyHides, 0}, {"SELECT 1", Unseen, StateUnseen},
	} {
		if got := TagState([]byte(tc.tag), tc.note) &^ (StateAny | StateSequence | StateReads); got != tc.want&(StateHidden|StateNameUnknown) {
			t.Errorf("%s with %b: %b", tc.tag, tc.note, got)
		}
	}
}

// A text costs time in proportion to its length, whatever it is made of.
func TestScanIsLinear(t *testing.T) {
	for _, word := range []string{"temp ", "u&\"", "pg_settings ", "do language ", "set_config(", "set/*", "set ", "do ", "set_config('", "set \"", "/*", "set--", "set_config($x$"} {
		start := time.Now()
		text := []byte(strings.Repeat(word, 1<<20/len(word)))
		Scan(text)
		ParameterNames(text)
		Refusable(text)
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%q: %v", word, d)
		}
	}
}

func FuzzScanState(f *testing.F) {
	for _, text := range []string{"set a.b = 1", "select set_config('a', f(1,2), true)", "set \"a\".", "do $$ listen $$", "create/**/temp table x"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		state := scanState(text)
		if note := scanNote(text); Refusable(text)&state != state && note&Unseen == 0 {
			t.Errorf("refuses less than it sees")
		}
		names := ParameterNames(text)
		if len(names) > 0 && state&StateNamed == 0 {
			t.Errorf("names %q unsaid", names)
		}
		for _, name := range names {
			if len(name) > maxParameter || !hiddenName([]byte(name)) {
				t.Errorf("name %q", name)
			}
		}
	})
}

func scanState(text []byte) State {
	_, state := Scan(text)
	return state
}

func scanNote(text []byte) Note {
	note, _ := Scan(text)
	return note
}
