package postgres

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// TestImport: what is different is told and written, twice is once, a dry run only tells, and only --prune removes.
func TestImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	run := func(o ImportOptions, list ...*tenants.Tenant) string {
		t.Helper()
		var out strings.Builder
		n, err := Import(t.Context(), w.conf(), w.keys, list, o, &out)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d\n%s", n, &out)
	}
	want := func(got, want string) {
		t.Helper()
		if strings.TrimSpace(got) != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	a, b := sample("acme"), sample("globex")
	want(run(ImportOptions{DryRun: true}, a, b), "2\n+ acme\n+ globex")
	want(run(ImportOptions{}, b, a), "2\n+ acme\n+ globex")
	want(run(ImportOptions{}, a, b), "0")
	a = sample("acme")
	a.Pool.Size, a.Database = 9, "x"
	a.Users["app"].Verifier = tenants.NewSecret("another-marked-verifier")
	delete(a.Users, "web")
	a.Users["new"] = &tenants.User{Name: "new", Password: tenants.NewSecret("new-marked")}
	a.Complete()
	changes := `1
~ acme: database: "postgres" -> "x"
~ acme: pool.size: 20 -> 9
~ acme: users["app"].verifier changed
~ acme: users["new"]: (none) -> there
~ acme: users["new"].password changed
~ acme: users["new"].upstream.auth: (none) -> "scram"
~ acme: users["web"]: there -> (none)
~ acme: users["web"].password changed
~ acme: users["web"].server_password changed
~ acme: users["web"].upstream.auth: "scram" -> (none)
~ acme: users["web"].upstream.user: "web_rw" -> (none)`
	want(run(ImportOptions{DryRun: true}, a), changes)
	want(run(ImportOptions{}, a), changes)
	want(run(ImportOptions{}, a), "0")
	want(run(ImportOptions{Prune: true}, a), "1\n- globex")
	f := w.follow()
	f.has(t, "acme:x")
	if got, _ := f.d.Tenant("acme"); !got.Equal(a) {
		t.Errorf("got %+v, want %+v", got, a)
	}
	// With another key nothing of it can be told apart: nothing is written.
	if _, err := Import(t.Context(), w.conf(), testKeys(t, "k9"), []*tenants.Tenant{b}, ImportOptions{}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "no key k1") {
		t.Errorf("another key: %v", err)
	}
	var out bytes.Buffer
	if err := Export(t.Context(), w.conf(), &out); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"id: acme\n", "host: 127.0.0.1\n", "database: x\n", "name: app\n", "pool_size: 7\n", "size: 9\n"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the export has no %q:\n%s", part, &out)
		}
	}
	w.canary(out.String(), changes)
	var told []string
	for _, e := range w.entries(w.registry(), 100) {
		if e.By != (tenants.Actor{Name: "cli"}) || e.Action != "store.import" || e.Outcome != tenants.OutcomeDone {
			t.Errorf("audit: %+v", e)
		}
		told = append(told, fmt.Sprint(e.Tenant, " ", e.Version, " ", len(e.Changes) > 0))
	}
	if want := []string{"globex 3 true", "acme 2 true", "globex 1 true", "acme 1 true"}; !slices.Equal(told, want) {
		t.Errorf("audit: %q, want %q", told, want)
	}
}

// TestKeysOfTenantsAreSealed: the key of a tenant's certificate goes into the store and comes out for servers alone.
func TestKeysOfTenantsAreSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	file := w.keyFile("store.key", "k1")
	cert, key := harness.SelfSigned(t)
	_, otherKey := harness.SelfSigned(t)
	a := tenants.New("acme") // whose only secret it is
	a.Upstream = tenants.Upstream{Host: "127.0.0.1", ClientCert: cert, ClientKey: tenants.NewSecret(key)}
	a.Complete()
	w.load(a)
	f := w.follow()
	f.has(t, "acme")
	got, _ := f.d.Tenant("acme")
	if _, err := got.Upstream.KeyPair(); err != nil || !got.Equal(a) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Import(t.Context(), w.conf(), testKeys(t, "k9"), nil, ImportOptions{}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "no key k1") {
		t.Errorf("another key file: %v", err)
	}
	var out strings.Builder
	if err := Export(t.Context(), w.conf(), &out); err != nil || !strings.Contains(out.String(), strings.Split(cert, "\n")[1]) {
		t.Errorf("%v, the export has no certificate:\n%s", err, &out)
	}
	b := *a
	b.Upstream.ClientKey = tenants.NewSecret(otherKey)
	changes := w.load(&b) // which does not fit: only a follower judges
	if changes != "~ acme: upstream.client_key changed\n" {
		t.Error(changes)
	}
	f.stop()
	said, done := w.rotate(file, RotateOptions{})
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	keys, err := ReadKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	if err := w.connect().QueryRow(t.Context(), `SELECT client_key FROM postern.tenants`).Scan(&sealed); err != nil || sealedBy(sealed) != "k2" {
		t.Errorf("sealed with %s, %v", sealedBy(sealed), err)
	}
	if text, err := keys.open(tenantPlace("acme", "client_key"), sealed); err != nil || string(text) != otherKey {
		t.Errorf("sealed anew it is %q, %v", text, err)
	}
	for _, secret := range []string{key, otherKey} {
		w.hides(strings.Split(secret, "\n")[1], out.String(), changes)
	}
}

