// The rows of a cluster: what being one of several nodes costs, how soon a dead one is found, and how soon a limit follows demand.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/tenants"
)

const (
	clusterNodes   = 3
	clusterWithin  = time.Minute // until nodes know each other, or that one is dead
	handOvers      = 10          // in a cell; the first one is from nothing
	handOverWithin = time.Minute
	idleTimes      = 2                // as long as a cell of load
	statsSettle    = 12 * time.Second // connections that nobody uses say what they did after 10 s
)

const (
	aloneCPU     figure = "alone_cpu_us"   // per transaction of a node without a cluster
	memberCPU    figure = "cluster_cpu_us" // of one of a cluster
	clusterRatio figure = "cluster_cpu_ratio"
	aloneIdle    figure = "alone_idle_ms" // CPU in a second without clients
	memberIdle   figure = "cluster_idle_ms"
	aloneRuns    figure = "alone_goroutines"
	memberRuns   figure = "cluster_goroutines"
	aloneRSS     figure = "alone_rss_mib"
	memberRSS    figure = "cluster_rss_mib"
	storeIdle    figure = "store_transactions" // a second, of each idle node
	storeConns   figure = "store_connections"  // of each idle node
	foundSuspect figure = "suspect_s"          // after a node was killed
	foundGone    figure = "gone_s"
	foundSilent  figure = "silent_s"
	handMedian   figure = "hand_over_ms"
	handWorst    figure = "hand_over_worst_ms"
)

func clusterCost() *measurement {
	return &measurement{run: func(ctx context.Context, r *rig) (figures, error) {
		return r.among(ctx, clusterNodes, func(all []*target) (figures, error) { return r.clusterCell(ctx, all[0]) })
	}, columns: []column{
		{"µs CPU, no cluster", aloneCPU, false}, {"one of three", memberCPU, false}, {"ratio (goal: 1.01)", clusterRatio, true},
		{"idle ms CPU a second, no cluster", aloneIdle, false}, {"one of three", memberIdle, true},
		{"goroutines", aloneRuns, false}, {"one of three", memberRuns, false}, {"RSS MiB", aloneRSS, false}, {"one of three", memberRSS, false},
	}}
}

func deadNode() *measurement {
	return &measurement{run: func(ctx context.Context, r *rig) (figures, error) {
		return r.among(ctx, clusterNodes, func(all []*target) (figures, error) { return r.deadCell(ctx, all[0], all[1]) })
	}, columns: []column{
		{"suspect after s", foundSuspect, true}, {"gone after s", foundGone, true}, {"silent in the store after s", foundSilent, true},
		{"an idle node's transactions in the store, a second", storeIdle, true}, {"connections", storeConns, false},
	}}
}

func handOver() *measurement {
	return &measurement{run: func(ctx context.Context, r *rig) (figures, error) {
		return r.among(ctx, 2, func(all []*target) (figures, error) { return r.handOverCell(ctx, all) })
	}, columns: []column{
		{"full limit at the other node after ms (median)", handMedian, true}, {"worst", handWorst, true},
	}}
}

// among has something done among nodes that know each other, and share poolSize servers of one tenant.
func (r *rig) among(ctx context.Context, n int, do func(all []*target) (figures, error)) (f figures, err error) {
	t := r.tenant(benchTenant)
	// Of all of a tenant's, some are set aside for when the store is away; of a pool's none are.
	t.Pool.Size, t.Pool.MaxClients, t.Pool.MaxServers = poolSize, maxClients, poolSize+clusterNodes
	all, err := r.fellows(ctx, n, t)
	defer func() { err = errors.Join(err, r.leave(ctx, all)) }()
	if err != nil {
		return nil, err
	}
	return do(all)
}

// leave takes nodes and their store down.
func (r *rig) leave(ctx context.Context, all []*target) error {
	for _, t := range all {
		t.stop()
	}
	return r.dropStore(context.WithoutCancel(ctx))
}

