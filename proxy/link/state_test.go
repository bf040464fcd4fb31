// Tests of what texts and tags say about session state.

package link

import (
	"slices"
	"strings"
	"testing"
)

func TestScanState(t *testing.T) {
	for text, want := range map[string]State{
		"":                                     0,
		"select 1":                             0,
		"select settled, hold_on from t":       0,
		"select set_config('a.b', 'c', false)": StateSet,
		"select pg_catalog.SET_CONFIG ( 'work_mem' , '1MB' , FALSE )":    StateSet,
		"select set_config('a.b', 'c', true)":                            0,
		"select set_config('a.b', f(1, 2), true), 1":                     0,
		"select set_config('a.b', 'x,true)', false)":                     StateSet,
		"select set_config('a.b', 'it''s', true)":                        0,
		"select set_config('a.b', $1, $2)":                               StateSet,
		"select set_config($1, $2, true)":                                0,
		"select set_config($1, $2, false)":                               StateSet | StateHidden,
		"select set_config(name, value, false) from wanted":              StateSet | StateHidden,
		`select "set_config"('a.b', 'c', false)`:                         StateSet,
		"select set_config":                                              StateSet | StateHidden,
		"create temp table x (y int)":                                    StateTemp,
		"create local temporary sequence s":                              StateTemp,
		"create /* */ temp view v as select 1":                           StateTemp,
		"select 1 into temp x":                                           StateTemp,
		"select temp from weather":                                       0,
		"create table pg_temp.x (y int)":                                 StateTemp,
		"select pg_advisory_lock(1)":                                     StateLock,
		"select pg_try_advisory_lock_shared(1)":                          StateLock,
		"select pg_advisory_xact_lock(1)":                                0,
		"select pg_advisory_unlock(1)":                                   StateEnds,
		"select pg_advisory_unlock_all()":                                StateEnds,
		"declare c cursor with hold for select 1":                        StateCursor,
		"drop table x":                                                   StateEnds,
		"discard all":                                                    StateEnds,
		"close c":                                                        StateEnds,
		"unlisten *":                                                     StateEnds,
		"deallocate all":                                                 StateEnds,
		"select setseed(0.5)":                                            StateLoad,
		"do $$ begin perform pg_advisory_lock(1); end $$":                StateLock,
		"select pg_advisory_lock(1); create temp table x(); discard all": StateLock | StateTemp | StateEnds,
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
		"PREPARE": StatePrepared, "DO": StateAny, "DISCARD ALL": StateEnds | StateSet, "DEALLOCATE ALL": StateEnds, "SELECT 1": 0, "": 0, "SETTLE": 0} {
		if got := TagState([]byte(tag), 0); got != want {
			t.Errorf("%s: %b, want %b", tag, got, want)
		}
	}
	if got := TagState([]byte("SET"), SetHarmless); got != 0 {
		t.Errorf("a harmless SET: %b", got)
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
		"prepare p as select 1":   StatePrepared,
		"prepare transaction 'x'": 0,
		"update t set x = 1":      0,
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
		"set": nil,
	} {
		if len(want) > 0 && scanState([]byte(text))&StateNamed == 0 {
			t.Errorf("%s: is not said to set parameters", text)
		}
		if got := ParameterNames([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	var many strings.Builder
	for i := range 100 {
		many.WriteString("set a.b" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + " = 1;")
	}
	if got := ParameterNames([]byte(many.String())); len(got) != maxNames {
		t.Errorf("%d names", len(got))
	}
}

func FuzzScanState(f *testing.F) {
	for _, text := range []string{"set a.b = 1", "select set_config('a', f(1,2), true)", "set \"a\".", "do $$ listen $$", "create/**/temp table x"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		state := scanState(text)
		if Refusable(text)&state != state {
			t.Errorf("refuses less than it sees")
		}
		names := ParameterNames(text)
		if len(names) > 0 && state&StateNamed == 0 {
			t.Errorf("names %q unsaid", names)
		}
		for _, name := range names {
			if len(name) > maxParameter || !hiddenName(name) {
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
