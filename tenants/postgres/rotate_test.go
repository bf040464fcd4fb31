package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// keyFile writes one with these keys, and has who follows from now on use it.
func (w *world) keyFile(name string, ids ...string) string {
	w.t.Helper()
	var text strings.Builder
	text.WriteString("# keys\n")
	for _, id := range ids {
		fmt.Fprintf(&text, "%s %s\n", id, testKey(id))
	}
	path := filepath.Join(filepath.Dir(w.cache), name)
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.opts.KeyFile = path
	var err error
	if w.keys, err = ReadKeys(path); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", text, 0o600)
	}
	if err = errors.Join(err, os.Rename(to+".new", to)); err != nil {
		t.Fatal(err)
	}
}

// rotate runs a change of the key, and what it says.
func (w *world) rotate(file string, o RotateOptions) (said *logged, done chan error) {
	said, done = new(logged), make(chan error, 1)
	o.Conn, o.KeyFile, o.Out = w.conf(), file, said
	go func() { done <- RotateKey(w.t.Context(), o) }()
	return said, done
}

func (w *world) says(l *logged, text string) {
	w.t.Helper()
	defer func() {
		if w.t.Failed() {
			w.t.Logf("it says\n%s", l)
		}
	}()
	harness.Eventually(w.t, harness.Patience, fmt.Sprintf("it says %q", text), func() bool { return strings.Contains(l.String(), text) })
}

