// Client certificates: shown to Postern by real clients, and by Postern to a real server, as Postgres itself would have them.

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// certified is a server that wants certificates, and a gate before it that wants the same ones. Its roles, and the tenants
// of their names, are the ways to use them.
type certified struct {
	*gate
	clients *harness.Authority // of clients, and of what the gate shows to the server
	server  *harness.Authority // of the server
}

// uses are the roles, with what pg_hba.conf and the tenant's client_cert say.
var uses = []struct{ role, hba, tenant string }{
	{"anybody", "scram-sha-256 clientcert=verify-ca", "verify-ca"},
	{"named", "scram-sha-256 clientcert=verify-full", "verify-full"},
	{"instead", "cert", "instead"},
}

func startCertified(t *testing.T) *certified {
	t.Helper()
	c, cluster, all := newCertified(t)
	c.gate = startGate(t, gateConf{Cluster: cluster, TLS: true})
	c.reload(append(all, c.tenant)...) // acme wants none
	return c
}

// newCertified is all but the gate, and what its tenants are to be.
func newCertified(t *testing.T) (c *certified, cluster *local.Cluster, all []harness.Map) {
	t.Helper()
	c = &certified{clients: harness.Certificates(t), server: harness.Certificates(t)}
	pair := c.server.Issue(t, "localhost")
	roots, err := os.ReadFile(c.clients.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	trusted := filepath.Join(harness.Dir(t), "clients.pem") // which PostgreSQL's account has to read
	if err := os.WriteFile(trusted, roots, 0o644); err != nil {
		t.Fatal(err)
	}
	var hba []string
	for _, u := range uses {
		hba = append(hba, fmt.Sprintf("hostssl all %s all %s", u.role, u.hba))
	}
	cluster = harness.Postgres(t, local.Options{CertFile: pair.CertFile, KeyFile: pair.KeyFile, Settings: map[string]string{"ssl_ca_file": trusted}, HBA: append(hba, "host all all all scram-sha-256")})
	for _, u := range uses {
		if err := cluster.Exec(t.Context(), "postgres", fmt.Sprintf("create role %s login replication password 'pw-%[1]s'", u.role)); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range uses {
		shown := c.clients.IssueClient(t, u.role)
		user := harness.Map{"name": u.role, "verifier": harness.Verifier(t, cluster, u.role)}
		if u.tenant == "instead" {
			user = harness.Map{"name": u.role, "upstream": harness.Map{"auth": "cert"}}
		}
		all = append(all, harness.Map{"id": u.role, "database": "postgres", "client_ca": c.clients.CAFile, "client_cert": u.tenant, "users": []harness.Map{user},
			"upstream": harness.Map{"host": "localhost", "port": cluster.Port(), "ca": c.server.CAFile, "client_cert": shown.CertFile, "client_key": shown.KeyFile}})
	}
	return c, cluster, all
}

// login is one with pgx to a port, in TLS.
func (c *certified) login(t *testing.T, port, user, role string, pair *harness.Pair, change ...func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	t.Helper()
	conf := configOf(t, fmt.Sprintf("host=localhost port=%s user=%s password=pw-%s dbname=postgres sslmode=require connect_timeout=60", port, user, role))
	conf.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	if pair != nil {
		cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		conf.TLSConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	for _, f := range change {
		f(conf)
	}
	conn, err := pgx.ConnectConfig(t.Context(), conf)
	if err == nil {
		t.Cleanup(func() { closeConn(conn) })
	}
	return conn, err
}

// through is a login through the gate.
func (c *certified) through(t *testing.T, role string, pair *harness.Pair, change ...func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	t.Helper()
	return c.login(t, c.port("transaction"), role+"."+role, role, pair, change...)
}

// commonNames is a subject of several.
func commonNames(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		var sequence pkix.RDNSequence
		for _, name := range names {
			sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name}})
		}
		c.RawSubject, _ = asn1.Marshal(sequence)
	}
}

