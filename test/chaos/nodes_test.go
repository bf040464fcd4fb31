// Three nodes as one gate: HAProxy, nodes, a store, a tenant whose role has no more connections than its limit, and one with a machine that
// sleeps.

package chaos

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// limit is how many servers the tenant may have over all nodes. A floor for each is set aside.
const limit = 12

// fleet is the world of these tests.
type fleet struct {
	t               *testing.T
	place           place
	dir             string
	store, upstream *local.Cluster
	stored          string     // the store's database
	database        string     // acme's
	role            string     // that acme's clients are at its server
	starting        sync.Mutex // guards gates, for who does not start them
	gates           [nodes]*harness.Gate
	confs           [nodes]harness.GateConfig
	front           *balancer
	api             *fakefly.Server
	machine         *fakefly.Machine
	vm              *watched
}

func newFleet(t *testing.T, p place) *fleet {
	t.Helper()
	f := &fleet{t: t, place: p, dir: harness.Dir(t), store: harness.Postgres(t, local.Options{}), upstream: harness.Postgres(t), role: "limited_" + strings.ToLower(rand.Text())}
	f.stored, f.database = harness.Database(t, f.store), harness.Database(t, f.upstream)
	sleepy := harness.Database(t, f.upstream)
	f.exec(fmt.Sprintf(`create role %[1]s login password 'of the server' connection limit %[2]d; grant %[3]s to %[1]s;
		create role service_%[1]s login password 'of the service'; grant pg_monitor to service_%[1]s`, f.role, limit, harness.App))
	t.Cleanup(f.neverAbove)
	f.vm = &watched{cluster: f.upstream, database: sleepy}
	f.api = fakefly.New(t, fakefly.Options{Address: p.own(), Unlimited: true})
	f.machine = f.api.AddMachine("chaos", "1", f.vm)
	f.keep("server.pw", "of the server\n")
	f.keep("service.pw", "of the service\n")
	var key [32]byte
	_, _ = rand.Read(key[:])
	f.keep("cluster.key", base64.StdEncoding.EncodeToString(key[:])+"\n")
	f.fill(sleepy)
	for i := range nodes {
		f.confs[i] = f.conf(i)
		f.start(i)
	}
	f.front = startBalancer(t, p)
	f.agree("at first")
	for i := range nodes {
		f.awaitInFront(i)
	}
	return f
}

// awaitInFront waits until clients get to a node through the balancer.
func (f *fleet) awaitInFront(i int) {
	f.t.Helper()
	harness.Eventually(f.t, harness.Patience, "the balancer knows node "+nodeName(i), func() bool {
		conn, err := f.connect(f.t.Context(), f.front.one[i], "acme", "first")
		if err == nil {
			goodbye(conn)
		}
		return err == nil
	})
}

func (f *fleet) exec(sql string) {
	f.t.Helper()
	if err := f.upstream.Exec(f.t.Context(), "postgres", sql); err != nil {
		f.t.Fatal(err)
	}
}

// keep writes a file, and returns where.
func (f *fleet) keep(name, content string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *fleet) keepYAML(name string, content harness.Map) string {
	f.t.Helper()
	out, err := yaml.Marshal(content)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.keep(name, string(out))
}