// sealedWith counts the secrets of users by the key that has sealed them.
func (w *world) sealedWith() map[string]int {
	w.t.Helper()
	rows, err := w.connect().Query(w.t.Context(), `SELECT s FROM postern.users, unnest(ARRAY[verifier, password, server_password]) s WHERE s IS NOT NULL`)
	if err != nil {
		w.t.Fatal(err)
	}
	all := make(map[string]int)
	var sealed []byte
	if _, err := pgx.ForEachRow(rows, []any{&sealed}, func() error { all[sealedBy(sealed)]++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// TestRotateKey: a new key is waited for on every node, by name; what others edit meanwhile is not lost; afterwards the old one is not
// needed for anything.
func TestRotateKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	first, second := w.keyFile("first.key", "k1"), w.keyFile("second.key", "k1")
	var all []*tenants.Tenant
	for i := range 60 { // 120 users: more than a batch
		all = append(all, sample(fmt.Sprintf("t%03d", i)))
	}
	w.load(all...)
	cache := w.cache
	var followers []*follower
	for _, name := range []string{"first", "second"} {
		w.cache = cache + name
		w.keyFile(name+".key", "k1")
		f := w.followAs(name)
		harness.Eventually(t, harness.Patience, "all are read", func() bool { return f.d.Len() == len(all) && !f.d.Filling() })
		followers = append(followers, f)
	}
	w.missing(w.version())
	registry := w.registry() // of the second node
	edits := 0
	edit := func(id, password string) {
		edits++
		if _, err := registry.Change(t.Context(), with(id, 0, func(next *tenants.Tenant) {
			users := map[string]*tenants.User{"app": next.Users["app"], "web": {Name: "web", Password: tenants.NewSecret(password), PoolSize: edits}}
			next.Users = users
		})); err != nil {
			t.Error(err)
		}
	}
	before := 0
	said, done := w.rotate(first, RotateOptions{beforeBatch: func(context.Context) error {
		if before++; before == 1 { // of a row that was chosen, and of one that was not yet
			edit("t003", "edited")
			edit("t055", "edited")
		}
		return nil
	}})
	w.says(said, "waiting for nodes to have key k2: give them the key file\n  second has k1\n")
	if got := w.sealedWith(); got["k2"] > 0 || got["k1"] != 180 {
		t.Errorf("before every node has the key: %v", got)
	}
	if busy, other := w.rotate(first, RotateOptions{}); <-other == nil {
		t.Errorf("two at a time: %s", busy)
	}
	copyFile(t, first, second)
	w.says(said, "waiting for nodes to seal with key k2: give them the key file again, it is the first one there now\n  second seals with k1\n")
	for _, f := range followers {
		f.told()
	}
	edit("t007", "sealed with the old key, because the file is not there yet")
	copyFile(t, first, second)
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	w.says(said, "nothing needs k1 any more")
	if got := w.sealedWith(); len(got) != 1 || got["k2"] < 170 {
		t.Errorf("sealed with %v", got)
	}
	w.missing(w.version())
	for i, f := range followers {
		got, _ := f.d.Tenant("t003")
		other, _ := f.d.Tenant("t055")
		last, _ := f.d.Tenant("t007")
		if got.Users["web"].Password != tenants.NewSecret("edited") || other.Users["web"].Password != tenants.NewSecret("edited") ||
			last.Users["web"].PoolSize != edits || last.Users["app"].Verifier != sample("t007").Users["app"].Verifier {
			t.Errorf("node %d: %+v, %+v, %+v", i, got.Users["web"], other.Users["web"], last.Users["web"])
		}
		if told := f.told(); len(told) > 1 {
			t.Errorf("node %d takes what was sealed anew for changes: %v", i, told)
		}
		f.stop()
	}

	// Without the old key everything opens, the cache files, too.
	text, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || keyOfLine(lines[0]) != "" || keyOfLine(lines[1]) != "k2" || keyOfLine(lines[2]) != "k1" {
		t.Errorf("the key file:\n%s", text)
	}
	if err := os.WriteFile(first, []byte(lines[1]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w.keys, err = ReadKeys(first); err != nil {
		t.Fatal(err)
	}
	w.opts.KeyFile, w.cache = first, cache+"second"
	f, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.fromCache(); err != nil || f.d.Len() != 60 {
		t.Errorf("cache file: %v", err)
	}
	w.watch(f)
	harness.Eventually(t, harness.Patience, "all are read", func() bool { return f.d.Len() == 60 && !f.d.Filling() })
	if f.Stats().Refused > 0 {
		t.Error("some do not open")
	}
	log, err := registry.Audit(t.Context(), "", 0, 100)
	if err != nil || !slices.ContainsFunc(log, func(e tenants.Entry) bool { return e.Action == "store.rotate-key" && e.Changes[0].New == `"k2"` }) {
		t.Errorf("the audit log has %+v, %v", log, err)
	}
}

// TestRotateKeyGoesOn: one that was interrupted is taken up with the same key; one that has values that do not open says which.
func TestRotateKeyGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	file := w.keyFile("store.key", "k1")
	var all []*tenants.Tenant
	for i := range 60 {
		all = append(all, sample(fmt.Sprintf("t%03d", i)))
	}
	w.load(all...)
	said, done := w.rotate(file, RotateOptions{DryRun: true})
	if err := <-done; err != nil || !strings.Contains(said.String(), "would seal 120 rows with key k2") {
		t.Errorf("%v\n%s", err, said)
	}
	stop, batches := errors.New("stopped"), 0
	said, done = w.rotate(file, RotateOptions{beforeBatch: func(context.Context) error {
		if batches++; batches == 2 {
			return stop
		}
		return nil
	}})
	if err := <-done; !errors.Is(err, stop) {
		t.Fatalf("%v\n%s", err, said)
	}
	if got := w.sealedWith(); got["k1"] != 30 || got["k2"] != 150 {
		t.Errorf("in the middle: %v", got)
	}
	w.exec(`UPDATE postern.users SET password = '\x00' WHERE tenant = 't050' AND name = 'web'`)
	said, done = w.rotate(file, RotateOptions{})
	if err := <-done; err == nil || !strings.Contains(err.Error(), "1 secrets do not open") || !strings.Contains(err.Error(), "password of t050/web") {
		t.Errorf("%v\n%s", err, said)
	}
	w.exec(`UPDATE postern.users SET password = NULL WHERE tenant = 't050' AND name = 'web'`)
	said, done = w.rotate(file, RotateOptions{To: "k3"})
	if err := <-done; err == nil || !strings.Contains(err.Error(), "to key k2: that has to end first") {
		t.Errorf("%v\n%s", err, said)
	}
	said, done = w.rotate(file, RotateOptions{})
	if err := <-done; err != nil || !strings.Contains(said.String(), "being changed to key k2: going on") || !strings.Contains(said.String(), "nothing needs k1 any more") {
		t.Errorf("%v\n%s", err, said)
	}
	if got := w.sealedWith(); len(got) != 1 || got["k2"] != 179 {
		t.Errorf("at the end: %v", got)
	}
	// Another one, to a key that is there already.
	file = w.keyFileOf(file, "k7")
	said, done = w.rotate(file, RotateOptions{To: "k7"})
	if err := <-done; err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	if got := w.sealedWith(); got["k7"] != 179 {
		t.Errorf("at the end: %v", got)
	}
}

// TestRotateKeyWaitsItsTurn: the connection of one that was interrupted may still be there for a moment.
func TestRotateKeyWaitsItsTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	file := w.keyFile("store.key", "k1")
	w.load(sample("acme"))
	before := w.connect()
	if _, err := before.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, int64(rotating)); err != nil {
		t.Fatal(err)
	}
	said, done := w.rotate(file, RotateOptions{DryRun: true})
	harness.Eventually(t, harness.Patience, "it waits", func() bool {
		var waits bool
		err := w.connect().QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waits)
		return err == nil && waits
	})
	closeConn(before)
	if err := <-done; err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// keyFileOf adds a key to a file, at its end.
func (w *world) keyFileOf(path, id string) string {
	w.t.Helper()
	if err := editKeyFile(path, func(lines []string) []string { return append(lines, id+" "+testKey(id)) }); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// TestResealWaitsForEditors: a transaction that has changed a secret and is still open is not overwritten.
func TestResealWaitsForEditors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	file := w.keyFile("store.key", "k1")
	w.load(sample("acme"))
	tx, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := rowOf(sample("acme"), 0, w.keys)
	other.Users[1].Password = w.keys.seal(userPlace("acme", "web", "password"), []byte("newer"))
	if _, err := tx.Exec(t.Context(), `UPDATE postern.users SET password = $1 WHERE tenant = 'acme' AND name = 'web'`, other.Users[1].Password); err != nil {
		t.Fatal(err)
	}
	said, done := w.rotate(file, RotateOptions{})
	asking := w.connect()
	harness.Eventually(t, harness.Patience, "it waits for the row", func() bool {
		var n int
		err := asking.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n)
		return err == nil && n == 1
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if w.keys, err = ReadKeys(file); err != nil {
		t.Fatal(err)
	}
	f := w.follow()
	f.has(t, "acme")
	got, _ := f.d.Tenant("acme")
	if got.Users["web"].Password != tenants.NewSecret("newer") || got.Users["app"].Verifier != sample("acme").Users["app"].Verifier {
		t.Errorf("%+v", got.Users)
	}
}

// TestSealedTablesAreAll: whatever column could hold sealed values is sealed anew, or known not to.
func TestSealedTablesAreAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	known := []string{"audit.chain", "tokens.digest"} // hashes
	for _, table := range sealedTables() {
		for _, f := range table.fields {
			known = append(known, table.name+"."+f)
		}
	}
	slices.Sort(known)
	var there []string
	if err := w.connect().QueryRow(t.Context(), `SELECT array_agg(table_name || '.' || column_name ORDER BY (table_name || '.' || column_name) COLLATE "C")
		FROM information_schema.columns WHERE table_schema = 'postern' AND data_type = 'bytea'`).Scan(&there); err != nil || !slices.Equal(there, known) {
		t.Errorf("columns of bytes are %v, known are %v; %v", there, known, err)
	}
}

// TestKeyFileIsFollowed: a new key file is taken over while the store is followed; a bad one changes nothing.
func TestKeyFileIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	w.put("acme", plainDocument)
	file := w.keyFile("store.key", "k1")
	f := w.followAs("a")
	f.has(t, "acme")
	w.missing(1)
	keys := func() []string {
		all, err := w.asked().Nodes(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all[0].Keys
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	for i, bad := range []string{"", "k1 short\n", "k1 " + testKey("k2") + "\n"} {
		write(bad)
		harness.Eventually(t, harness.Patience, "the mistake is told", func() bool {
			return strings.Count(w.log.String(), "is not taken over: the keys of before stay") > i
		})
	}
	if strings.Contains(w.log.String(), testKey("k2")) {
		t.Error("the log has a key")
	}
	if got := keys(); !slices.Equal(got, []string{"k1"}) {
		t.Errorf("keys %v", got)
	}
	// A tenant of which a secret is sealed with a key that is not there yet comes with the key.
	ahead := testKeys(t, "k2", "k1")
	if _, err := Import(t.Context(), w.conf(), ahead, []*tenants.Tenant{sample("globex")}, ImportOptions{}, new(strings.Builder)); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "it is refused", func() bool { return f.Stats().Refused == 1 })
	write("k1 " + testKey("k1") + "\nk2 " + testKey("k2") + "\n")
	f.has(t, "acme", "globex")
	harness.Eventually(t, harness.Patience, "the node says that it has the key", func() bool { return slices.Equal(keys(), []string{"k1", "k2"}) })
	write("k2 " + testKey("k2") + "\nk1 " + testKey("k1") + "\n")
	harness.Eventually(t, harness.Patience, "the cache file is sealed with the first key", func() bool {
		all, err := w.asked().Nodes(t.Context())
		return err == nil && all[0].Cache == "k2"
	})
	if id, err := keyOfCache(w.cache); err != nil || id != "k2" {
		t.Errorf("the cache file needs %q, %v", id, err)
	}
}

// TestEditKeyFile: comments stay, the file's mode does, and a file that is named by a link stays where it is.
func TestEditKeyFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("# ours\n\nk1 "+testKey("k1")+"\n# the end"), 0o640), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(addKey(link, "k2"), putKeyFirst(link, "k2")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 6 || lines[0] != "# ours" || keyOfLine(lines[2]) != "k2" || lines[3] != "k1 "+testKey("k1") || lines[4] != "# the end" {
		t.Errorf("%s", text)
	}
	info, err := os.Stat(path)
	if is, linkErr := os.Readlink(link); err != nil || info.Mode().Perm() != 0o640 || linkErr != nil || is != path {
		t.Errorf("%v, %v, %v, %v", info.Mode(), err, is, linkErr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
