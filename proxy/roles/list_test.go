// Tests of the list: what is taken of an answer, what is not, and who of it may log in.

package roles

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern/postern/proxy/scram"
)

var verifier = scram.Mock([]byte("k"), "acme", "app", 4096)

// row is one of a role that may log in, with some columns replaced; "NULL" is one.
func row(changed map[int]string) [][]byte {
	cols := []string{"app", verifier.Encode(), "NULL", "t", "-1"}
	var out [][]byte
	for i, c := range cols {
		if with, ok := changed[i]; ok {
			c = with
		}
		if c == "NULL" {
			out = append(out, nil)
			continue
		}
		out = append(out, []byte(c))
	}
	return out
}

func TestRows(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 500_000_000, time.UTC)
	weak, err := scram.ParseVerifier(strings.Replace(verifier.Encode(), "$4096:", "$1:", 1))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		changed map[int]string
		want    *Role // nil: cannot log in
	}{
		"as usual":          {nil, &Role{verifier, time.Time{}, -1}},
		"few iterations":    {map[int]string{1: weak.Encode()}, &Role{weak, time.Time{}, -1}},
		"limit":             {map[int]string{4: "7"}, &Role{verifier, time.Time{}, 7}},
		"limit of none":     {map[int]string{4: "0"}, &Role{verifier, time.Time{}, 0}},
		"valid until":       {map[int]string{2: fmt.Sprintf("%d.5", at.Unix())}, &Role{verifier, at, -1}},
		"valid for ever":    {map[int]string{2: "Infinity"}, &Role{verifier, time.Time{}, -1}},
		"valid to year 1e9": {map[int]string{2: "3e16"}, &Role{verifier, time.Time{}, -1}},
		"valid to 10000":    {map[int]string{2: "253402300800"}, &Role{verifier, time.Time{}, -1}},
		"never valid":       {map[int]string{2: "-Infinity"}, &Role{verifier, time.Unix(-60_000_000_000, 0), -1}},
		"no password":       {map[int]string{1: "NULL"}, nil},
		"empty password":    {map[int]string{1: ""}, nil},
		"md5":               {map[int]string{1: "md5d41d8cd98f00b204e9800998ecf8427e"}, nil},
		"broken verifier":   {map[int]string{1: verifier.Encode() + "$"}, nil},
		"costly verifier":   {map[int]string{1: strings.Replace(verifier.Encode(), "$4096:", "$200001:", 1)}, nil},
		"nologin":           {map[int]string{3: "f"}, nil},
		"no UTF-8":          {map[int]string{0: "a\xff"}, nil},
		"Postern's own":     {map[int]string{0: "postern_auth"}, nil},
	} {
		b := NewBuilder("postern_auth")
		r := row(c.changed)
		if err := b.Add(r); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, ok := b.List().Role(string(r[0]))
		if ok != (c.want != nil) || ok && !got.Equal(*c.want) {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
}

// TestRowsThatAreNone: then the whole answer is refused, in words that repeat nothing of it.
func TestRowsThatAreNone(t *testing.T) {
	const canary = "c4nary"
	for name, bad := range map[string][][]byte{
		"no columns":       nil,
		"four columns":     row(nil)[:4],
		"six columns":      append(row(nil), []byte(canary)),
		"no name":          row(map[int]string{0: "NULL"}),
		"empty name":       row(map[int]string{0: ""}),
		"NUL in the name":  row(map[int]string{0: canary + "\x00"}),
		"giant name":       row(map[int]string{0: strings.Repeat(canary, 50)}),
		"no time":          row(map[int]string{2: canary}),
		"NaN":              row(map[int]string{2: "NaN"}),
		"a date":           row(map[int]string{2: "2026-11-30 12:00:00+00"}),
		"no boolean":       row(map[int]string{3: canary}),
		"NULL, no boolean": row(map[int]string{3: "NULL"}),
		"no number":        row(map[int]string{4: canary}),
		"NULL, no number":  row(map[int]string{4: "NULL"}),
		"below -1":         row(map[int]string{4: "-2"}),
		"above int4":       row(map[int]string{4: "2147483648"}),
	} {
		err := NewBuilder("x").Add(bad)
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := NewBuilder("x")
	if err := errors.Join(b.Add(row(nil)), b.Add(row(map[int]string{0: "App"}))); err != nil || b.List().Len() != 2 {
		t.Errorf("%v, %v", err, b.List())
	}
	if err := b.Add(row(map[int]string{1: "NULL"})); err == nil || !strings.Contains(err.Error(), "row 3") {
		t.Errorf("a role twice: %v", err)
	}
	b = NewBuilder("x")
	for i := range MaxRoles {
		if err := b.Add(row(map[int]string{0: fmt.Sprint("r", i), 1: "NULL"})); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add(row(nil)); err == nil {
		t.Error("one role more than may be is taken")
	}
}

func TestExpired(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		until time.Time
		want  bool
	}{{time.Time{}, false}, {at, false}, {at.Add(time.Microsecond), false}, {at.Add(-time.Microsecond), true}} {
		if got := (Role{Until: c.until}).Expired(at); got != c.want {
			t.Errorf("until %v: %v", c.until, got)
		}
	}
}

// TestListsAreKept: what is written down makes the same list again, and does not print.
func TestListsAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBuilder("x")
		for _, name := range rapid.SliceOfNDistinct(rapid.StringN(1, 20, 60).Filter(func(s string) bool { return !strings.Contains(s, "\x00") }), 0, 5, rapid.ID).Draw(t, "names") {
			v := scram.Mock([]byte("k"), "acme", name, 4096)
			until := rapid.SampledFrom([]string{"NULL", "0", "1764500000.25", "-1e6", "-1e30", "249999999999"}).Draw(t, "until")
			if err := b.Add(row(map[int]string{0: name, 1: v.Encode(), 2: until, 4: fmt.Sprint(rapid.IntRange(-1, 9).Draw(t, "limit"))})); err != nil {
				t.Fatal(err)
			}
		}
		back, err := Decode(b.List().Encode())
		if err != nil || !back.Equal(b.List()) || !b.List().Equal(back) {
			t.Fatalf("%v: %v", back, err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, back); strings.Contains(text, "SCRAM-SHA-256$") {
				t.Fatalf("%s prints %s", verb, text)
			}
		}
	})
	for _, bad := range []string{"", "[]", `{"a":{"verifier":"c4nary"}}`, `{"a":{"verifier":7}}`} {
		if l, err := Decode([]byte(bad)); err == nil || l != nil || strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%q: %v, %v", bad, l, err)
		}
	}
}