// fellows makes a store and starts nodes on it that know each other. Those that it has started come back also with an error.
func (r *rig) fellows(ctx context.Context, n int, of ...*tenants.Tenant) (all []*target, err error) {
	if err := r.makeStore(ctx); err != nil {
		return nil, err
	}
	if err := r.fillStore(ctx, of); err != nil {
		return nil, err
	}
	path, err := r.clusterKey()
	if err != nil {
		return nil, err
	}
	for i := range n {
		t, err := r.startStoreNode(fmt.Sprintf("cluster: {name: node-%d, bind: \"%s:0\", key_file: %s, max_nodes: %d}\n", i, loopback, path, clusterNodes))
		if err != nil {
			return all, err
		}
		t.user = benchRole + "." + benchTenant
		all = append(all, t)
	}
	for _, t := range all {
		if err := errors.Join(t.awaitTenants(ctx), t.awaitMembers(ctx, "alive", n)); err != nil {
			return all, fmt.Errorf("%w%s", err, t.logTail())
		}
	}
	return all, nil
}

// awaitMembers waits until a node sees at least so many members in a state.
func (t *target) awaitMembers(ctx context.Context, state string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, clusterWithin)
	defer cancel()
	for {
		seen, err := scrape(ctx, t.metrics, fmt.Sprintf(`postern_cluster_members{state="%s"}`, state))
		if err == nil && seen >= float64(n) {
			return nil
		}
		if err := errors.Join(t.alive(), pause(ctx, 20*time.Millisecond)); err != nil {
			return fmt.Errorf("members that are %s: not %d in time: %w", state, n, err)
		}
	}
}

// clusterCell sets a node of three beside one without a cluster on the same store: each has the load twice, in turns.
func (r *rig) clusterCell(ctx context.Context, member *target) (figures, error) {
	alone, err := r.startStoreNode("")
	if err != nil {
		return nil, err
	}
	defer alone.stop()
	alone.user = benchRole + "." + benchTenant
	pair := [2]*target{alone, member}
	for _, t := range pair {
		if err := r.waitReady(ctx, t); err != nil {
			return nil, err
		}
	}
	var used [2]float64 // µs per transaction, of two cells
	for _, i := range []int{0, 1, 1, 0} {
		f, err := r.loadCell(ctx, row{name: "cluster", pgbench: selectOnly("simple")}, pair[i])
		if err != nil {
			return nil, err
		}
		used[i] += f[cpu] / 2
	}
	f := figures{aloneCPU: used[0], memberCPU: used[1], clusterRatio: used[1] / used[0]}
	idle, err := r.idleCPU(ctx, pair[:])
	if err != nil {
		return nil, err
	}
	f[aloneIdle], f[memberIdle] = idle[0], idle[1]
	for i, figure := range [2][2]figure{{aloneRuns, aloneRSS}, {memberRuns, memberRSS}} {
		at, err := pair[i].read(ctx)
		if err != nil {
			return nil, err
		}
		f[figure[0]], f[figure[1]] = at.goroutines, float64(at.rss)/(1<<20)
	}
	return f, nil
}

// idleCPU is what targets run for in a second while nobody asks anything, in ms.
func (r *rig) idleCPU(ctx context.Context, all []*target) ([]float64, error) {
	var before []cpuReading
	out := make([]float64, len(all))
	if err := pause(ctx, idleSettle); err != nil {
		return nil, err
	}
	began := time.Now()
	for _, t := range all {
		at, err := readCPU(os.DirFS("/proc"), t.proc.pid(), r.cpuFrom)
		if err != nil {
			return nil, errors.Join(err, t.alive())
		}
		before = append(before, at)
	}
	if err := pause(ctx, time.Duration(idleTimes*r.opts.seconds)*time.Second); err != nil {
		return nil, err
	}
	for i, t := range all {
		after, err := readCPU(os.DirFS("/proc"), t.proc.pid(), r.cpuFrom)
		if err != nil {
			return nil, errors.Join(err, t.alive())
		}
		used, _ := after.since(before[i])
		out[i] = float64(used.Microseconds()) / 1000 / time.Since(began).Seconds()
	}
	return out, nil
}

