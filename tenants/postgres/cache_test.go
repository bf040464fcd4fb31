package postgres

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// TestCacheFile: it gives back what was written, shows nothing of it, and is good as a whole or not at all.
func TestCacheFile(t *testing.T) {
	c := newCache(filepath.Join(t.TempDir(), "cache"), testKeys(t, "k1"), slog.New(slog.DiscardHandler))
	want := []*tenants.Tenant{sample("acme"), sample("globex")}
	if err := c.save(contents{all: want, marks: map[string]int64{"acme": 7}, end: ending{Epoch: "e", Seen: 9}}); err != nil {
		t.Fatal(err)
	}
	read := func(c *cache) (all []*tenants.Tenant, marks []int64, err error) {
		var r document.Reader
		end, err := c.read(func(in row) error {
			x, err := rowTenant(&r, in, c.keys)
			all, marks = append(all, x), append(marks, in.Mark)
			return err
		})
		if err == nil && (end.Epoch != "e" || end.Seen != 9) {
			t.Errorf("ends with %+v", end)
		}
		return all, marks, err
	}
	got, marks, err := read(c)
	if err != nil || len(got) != 2 || !got[0].Equal(want[0]) || !got[1].Equal(want[1]) || marks[0] != 7 || marks[1] != unread {
		t.Fatalf("%v, %v, %v", got, marks, err)
	}
	text, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"acme", "globex", "marked", "127.0.0.1"} {
		if bytes.Contains(text, []byte(mark)) {
			t.Errorf("the file shows %s", mark)
		}
	}
	if info, err := os.Stat(c.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	bad := newCache(c.path+".bad", c.keys, c.log)
	try := func(what string, text []byte) {
		t.Helper()
		if err := os.WriteFile(bad.path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := read(bad); err == nil || len(got) > 0 {
			t.Errorf("%s: %d tenants, %v", what, len(got), err)
		}
	}
	for n := 0; n < len(text); n++ {
		try("cut short", text[:n])
		changed := bytes.Clone(text)
		changed[n] ^= 1
		try("changed", changed)
	}
	head, rest := text[:len(cacheMagic)+27], text[len(cacheMagic)+27:]
	var records [][]byte
	for len(rest) > 0 {
		n := 4 + binary.BigEndian.Uint32(rest)
		records, rest = append(records, rest[:n]), rest[n:]
	}
	if len(records) != 3 {
		t.Fatalf("%d records", len(records))
	}
	try("in another order", slices.Concat(head, records[1], records[0], records[2]))
	try("one twice", slices.Concat(head, records[0], records[0], records[2]))
	try("longer", append(bytes.Clone(text), text[len(text)-20:]...))
	other := newCache(c.path, testKeys(t, "k2"), c.log)
	if _, _, err := read(other); err == nil || !strings.Contains(err.Error(), "no key k1") {
		t.Errorf("another key: %v", err)
	}
}