// TestCertificatesAsPostgres has clients show the same certificates to Postgres and to Postern, which take and refuse the same ones.
// What each does is a letter for each use: y or n, in the order of uses.
func TestCertificatesAsPostgres(t *testing.T) {
	t.Parallel()
	c := startCertified(t)
	stranger := harness.Certificates(t)
	issue := func(from *harness.Authority, change func(role string, x *x509.Certificate)) func(string) *harness.Pair {
		return func(role string) *harness.Pair {
			p := from.IssueClient(t, role, func(x *x509.Certificate) { change(role, x) })
			return &p
		}
	}
	usage := func(all ...x509.ExtKeyUsage) func(string, *x509.Certificate) {
		return func(_ string, x *x509.Certificate) { x.ExtKeyUsage = all }
	}
	asIs := func(string, *x509.Certificate) {}
	for _, cert := range []struct {
		name     string
		pair     func(role string) *harness.Pair
		postgres string
		ours     string // "": the same
	}{
		{"none", func(string) *harness.Pair { return nil }, "nnn", ""},
		{"a good one", issue(c.clients, asIs), "yyy", ""},
		{"of another user", issue(c.clients, func(_ string, x *x509.Certificate) { x.Subject.CommonName = "app" }), "ynn", ""},
		{"in capitals", issue(c.clients, func(role string, x *x509.Certificate) { x.Subject.CommonName = strings.ToUpper(role) }), "ynn", ""},
		{"with a NUL behind the name", issue(c.clients, func(role string, x *x509.Certificate) { commonNames(role + "\x00.example.com")(x) }), "nnn", "ynn"}, // no name is needed there
		{"without a name", issue(c.clients, func(_ string, x *x509.Certificate) { x.Subject = pkix.Name{Organization: []string{"x"}} }), "ynn", ""},
		{"with another name behind it", issue(c.clients, func(role string, x *x509.Certificate) { commonNames(role, "app")(x) }), "yyy", "ynn"}, // Postgres takes the first
		{"with another name before it", issue(c.clients, func(role string, x *x509.Certificate) { commonNames("app", role)(x) }), "ynn", ""},
		{"by DNS name", issue(c.clients, func(role string, x *x509.Certificate) { x.Subject.CommonName, x.DNSNames = "app", []string{role} }), "ynn", "yyy"}, // Postgres does not look there
		{"by mail", issue(c.clients, func(role string, x *x509.Certificate) { x.Subject.CommonName, x.EmailAddresses = "app", []string{role} }), "ynn", "yyy"},
		{"of many names", issue(c.clients, func(_ string, x *x509.Certificate) {
			for i := range 200 {
				x.DNSNames = append(x.DNSNames, fmt.Sprintf("h%d.example.com", i))
			}
		}), "yyy", ""},
		{"without usages", issue(c.clients, usage()), "yyy", ""},
		{"for everything", issue(c.clients, usage(x509.ExtKeyUsageAny)), "nnn", "yyy"}, // OpenSSL wants clientAuth itself
		{"of a server", issue(c.clients, usage(x509.ExtKeyUsageServerAuth)), "nnn", ""},
		{"of both", issue(c.clients, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)), "yyy", ""},
		{"expired", issue(c.clients, func(_ string, x *x509.Certificate) {
			x.NotBefore, x.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), "nnn", ""},
		{"not valid yet", issue(c.clients, func(_ string, x *x509.Certificate) {
			x.NotBefore, x.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}), "nnn", ""},
		{"of another authority", issue(stranger, asIs), "nnn", ""},
	} {
		var theirs, ours string
		for _, u := range uses {
			pair := cert.pair(u.role)
			_, err := c.login(t, fmt.Sprint(c.cluster.Port()), u.role, u.role, pair)
			theirs += letter(err)
			conn, err := c.through(t, u.role, pair)
			ours += letter(err)
			if err != nil {
				wantState(t, err, "28000")
			} else if who := value(t, conn, "select current_user"); who != u.role {
				t.Errorf("%s, %s: is %s", cert.name, u.role, who)
			}
		}
		want := cert.ours
		if want == "" {
			want = cert.postgres
		}
		if theirs != cert.postgres || ours != want {
			t.Errorf("%s: Postgres %s (want %s), Postern %s (want %s)", cert.name, theirs, cert.postgres, ours, want)
		}
	}
	// The password counts where there is one, and who has no user there is told what a stranger is told.
	for _, u := range uses[:2] {
		_, err := c.through(t, u.role, issue(c.clients, asIs)(u.role), func(conf *pgx.ConnConfig) { conf.Password = "wrong" })
		wantState(t, err, "28P01")
	}
	for role, code := range map[string]string{"anybody": "28P01", "named": "28P01", "instead": "28000"} {
		_, err := c.login(t, c.port("transaction"), "ghost."+role, role, issue(c.clients, asIs)("ghost"))
		wantState(t, err, code)
	}
	if n := c.metric("postern_refusals_total", "reason", "certificate"); n == 0 {
		t.Error("no refusal is counted")
	}
}

