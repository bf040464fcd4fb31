// Helpers of this package's tests: a store in a database of the test's own, and who follows it.

package postgres

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// world is a store that was made, and the log of who follows it.
type world struct {
	t     *testing.T
	dsn   string
	keys  *Keys
	cache string
	log   *logged
	asker *Registry
	opts  Options // what is not zero here goes to those who follow
}

func newWorld(t *testing.T, c *harness.Cluster) *world {
	t.Helper()
	w := &world{t: t, keys: testKeys(t, "k1"), cache: filepath.Join(t.TempDir(), "tenants.cache"), log: new(logged),
		dsn: fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable", c.Port(), harness.App, harness.AppPassword, harness.Database(t, c))}
	if version, err := Init(t.Context(), w.conf()); err != nil || version != schemaVersion() {
		t.Fatalf("version %d, %v", version, err)
	}
	return w
}

// newer does something in stores on servers that are newer than the usual one: the newest, and in the longer suite those between.
func newer(t *testing.T, do func(*world)) {
	t.Helper()
	majors := []int{18}
	if harness.Long() {
		majors = []int{16, 17, 18}
	}
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) { do(newWorld(t, harness.PostgresOf(t, major))) })
	}
}

func testKeys(t testing.TB, ids ...string) *Keys {
	t.Helper()
	var text strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&text, id, testKey(id))
	}
	set, err := parseKeys([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return newKeys(set)
}

// testKey is a key as a key file has it.
func testKey(id string) string {
	return base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%-32s", "key "+id)))
}

func (w *world) conf() *pgx.ConnConfig {
	conf, err := parseDSN("dsn", w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	return conf
}

// exec runs SQL as the store's owner.
func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	conn := w.connect()
	if _, err := conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.ConnectConfig(w.t.Context(), w.conf())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { closeConn(conn) })
	return conn
}

func (w *world) put(id, document string) {
	w.t.Helper()
	w.exec(`INSERT INTO postern.tenants VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET document = excluded.document`, id, document)
}

func (w *world) load(list ...*tenants.Tenant) string {
	w.t.Helper()
	var out strings.Builder
	if _, err := Import(w.t.Context(), w.conf(), w.keys, list, ImportOptions{}, &out); err != nil {
		w.t.Fatal(err)
	}
	return out.String()
}

// follower is a store that is followed until the test ends.
type follower struct {
	*Store
	d    *tenants.Directory
	stop func()
	told func() []string // what the directory's subscribers were told: ids, with - of those that went
}

func (w *world) follow() *follower {
	w.t.Helper()
	f, err := w.open()
	if err != nil {
		w.t.Fatal(err)
	}
	w.watch(f)
	return f
}

func (w *world) open() (*follower, error) {
	d, err := tenants.NewDirectory()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var told []string
	d.Subscribe(func(all []tenants.Change) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range all {
			mark := ""
			if c.New == nil {
				mark = "-"
			}
			told = append(told, mark+c.ID())
		}
	})
	o := w.opts
	o.Conn, o.Keys, o.CacheFile, o.Directory, o.Log = w.conf(), w.keys, w.cache, d, slog.New(slog.NewTextHandler(w.log, nil))
	if o.Node == "" {
		o.Node = harness.Unique("node")
	}
	s, err := Open(w.t.Context(), o)
	if err != nil {
		return nil, err
	}
	return &follower{Store: s, d: d, told: func() []string {
		mu.Lock()
		defer mu.Unlock()
		out := told
		told = nil
		return out
	}}, nil
}

func (w *world) watch(f *follower) {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = sync.OnceFunc(func() {
		cancel()
		<-f.ended
	})
	w.t.Cleanup(f.stop)
	go f.Watch(ctx)
}

// has waits until the directory has just these tenants, each as id or id:database.
func (f *follower) has(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("has %v", got)
		}
	}()
	harness.Eventually(t, harness.Patience, fmt.Sprintf("the directory has %v", want), func() bool {
		got = nil
		for _, x := range f.d.All() {
			if x.Database == tenants.DefaultDatabase {
				got = append(got, x.ID)
			} else {
				got = append(got, x.ID+":"+x.Database)
			}
		}
		slices.Sort(got)
		return slices.Equal(got, want) && !f.d.Filling()
	})
}

// logged is a log that may be read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

var _ io.Writer = (*logged)(nil)

// sample is a tenant with every kind of secret.
func sample(id string) *tenants.Tenant {
	t := tenants.New(id)
	t.Upstream = tenants.Upstream{Host: "127.0.0.1", TLS: tenants.TLSDisable}
	t.Users = map[string]*tenants.User{
		"app": {Name: "app", Verifier: tenants.NewSecret("verifier-marked-" + id), PoolSize: 7},
		"web": {Name: "web", Password: tenants.NewSecret("password-marked-" + id), ServerUser: "web_rw", ServerPassword: tenants.NewSecret("upstream-marked-" + id)},
	}
	t.Complete()
	return t
}

func idsOf(m map[string]int64) []string { return slices.Sorted(maps.Keys(m)) }