// TestTokensOfMachinesAreSealed: a tenant's token for the API of its machine goes into the store and comes out for that API alone.
func TestTokensOfMachinesAreSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	file := w.keyFile("store.key", "k1")
	of := func(token string) *tenants.Tenant {
		a := tenants.New("acme") // whose only secret it is
		a.Upstream = tenants.Upstream{TLS: tenants.TLSDisable}
		a.Machine = &tenants.Machine{Provider: tenants.ProviderFly, App: "acme-db", ID: "9080e6f1", SuspendAfter: time.Minute, Token: tenants.NewSecret(token)}
		a.Complete()
		return a
	}
	first := w.load(of("FlyV1 fm2_marked-1"))
	f := w.follow()
	f.has(t, "acme")
	if got, _ := f.d.Tenant("acme"); !got.Equal(of("FlyV1 fm2_marked-1")) {
		t.Errorf("%+v", got)
	}
	if _, err := Import(t.Context(), w.conf(), testKeys(t, "k9"), nil, ImportOptions{}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "no key k1") {
		t.Errorf("another key file: %v", err)
	}
	changes := w.load(of("fm2_marked-2"))
	if changes != "~ acme: machine.token changed\n" {
		t.Error(changes)
	}
	harness.Eventually(t, harness.Patience, "the new token is there", func() bool {
		got, _ := f.d.Tenant("acme")
		return got.Machine.Token == tenants.NewSecret("fm2_marked-2")
	})
	f.stop()
	cached, err := os.ReadFile(w.cache)
	if err != nil || len(cached) == 0 {
		t.Fatal(err)
	}
	said, done := w.rotate(file, RotateOptions{})
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if w.keys, err = ReadKeys(file); err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	if err := w.connect().QueryRow(t.Context(), `SELECT machine_token FROM postern.tenants`).Scan(&sealed); err != nil || sealedBy(sealed) != "k2" {
		t.Errorf("sealed with %s, %v", sealedBy(sealed), err)
	}
	if rec, err := w.registry().Tenant(t.Context(), "acme"); err != nil || rec.Tenant.Machine.Token != tenants.NewSecret("fm2_marked-2") {
		t.Error(err)
	}
	entries, err := w.registry().Audit(t.Context(), "acme", 0, 10)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	var out strings.Builder
	if err := Export(t.Context(), w.conf(), &out); err != nil || !strings.Contains(out.String(), "app: acme-db") {
		t.Errorf("%v\n%s", err, &out)
	}
	w.canary(first, changes, string(cached), out.String(), fmt.Sprintf("%+v", entries))
	if w.load(of("")); w.connect().QueryRow(t.Context(), `SELECT machine_token FROM postern.tenants`).Scan(&sealed) != nil || sealed != nil {
		t.Errorf("a token that was taken away is still there: %x", sealed)
	}
}

// canary looks for marked secrets where none may be: in texts, the log, and the bytes of the database and the cache file.
func (w *world) canary(texts ...string) {
	w.t.Helper()
	w.hides("marked", texts...)
}

func (w *world) hides(secret string, texts ...string) {
	w.t.Helper()
	for _, text := range append(texts, harness.StoreDump(w.t, w.connect()), w.log.String()) {
		if strings.Contains(text, secret) {
			w.t.Errorf("a secret is in\n%s", text)
		}
	}
}