// dsn is a file that says how to reach the store by some way.
func (f *fleet) dsn(name, address string) string {
	f.t.Helper()
	host, port, _ := net.SplitHostPort(address)
	return f.keep(name, fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable\n", host, port, harness.App, harness.AppPassword, f.stored))
}

// fill makes the store, with both tenants in it.
func (f *fleet) fill(sleepy string) {
	f.t.Helper()
	config := f.keepYAML("store.yaml", harness.Map{"listeners": []harness.Map{{"name": "l", "address": "127.0.0.1:1"}}, "machines": f.machines(),
		"tenants": harness.Map{"postgres": harness.Map{"dsn_file": f.dsn("dsn", f.store.Addr()), "key_file": filepath.Join(f.dir, "store.key")}}})
	at := netip.MustParseAddrPort(f.place.common(f.t, f.upstream.Addr()))
	acme := harness.Acme(f.t, f.upstream, f.database)
	acme["upstream"] = harness.Map{"host": at.Addr().String(), "port": at.Port(), "tls": "disable"}
	acme["pool"] = harness.Map{"size": limit, "max_servers": limit}
	acme["service"] = harness.Map{"user": "service_" + f.role, "password_file": filepath.Join(f.dir, "service.pw")}
	users := acme["users"].([]harness.Map)[:1]
	users[0]["upstream"] = harness.Map{"user": f.role, "password_file": filepath.Join(f.dir, "server.pw")}
	acme["users"] = users
	asleep := harness.Acme(f.t, f.upstream, sleepy)
	delete(asleep, "upstream")
	asleep["id"] = "sleepy"
	asleep["machine"] = harness.Map{"provider": "fly", "app": "chaos", "id": "1", "port": f.machine.Port(), "tls": "disable", "suspend_after": "1s"}
	tenants := f.keepYAML("tenants.yaml", harness.Map{"tenants": []harness.Map{acme, asleep}})
	for _, args := range [][]string{{"init"}, {"import", tenants}} {
		cmd := exec.CommandContext(f.t.Context(), harness.Binary(f.t), append(append([]string{"store"}, args...), "--config", config)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			f.t.Fatalf("store %v: %v\n%s", args, err, out)
		}
	}
}

func (f *fleet) machines() harness.Map {
	return harness.Map{"fly": harness.Map{"api": "http://" + f.place.common(f.t, strings.TrimPrefix(f.api.URL, "http://")), "token_file": f.api.TokenFile()}}
}

// conf is a node's configuration, the same after each start.
func (f *fleet) conf(i int) harness.GateConfig {
	f.t.Helper()
	at := f.place.address(i)
	listener := func(mode string, port int) harness.Map {
		return harness.Map{"name": mode, "address": atPort(at, port), "pool_mode": mode, "proxy_protocol": "require", "trusted_proxies": []string{"127.0.0.0/8", "10.0.0.0/8"}}
	}
	way := f.place.way(f.t, i, f.store.Addr())
	return harness.GateConfig{Program: f.place.program(f.t, i), Config: harness.Map{
		"listeners": []harness.Map{listener(harness.Transaction, transactionPort), listener(harness.Session, sessionPort)},
		"admin":     harness.Map{"address": atPort(at, adminPort), "token_file": "admin.token"},
		"tenants":   harness.Map{"postgres": harness.Map{"dsn_file": f.dsn("dsn."+nodeName(i), way), "key_file": filepath.Join(f.dir, "store.key")}},
		"cluster": harness.Map{"name": nodeName(i), "bind": atPort(at, gossipPort), "advertise": f.place.told(i).String(), "max_nodes": nodes,
			"key_file": filepath.Join(f.dir, "cluster.key")},
		"machines": f.machines(),
		"timeouts": harness.Map{"drain": "30s", "login": "60s"},
		"log":      harness.Map{"level": "debug"},
	}}
}

func (f *fleet) start(i int) {
	f.t.Helper()
	g := harness.Postern(f.t, f.confs[i])
	f.starting.Lock()
	f.gates[i] = g
	f.starting.Unlock()
	f.t.Cleanup(func() {
		if log := g.Log().String(); f.t.Failed() {
			path := filepath.Join(os.TempDir(), strings.ReplaceAll(f.t.Name(), "/", "-")+"-"+nodeName(i)+"-"+strconv.Itoa(g.PID())+".log")
			_ = os.WriteFile(path, []byte(log), 0o600)
			f.t.Logf("the log of node %s is in %s, and ends with:\n%s", nodeName(i), path, log[max(0, len(log)-3000):])
		}
	})
}

// log is what a node says. It may be called from any goroutine.
func (f *fleet) log(i int) *harness.Log {
	f.starting.Lock()
	defer f.starting.Unlock()
	return f.gates[i].Log()
}

// connect connects through the balancer.
func (f *fleet) connect(ctx context.Context, port int, tenant, tag string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=app.%s password=%s sslmode=disable connect_timeout=120 application_name=%s",
		port, tenant, harness.AppPassword, tag))
}

// direct connects past all nodes, as the owner of everything.
func (f *fleet) direct(c *local.Cluster, database string) *pgx.Conn {
	f.t.Helper()
	conn, err := c.Connect(f.t.Context(), database)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { goodbye(conn) })
	return conn
}