func letter(err error) string {
	if err != nil {
		return "n"
	}
	return "y"
}

// TestCertificatesOfClients: what clients do with certificates works, with libpq of both generations, and a changed authority counts for
// who comes then.
func TestCertificatesOfClients(t *testing.T) {
	t.Parallel()
	c := startCertified(t)
	psql := func(env []string, role string, options ...string) string {
		pair := c.clients.IssueClient(t, role)
		dsn := fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%s user=%s.%[2]s password=pw-%[2]s dbname=postgres sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s %s",
			c.port("session"), role, c.ca.CAFile, pair.CertFile, pair.KeyFile, strings.Join(options, " "))
		cmd := exec.CommandContext(t.Context(), harness.Program(t, "psql"), "-X", "-A", "-t", "-c", "select current_user", dsn)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v", role, options, err)
		}
		return strings.TrimSpace(string(out))
	}
	newer := harness.LibpqEnv(t)
	for _, u := range uses {
		if got := psql(nil, u.role); got != u.role {
			t.Errorf("%s: %s", u.role, got)
		}
		if got := psql(newer, u.role, "sslnegotiation=direct", "sslcertmode=require", "max_protocol_version=latest"); got != u.role {
			t.Errorf("%s, direct: %s", u.role, got)
		}
	}
	if got := psql(newer, "named", "channel_binding=require", "sslcertmode=require"); got != "named" {
		t.Errorf("channel binding: %s", got)
	}

	pair := c.clients.IssueClient(t, "instead")
	// A cancel request comes without a certificate, and goes to the server with one.
	slow, err := c.through(t, "instead", &pair)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := slow.Exec(t.Context(), "select pg_sleep(600)")
		done <- err
	}()
	<-ctx.Done()
	harness.Eventually(t, harness.Patience, "the query is cancelled", func() bool {
		if err := slow.PgConn().CancelRequest(t.Context()); err != nil {
			t.Error(err)
		}
		select {
		case err := <-done:
			wantState(t, err, "57014")
			return true
		default:
			return false
		}
	})
	replica, err := c.login(t, c.port("session"), "instead.instead", "instead", &pair, func(conf *pgx.ConnConfig) {
		conf.RuntimeParams["replication"], conf.DefaultQueryExecMode = "database", pgx.QueryExecModeSimpleProtocol
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replica.PgConn().Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll(); err != nil {
		t.Error(err)
	}

	// Another authority: who is in stays, as after a changed password; who comes is judged anew, also with what TLS could resume.
	cache := tls.NewLRUClientSessionCache(4)
	resume := func(conf *pgx.ConnConfig) { conf.TLSConfig.ClientSessionCache = cache }
	open, err := c.through(t, "named", new(c.clients.IssueClient(t, "named")), resume)
	if err != nil {
		t.Fatal(err)
	}
	other := harness.Certificates(t)
	replace(t, c.clients.CAFile, other.CAFile)
	harness.Eventually(t, harness.Patience, "the other authority counts", func() bool {
		_, err := c.through(t, "named", new(c.clients.IssueClient(t, "named")), resume)
		return sqlstate(err) == "28000"
	})
	if _, err := c.through(t, "named", new(other.IssueClient(t, "named")), resume); err != nil {
		t.Error(err)
	}
	if got := value(t, open, "select current_user"); got != "named" {
		t.Error(got)
	}
}

// TestCertificateForServers: what a server is shown is what the tenant has now.
func TestCertificateForServers(t *testing.T) {
	t.Parallel()
	c := startCertified(t)
	first, wrong, second := c.clients.IssueClient(t, "named"), c.clients.IssueClient(t, "somebody"), c.clients.IssueClient(t, "named")
	shown := harness.Pair{CertFile: filepath.Join(c.Dir, "shown.crt"), KeyFile: filepath.Join(c.Dir, "shown.key")}
	put := func(p harness.Pair) {
		replace(t, shown.KeyFile, p.KeyFile)
		replace(t, shown.CertFile, p.CertFile)
	}
	put(first)
	named := harness.Map{"id": "named", "database": "postgres", "users": []harness.Map{{"name": "named", "verifier": harness.Verifier(t, c.cluster, "named")}},
		"upstream": harness.Map{"host": "localhost", "port": c.cluster.Port(), "ca": c.server.CAFile, "client_cert": shown.CertFile, "client_key": shown.KeyFile}}
	c.reload(named)
	dsn := fmt.Sprintf("host=127.0.0.1 port=%s user=named.named password=pw-named dbname=postgres sslmode=disable", c.port("transaction"))
	conn := connectConfig(t, configOf(t, dsn))
	const which = "select client_serial::text || ' ' || pg_backend_pid() from pg_stat_ssl where pid = pg_backend_pid()"
	was := value(t, conn, which)
	if serial, _, _ := strings.Cut(was, " "); serial != serialOf(t, first) {
		t.Errorf("the server was shown %s", was)
	}
	before := c.reloads("tenants", "failed")
	replace(t, shown.KeyFile, second.KeyFile) // half of it is nothing
	harness.Eventually(t, harness.Patience, "a key that does not fit is noticed", func() bool { return c.reloads("tenants", "failed") > before })
	if is := value(t, conn, which); is != was {
		t.Errorf("half of a new pair: %s, was %s", is, was)
	}
	replace(t, shown.CertFile, second.CertFile)
	harness.Eventually(t, harness.Patience, "servers are shown the new one", func() bool {
		serial, _, _ := strings.Cut(value(t, conn, which), " ")
		return serial == serialOf(t, second)
	})
	put(wrong)
	harness.Eventually(t, harness.Patience, "the server refuses somebody else's", func() bool {
		_, err := pgconn.Connect(t.Context(), dsn)
		return sqlstate(err) != "" && err != nil
	})
	key, err := os.ReadFile(second.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.Split(string(key), "\n")[1]; strings.Contains(c.Log().String(), secret) {
		t.Error("the log has the key")
	}
}

// TestCertificatesInAStore: a store keeps certificates and keys as a file does, and shows no key.
func TestCertificatesInAStore(t *testing.T) {
	t.Parallel()
	c, _, all := newCertified(t)
	w := newStoreWorld(t)
	w.command("init")
	w.load(all...)
	if said := w.load(all...); !strings.Contains(said, "0 of 3 tenants") {
		t.Errorf("the second time: %s", said)
	}
	exported := w.command("export")
	for _, want := range []string{"client_ca: |", "client_cert: instead", "-----BEGIN CERTIFICATE-----"} {
		if !strings.Contains(exported, want) {
			t.Errorf("the export has no %s:\n%s", want, exported)
		}
	}
	pair := harness.Certificates(t).Issue(t, "localhost")
	c.gate = &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: harness.Map{"tenants": w.tenants,
		"tls": harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}}}})}
	for i, u := range uses {
		good, bad := c.clients.IssueClient(t, u.role), harness.Certificates(t).IssueClient(t, u.role)
		conn, err := c.through(t, u.role, &good)
		if err != nil {
			t.Errorf("%s: %v", u.role, err)
		} else if who := value(t, conn, "select current_user"); who != u.role {
			t.Errorf("%s is %s", u.role, who)
		}
		_, err = c.through(t, u.role, &bad)
		wantState(t, err, "28000")
		key, err := os.ReadFile(all[i]["upstream"].(harness.Map)["client_key"].(string))
		if err != nil {
			t.Fatal(err)
		}
		secret := strings.Split(string(key), "\n")[1]
		for what, text := range map[string]string{"commands": w.said.String(), "the log": c.Log().String()} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s has the key", u.role, what)
			}
		}
	}
}

// serialOf is a certificate's, as Postgres shows it.
func serialOf(t *testing.T, p harness.Pair) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.String()
}