// deadCell kills a node, and sees when another one and the store notice. Before that it counts what idle nodes ask of the store.
func (r *rig) deadCell(ctx context.Context, witness, victim *target) (figures, error) {
	asked, conns, err := r.storeLoad(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	victim.proc.stop(syscall.SIGKILL)
	group, groupCtx := errgroup.WithContext(ctx)
	var suspect, gone, silent time.Duration
	group.Go(func() error {
		if err := witness.awaitMembers(groupCtx, "suspect", 1); err != nil {
			return err
		}
		suspect = time.Since(began)
		err := witness.awaitMembers(groupCtx, "left", 1)
		gone = time.Since(began)
		return err
	})
	group.Go(func() error {
		err := r.awaitSilent(groupCtx, "node-1")
		silent = time.Since(began)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("%w%s", err, witness.logTail())
	}
	return figures{storeIdle: asked / clusterNodes, storeConns: conns / clusterNodes, foundSuspect: suspect.Seconds(), foundGone: gone.Seconds(), foundSilent: silent.Seconds()}, nil
}

// storeLoad is how many transactions a second the store has, and how many connections.
func (r *rig) storeLoad(ctx context.Context) (rate, conns float64, err error) {
	conn, err := r.pg.cluster.Connect(ctx, "postgres")
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	read := func() (n float64, err error) {
		err = conn.QueryRow(ctx, `SELECT xact_commit + xact_rollback, numbackends FROM pg_stat_database WHERE datname = $1`, storeDatabase).Scan(&n, &conns)
		return n, err
	}
	if err := pause(ctx, statsSettle); err != nil {
		return 0, 0, err
	}
	before, err := read()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := pause(ctx, time.Duration(idleTimes*r.opts.seconds)*time.Second); err != nil {
		return 0, 0, err
	}
	after, err := read()
	return (after - before) / time.Since(began).Seconds(), conns, err
}

// awaitSilent waits until the store calls a node silent.
func (r *rig) awaitSilent(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, clusterWithin)
	defer cancel()
	conn, err := r.pg.cluster.Connect(ctx, storeDatabase)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		var silent bool
		if err := conn.QueryRow(ctx, `SELECT clock_timestamp() - seen > interval '5 s' FROM postern.nodes WHERE name = $1`, node).Scan(&silent); err != nil || silent {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// handOverCell has all load on one node, then on another, and so on: as many transactions as there are servers.
func (r *rig) handOverCell(ctx context.Context, all []*target) (figures, error) {
	var clients [2][]*pgconn.PgConn
	for i, t := range all {
		var err error
		clients[i], err = r.openIdle(ctx, t, poolSize, false)
		defer closeAll(ctx, clients[i])
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, t.logTail())
		}
	}
	var took []float64
	for i := range handOvers + 1 {
		bound, cancel := context.WithTimeout(ctx, handOverWithin)
		began := time.Now()
		var say errgroup.Group
		for _, c := range clients[(i+1)%2] {
			if i > 0 {
				say.Go(func() error { return c.Exec(bound, "commit").Close() })
			}
		}
		for _, c := range clients[i%2] {
			say.Go(func() error { return c.Exec(bound, "begin").Close() })
		}
		err := say.Wait()
		cancel()
		if err != nil {
			return nil, fmt.Errorf("hand-over %d: %w%s", i, err, all[i%2].logTail())
		}
		if i > 0 {
			took = append(took, float64(time.Since(began).Microseconds())/1000)
		}
	}
	s := spreadOf(took)
	return figures{handMedian: s.Median, handWorst: s.Max}, nil
}