// neverAbove is for the end: the tenant's Postgres has never refused one connection too many.
func (f *fleet) neverAbove() {
	text, err := os.ReadFile(f.upstream.LogPath())
	if n := strings.Count(string(text), fmt.Sprintf(`too many connections for role "%s"`, f.role)); err != nil || n > 0 {
		f.t.Errorf("the role was above its limit %d times: %v", n, err)
	}
}

// seen is a node in GET /v1/cluster.
type seen struct {
	Name, Boot, Address, Gossip, Fingerprint string
	Silent, Leaving                          bool
	Member                                   *struct{ State string }
}

// view is what a node says about all. It is an error if somebody is there whom the store does not know.
func (f *fleet) view(i int) ([]seen, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.gates[i].AdminURL()+"/v1/cluster", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.gates[i].Token)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		StoreAway bool `json:"store_away"` // it says what was before
		Nodes     []seen
		Strangers []struct{ Name, State string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK || answer.StoreAway {
		return nil, fmt.Errorf("%s, the store is away: %v, error: %v", resp.Status, answer.StoreAway, err)
	}
	for _, s := range answer.Strangers {
		if s.State != "left" {
			return nil, fmt.Errorf("a %s of before is %s", s.Name, s.State)
		}
	}
	return answer.Nodes, nil
}

// agree waits until all nodes say the same: that all are there. It takes less than 5 s where each process gets to run every second; the log says
// how long it took, and what it took longer for.
func (f *fleet) agree(when string) {
	f.t.Helper()
	start, took := time.Now(), func(s time.Time) time.Duration { return time.Since(s).Round(time.Millisecond) }
	var history []string // of what they do not agree on
	last := ""
	defer func() {
		if f.t.Failed() || time.Since(start) > 5*time.Second {
			f.t.Logf("until then: %s", strings.Join(history, "; "))
		}
	}()
	harness.Eventually(f.t, harness.Patience, "all nodes agree "+when, func() bool {
		now := f.dissent()
		if now != last {
			history = append(history, fmt.Sprintf("after %v: %s", took(start), now))
		}
		last = now
		return now == ""
	})
	f.t.Logf("all nodes agree %s after %v", when, took(start))
}

// dissent is on what nodes do not agree; "": they do.
func (f *fleet) dissent() string {
	var first []seen
	for i := range nodes {
		all, err := f.view(i)
		if err != nil {
			return fmt.Sprintf("to %s: %v", nodeName(i), err)
		}
		if len(all) != nodes {
			return fmt.Sprintf("to %s there are %d", nodeName(i), len(all))
		}
		for _, n := range all {
			switch {
			case n.Silent || n.Leaving:
				return fmt.Sprintf("to %s %s is silent: %v, leaving: %v", nodeName(i), n.Name, n.Silent, n.Leaving)
			case n.Member == nil:
				return fmt.Sprintf("to %s %s is not there", nodeName(i), n.Name)
			case n.Member.State != "alive":
				return fmt.Sprintf("to %s %s is %s", nodeName(i), n.Name, n.Member.State)
			}
		}
		if i == 0 {
			first = all
		}
		if !reflect.DeepEqual(first, all) {
			a, _ := json.Marshal(first)
			b, _ := json.Marshal(all)
			return fmt.Sprintf("%s has %s, and %s %s", nodeName(0), a, nodeName(i), b)
		}
	}
	return ""
}

// watched is a machine's inside, whose Postgres is the one that all tests share: it is off while the machine's address refuses. It counts
// suspends while a query ran.
type watched struct {
	cluster  *local.Cluster
	database string
	inUse    int
}

func (v *watched) Addr() string                 { return v.cluster.Addr() }
func (v *watched) Start(context.Context) error  { return nil }
func (v *watched) Stop(context.Context) error   { return nil }
func (v *watched) Resume(context.Context) error { return nil }

func (v *watched) Suspend(ctx context.Context) error {
	conn, err := v.cluster.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer goodbye(conn)
	busy, err := tryText(ctx, conn, "select count(*) from pg_stat_activity where state <> 'idle' and datname = '"+v.database+"'")
	if busy != "0" {
		v.inUse++
	}
	return err
}