func TestListsDiffer(t *testing.T) {
	list := func(rows ...map[int]string) *List {
		b := NewBuilder("x")
		for _, r := range rows {
			if err := b.Add(row(r)); err != nil {
				t.Fatal(err)
			}
		}
		return b.List()
	}
	one := list(nil)
	for name, other := range map[string]*List{
		"none known":       nil,
		"nobody":           list(),
		"another name":     list(map[int]string{0: "b"}),
		"one more":         list(nil, map[int]string{0: "b"}),
		"verifier":         list(map[int]string{1: scram.Mock([]byte("k"), "acme", "app", 4097).Encode()}),
		"valid until":      list(map[int]string{2: "0"}),
		"connection limit": list(map[int]string{4: "1"}),
	} {
		if one.Equal(other) || other.Equal(one) {
			t.Errorf("%s: the same", name)
		}
	}
	if !one.Equal(list(nil)) || !(*List)(nil).Equal(nil) {
		t.Error("the same are not")
	}
}

// FuzzRow: no row of a hostile server does more than be refused, and no list comes out that cannot be kept.
func FuzzRow(f *testing.F) {
	r := row(nil)
	f.Add(r[0], r[1], []byte("1e9"), r[3], r[4])
	f.Add([]byte("a\xff"), []byte(""), []byte("NaN"), []byte("true"), []byte("-1"))
	f.Fuzz(func(t *testing.T, a, b, c, d, e []byte) {
		builder := NewBuilder("x")
		if err := builder.Add([][]byte{a, b, c, d, e}); err != nil {
			if builder.List().Len() != 0 {
				t.Fatal("a row that was refused is in the list")
			}
			return
		}
		if back, err := Decode(builder.List().Encode()); err != nil || !back.Equal(builder.List()) {
			t.Fatalf("%v: %v", builder.List(), err)
		}
	})
}
