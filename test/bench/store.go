// The store row: what tenants in a database cost a node that has them all, and how soon a change of one is in force.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/tenants"
	store "github.com/postern/postern/tenants/postgres"
)

const (
	storeDatabase  = "tenants"
	storeBusy      = 10                    // tenants with clients
	storeAddresses = 50                    // of which each has one client
	changePause    = 10 * time.Millisecond // 100 a second
	changeWithin   = time.Minute           // the last one
	storeWithin    = 10 * time.Minute      // to read all tenants
	collections    = 100                   // attempts at having the garbage collector run
	tenantGoal     = 2048                  // bytes of an idle tenant
	changeGoal     = 200                   // ms, for 99 of 100 changes
)

// storeCell reads what a fresh Postern with all tenants takes, then changes one after the other under open sessions.
func (r *rig) storeCell(ctx context.Context) (figures, error) {
	empty, err := r.storeReading(ctx, func(*target) error { return nil })
	if err != nil {
		return nil, err
	}
	many := make([]*tenants.Tenant, r.opts.tenants)
	for i := range many {
		many[i] = r.tenant(tenantName(i))
	}
	if err := r.fillStore(ctx, many); err != nil {
		return nil, err
	}
	var took []float64
	full, err := r.storeReading(ctx, func(t *target) (err error) {
		took, err = r.changes(ctx, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := r.dropStore(ctx); err != nil {
		return nil, err
	}
	slices.Sort(took)
	each := func(bytes float64) float64 { return bytes / float64(r.opts.tenants) }
	return figures{tenantHeap: each(full.heap - empty.heap), tenantRSS: each(float64(full.rss - empty.rss)), tenantsRead: full.seconds,
		changeMedian: took[len(took)/2], changeP99: took[len(took)*99/100], changeWorst: took[len(took)-1]}, nil
}

// storeConn is how the store is reached.
func (r *rig) storeConn() (*pgx.ConnConfig, error) {
	dsn := filepath.Join(r.dir, "store.dsn")
	if err := os.WriteFile(dsn, []byte(fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable\n", loopback, r.pg.port, benchRole, r.password, storeDatabase)), 0o600); err != nil {
		return nil, err
	}
	return store.ReadDSN(dsn)
}

// makeStore makes an empty store, if there is none.
func (r *rig) makeStore(ctx context.Context) error {
	if err := r.pg.cluster.Exec(ctx, "postgres", fmt.Sprintf("create database %s owner %s", storeDatabase, benchRole)); err != nil && !strings.Contains(err.Error(), "already exists") {
		return err
	}
	conn, err := r.storeConn()
	if err != nil {
		return err
	}
	if _, err := store.MakeKeyFile(filepath.Join(r.dir, "store.key")); err != nil {
		return err
	}
	_, err = store.Init(ctx, conn)
	return err
}

// dropStore takes the store down: each cell makes its own.
func (r *rig) dropStore(ctx context.Context) error {
	return r.pg.cluster.Exec(ctx, storeDatabase, "drop schema postern cascade")
}

// tenant is one of the benchmark's PostgreSQL and role.
func (r *rig) tenant(id string) *tenants.Tenant {
	t := tenants.New(id)
	t.Upstream = tenants.Upstream{Host: loopback, Port: uint16(r.pg.port), TLS: tenants.TLSDisable}
	t.Database = benchDatabase
	t.Users[benchRole] = &tenants.User{Name: benchRole, Verifier: tenants.NewSecret(r.pg.verifier)}
	t.Complete()
	return t
}

func (r *rig) storeKeys() (*store.Keys, error) {
	return store.ReadKeys(filepath.Join(r.dir, "store.key"))
}

// fillStore imports tenants.
func (r *rig) fillStore(ctx context.Context, all []*tenants.Tenant) error {
	conn, err := r.storeConn()
	if err != nil {
		return err
	}
	keys, err := r.storeKeys()
	if err != nil {
		return err
	}
	fmt.Fprintln(r.progress, "importing", len(all), "tenants")
	if _, err = store.Import(ctx, conn, keys, all, store.ImportOptions{}, io.Discard); err != nil {
		return fmt.Errorf("filling the store: %w", err)
	}
	return nil
}

func tenantName(i int) string { return fmt.Sprintf("t%06d", i) }

// storeFigures are what a process takes that has read the store.
type storeFigures struct {
	heap    float64 // bytes that the garbage collector could not free
	rss     int64
	seconds float64 // until all was read
}

// storeReading starts a Postern on the store, waits until it has read all, has something done with it, and looks at it then.
func (r *rig) storeReading(ctx context.Context, do func(*target) error) (f storeFigures, err error) {
	if err := r.makeStore(ctx); err != nil {
		return f, err
	}
	began := time.Now()
	t, err := r.startStoreNode("")
	if err != nil {
		return f, err
	}
	defer t.stop()
	fail := func(err error) (storeFigures, error) { return f, fmt.Errorf("%w%s", err, t.logTail()) }
	if err := t.awaitTenants(ctx); err != nil {
		return fail(err)
	}
	f.seconds = time.Since(began).Seconds()
	if err := do(t); err != nil {
		return fail(err)
	}
	if f.heap, err = t.liveHeap(ctx); err != nil {
		return fail(err)
	}
	if f.rss, err = rssOf(t.proc.pid()); err != nil {
		return fail(err)
	}
	return f, t.alive()
}

// awaitTenants waits until a node has read the store.
func (t *target) awaitTenants(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	for {
		log, err := os.ReadFile(t.proc.log)
		if err != nil {
			return err
		}
		if strings.Contains(string(log), `"msg":"tenants loaded"`) {
			return nil
		}
		if err := errors.Join(t.alive(), pause(ctx, 20*time.Millisecond)); err != nil {
			return fmt.Errorf("the tenants are not read: %w", err)
		}
	}
}

// liveHeap has the process make garbage, by comparing what it has with the store, until it was collected, and returns what is left.
func (t *target) liveHeap(ctx context.Context) (float64, error) {
	before, err := scrape(ctx, t.metrics, "go_gc_duration_seconds_count")
	if err != nil {
		return 0, err
	}
	for range collections {
		if err := syscall.Kill(t.proc.pid(), syscall.SIGHUP); err != nil {
			return 0, err
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return 0, err
		}
		if now, err := scrape(ctx, t.metrics, "go_gc_duration_seconds_count"); err != nil || now > before {
			if err != nil {
				return 0, err
			}
			return scrape(ctx, t.metrics, "go_memstats_heap_alloc_bytes")
		}
	}
	return 0, errors.New("the garbage collector does not run")
}

// session is a client that waits to be told to go.
type session struct {
	conn *pgconn.PgConn
	told time.Time
}

// changes opens sessions, and then takes the address of one after the other out of its tenant's rules. It returns, in milliseconds,
// how long after each commit the session was told to go.
func (r *rig) changes(ctx context.Context, t *target) ([]float64, error) {
	all := make([]session, storeBusy*storeAddresses) // of tenant i % storeBusy
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(idleLogins)
	for i := range all {
		group.Go(func() (err error) {
			all[i].conn, err = r.connectFrom(groupCtx, t, tenantName(i%storeBusy), addressOf(i))
			return err
		})
	}
	err := group.Wait()
	defer func() {
		for _, s := range all {
			if s.conn != nil {
				s.conn.Close(ctx)
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	bounded, stop := context.WithTimeout(ctx, time.Duration(len(all))*changePause+changeWithin)
	defer stop()
	waiting, _ := errgroup.WithContext(bounded)
	for i := range all {
		waiting.Go(func() error { return all[i].awaitEnd(bounded) })
	}
	committed, err := r.shutOut(bounded, len(all))
	if err := errors.Join(err, waiting.Wait()); err != nil {
		return nil, err
	}
	took := make([]float64, len(all))
	for i, s := range all {
		took[i] = max(0, float64(s.told.Sub(committed[i]).Microseconds())/1000)
	}
	return took, nil
}

func (s *session) awaitEnd(ctx context.Context) error {
	for {
		_, err := s.conn.ReceiveMessage(ctx)
		var end *pgconn.PgError
		if errors.As(err, &end) && end.Code == "57P01" {
			s.told = time.Now()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// shutOut takes so many addresses out of their tenants' rules, a hundred a second, and returns when each change was committed.
func (r *rig) shutOut(ctx context.Context, sessions int) ([]time.Time, error) {
	conf, err := r.storeConn()
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	committed := make([]time.Time, sessions)
	tick := time.NewTicker(changePause)
	defer tick.Stop()
	for i := range sessions {
		<-tick.C
		allowed := []string{}
		for n := i + storeBusy; n < sessions; n += storeBusy {
			allowed = append(allowed, addressOf(n).String()+"/32")
		}
		list, err := json.Marshal(map[string]any{"allow_list": allowed})
		if err != nil {
			return nil, err
		}
		if _, err := conn.Exec(ctx, `UPDATE postern.tenants SET document = document || $1 WHERE id = $2`, string(list), tenantName(i%storeBusy)); err != nil {
			return nil, err
		}
		committed[i] = time.Now()
	}
	return committed, nil
}

// addressOf is where the client of a session comes from.
func addressOf(i int) net.IP { return net.IPv4(127, 1, byte(i%storeBusy), byte(1+i/storeBusy)) }

// connectFrom logs in to a tenant from an address of this computer's, and runs one query.
func (r *rig) connectFrom(ctx context.Context, t *target, tenant string, from net.IP) (*pgconn.PgConn, error) {
	conf, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s.%s dbname=%s password=%s sslmode=disable connect_timeout=60", t.host, t.port, benchRole, tenant, benchDatabase, r.password))
	if err != nil {
		return nil, errors.New("connection string") // the cause may quote the password
	}
	conf.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, err
	}
	if err := ask(ctx, conn); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// startStoreNode starts a Postern that has its tenants in the store; more is what its configuration says beside.
func (r *rig) startStoreNode(more string) (*target, error) {
	dir, err := r.instanceDir("node")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	adminPort, err := freePort()
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(r.dir, "store.key"))
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "postern.yaml")
	for path, content := range map[string]string{
		config: fmt.Sprintf(`listeners: [{name: bench, address: "%[1]s:%[2]d", pool_mode: transaction, proxy_protocol: "off"}]
auth: {mock_secret_file: %[3]s/mock.key}
admin: {address: "%[1]s:%[4]d", token_file: %[3]s/admin.token, metrics_public: true}
tenants: {postgres: {dsn_file: %[3]s/dsn, key_file: %[3]s/key}}
timeouts: {drain: 1s}
%[5]s`, loopback, port, dir, adminPort, more),
		filepath.Join(dir, "dsn"): fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable\n", loopback, r.pg.port, benchRole, r.password, storeDatabase),
		filepath.Join(dir, "key"): string(key),
	} {
		if err := r.as.write(path, content); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"admin.token", "mock.key"} {
		if err := r.as.write(filepath.Join(dir, name), strings.Repeat(strconv.Itoa(port), 10)+"\n"); err != nil {
			return nil, err
		}
	}
	proc, err := start("node", filepath.Join(r.dir, filepath.Base(dir)+".log"), r.as, r.programs.postern, "serve", "--config", config)
	if err != nil {
		return nil, err
	}
	return &target{name: postern, host: loopback, port: port, proc: proc, metrics: fmt.Sprintf("http://%s:%d/metrics", loopback, adminPort)}, nil
}
