// Which databases a text wants for itself, as people write it.

package sqltext

import (
	"strings"
	"testing"
)

func TestVacates(t *testing.T) {
	long := strings.Repeat("d", 70)
	for text, want := range map[string]string{
		"drop database shop":                                       "shop",
		"DROP DATABASE Shop;":                                      "shop",
		"drop database if exists shop":                             "shop",
		"DROP DATABASE IF EXISTS \"Shop\" WITH (FORCE)":            "Shop",
		`drop database "my ""shop"""`:                              `my "shop"`,
		"drop database shop with (force)\x00":                      "shop",
		"/* sent /* by */ rails */ drop -- x\n database\tshop":     "shop",
		" ;; drop database shop":                                   "shop",
		"drop database $hop":                                       "$", // a syntax error
		"drop database sh$op":                                      "sh$op",
		"drop database größe":                                      "größe",
		"drop database " + long:                                    long[:63],
		`drop database "` + strings.Repeat("d", 62) + `ö"`:         strings.Repeat("d", 62),
		"alter database shop rename to store":                      "shop",
		`ALTER DATABASE "Shop" RENAME TO store`:                    "Shop",
		"alter database shop set tablespace fast":                  "shop",
		"create database store template shop":                      "shop",
		"create database store template = shop":                    "shop",
		`CREATE DATABASE store WITH OWNER me TEMPLATE="Shop"`:      "Shop",
		"create database store template 'Shop'":                    "Shop",
		"create database store encoding 'UTF8' template template0": "template0",
		"create database store template default":                   "template1",
		"create database store":                                    "template1",
		"create database store owner me;":                          "template1",
		`create database "template" template shop`:                 "shop",

		"":                    "",
		"drop":                "",
		"drop database":       "",
		"drop table database": "",
		"alter database shop": "",
		"alter database shop set search_path to x": "",
		"alter database shop owner to me":          "",
		"alter table shop rename to store":         "",
		"alter table database rename to store":     "",
		"create table database (template int)":     "",
		"create table shop as table template":      "",
		"select 'drop database shop'":              "",
		"/* drop database shop":                    "",
		"-- drop database shop":                    "",
		`drop database U&"d\0061t"`:                "",
		`drop "database" shop`:                     "",
		"select 1; drop database shop":             "", // it does not run there
		`drop database "shop`:                      "",
	} {
		if got := strings.Join(Vacates([]byte(text)), ","); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		note, _ := Scan([]byte(text))
		if want != "" && note&Alters == 0 {
			t.Errorf("%s: Scan does not say that it Alters", text)
		}
	}
}

// FuzzVacates: whatever the text, a name is one that could be a database's, and Scan has said that the text Alters.
func FuzzVacates(f *testing.F) {
	for _, text := range []string{"drop database if exists \"a\"\"b\" with (force)", "create database a template = 'b'", "/* x */ alter database a set tablespace b", "drop database \x00\xff"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, name := range Vacates(text) {
			note, _ := Scan(text)
			if name == "" || len(name) > MaxName || note&Alters == 0 {
				t.Fatalf("%q: %q, noted %v", text, name, note)
			}
		}
	})
}
