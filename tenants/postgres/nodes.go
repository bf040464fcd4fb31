// Nodes as the store knows them: who they are, where a version is in force, and how one is forgotten.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
)

// Applied implements [tenants.Registry].
func (r *Registry) Applied(ctx context.Context, version int64) (tenants.Applied, error) {
	return ask(ctx, r, func(ctx context.Context) (tenants.Applied, error) { return readApplied(ctx, r.pool, version) })
}

// Nodes implements [tenants.Registry].
func (r *Registry) Nodes(ctx context.Context) ([]tenants.Node, error) {
	return ask(ctx, r, func(ctx context.Context) ([]tenants.Node, error) { return readNodes(ctx, r.pool) })
}

// ForgetNode implements [tenants.Registry].
func (r *Registry) ForgetNode(ctx context.Context, by tenants.Actor, name string) error {
	e := tenants.Entry{By: by, Action: "node.forget", Outcome: tenants.OutcomeDone, Changes: []tenants.Difference{{Path: "nodes[" + strconv.Quote(name) + "]", Old: strconv.Quote(name)}}}
	_, err := ask(ctx, r, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			var boot string // of the process that has the name: one that has had it before may live under another one
			var silent bool
			err := tx.QueryRow(ctx, `SELECT boot, clock_timestamp() - seen > $2 FROM postern.nodes WHERE name = $1 FOR UPDATE`, sane(name), silentAfter).Scan(&boot, &silent)
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				return refusal{tenants.ErrNoSuchNode}
			case err != nil:
				return err
			case !silent:
				return refusal{tenants.ErrServes}
			}
			if _, err := tx.Exec(ctx, `DELETE FROM postern.portions WHERE boot = $1`, boot); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `DELETE FROM postern.nodes WHERE name = $1`, sane(name)); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, insertEntry, entryValues(e)...)
			return err
		})
	})
	return r.answer(ctx, err, e)
}

// epochNow is the epoch of the store.
const epochNow = `(SELECT epoch FROM (` + selectHead + `) h (version, epoch))`

// What a node has to write: how it is, bans, and what it does to machines; one of several nodes, what those share beside.
var (
	nodeTables    = []string{"postern.nodes", "postern.applied", "postern.bans", "postern.leases", "postern.uses"}
	clusterTables = []string{"postern.budgets", "postern.portions"}
)

// checkRights says whether a node may write tables.
func checkRights(ctx context.Context, q querier, tables []string) error {
	var may bool
	if err := q.QueryRow(ctx, `SELECT bool_and(has_table_privilege(t, r)) FROM unnest($1::text[]) t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r`,
		tables).Scan(&may); err != nil {
		return fmt.Errorf("asking for the rights on the store: %w", err)
	}
	if !may {
		return fmt.Errorf("a node has to announce itself in the store, and shares with others what they must all know: GRANT SELECT, INSERT, UPDATE, DELETE ON %s to its role",
			strings.Join(tables, ", "))
	}
	return nil
}

// readNodes lists the nodes by name.
func readNodes(ctx context.Context, q querier) ([]tenants.Node, error) {
	rows, err := q.Query(ctx, `SELECT name, started, seen, clock_timestamp() - seen > $1, CASE epoch WHEN `+epochNow+` THEN applied ELSE 0 END, refused, keys, cache,
		boot, address, gossip, fingerprint, region, protocol, leaving FROM postern.nodes ORDER BY name`, silentAfter)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (n tenants.Node, err error) {
		var address, gossip string
		err = row.Scan(&n.Name, &n.Started, &n.Seen, &n.Silent, &n.Applied, &n.Refused, &n.Keys, &n.Cache,
			&n.Boot, &address, &gossip, &n.Fingerprint, &n.Region, &n.Protocol, &n.Leaving)
		n.Address, _ = netip.ParseAddrPort(address) // or none
		n.Gossip, _ = netip.ParseAddrPort(gossip)
		return n, err
	})
}

// readApplied says where a version is in force. Of a tenant that was changed again since, the later version decides where it was
// refused.
func readApplied(ctx context.Context, q querier, version int64) (a tenants.Applied, err error) {
	rows, err := q.Query(ctx, `SELECT n.name,
			n.epoch = h.epoch AND n.applied >= $1 AND clock_timestamp() - n.seen <= $2
				AND NOT n.refused && (SELECT coalesce(array_agg(c.tenant), '{}') || $3::text FROM postern.changes c WHERE c.version = $1),
			coalesce((SELECT a.at FROM postern.applied a WHERE a.node = n.name AND a.epoch = h.epoch AND a.version >= $1 ORDER BY a.version LIMIT 1), n.seen)
		FROM postern.nodes n, (`+selectHead+`) h (version, epoch) ORDER BY n.name`, version, silentAfter, everyTenant)
	if err != nil {
		return a, err
	}
	var name string
	var there bool
	var at time.Time
	a.When = make(map[string]time.Time)
	if _, err := pgx.ForEachRow(rows, []any{&name, &there, &at}, func() error {
		if !there {
			a.Missing = append(a.Missing, name)
			return nil
		}
		a.When[name] = at
		if at.After(a.At) {
			a.At = at
		}
		return nil
	}); err != nil {
		return a, err
	}
	if a.Everywhere = len(a.Missing) == 0 && len(a.When) > 0; !a.Everywhere {
		a.At = time.Time{}
	}
	return a, nil
}

// maxInForce is on how many nodes an entry of the audit log is told to be in force: the first ones.
const maxInForce = 100

// selectInForce says of each version when it came into force on nodes, those that have ended since among them: with the first report
// of it or of a later one. Of what is older than reports are kept, nothing is known. The nodes are read by steps along the index, so
// that it costs as much as there are nodes, not reports.
const selectInForce = `WITH RECURSIVE nodes (node, epoch) AS (
		(SELECT node, epoch FROM postern.applied ORDER BY node, epoch LIMIT 1)
		UNION ALL SELECT next.* FROM nodes n, LATERAL (SELECT node, epoch FROM postern.applied WHERE (node, epoch) > (n.node, n.epoch) ORDER BY node, epoch LIMIT 1) next
	)
	SELECT e.i, f.node, f.at
	FROM unnest($1::bigint[], $2::timestamptz[], $3::text[]) WITH ORDINALITY AS e (version, at, tenant, i) LEFT JOIN LATERAL (
		SELECT n.node, min(a.at) AS at FROM nodes n, LATERAL (
			SELECT at FROM postern.applied WHERE node = n.node AND epoch = n.epoch AND version >= e.version AND at >= e.at AND NOT refused && ARRAY[e.tenant, $4]
			ORDER BY version LIMIT 1) a
		GROUP BY n.node ORDER BY 2, 1 LIMIT $5) f ON true
	WHERE e.version > 0 AND e.at > clock_timestamp() - $6::interval
	ORDER BY e.i, f.at, f.node`

// readInForce fills in where entries are in force.
func readInForce(ctx context.Context, q querier, all []tenants.Entry) error {
	versions, when, ids := make([]int64, len(all)), make([]time.Time, len(all)), make([]string, len(all))
	for i, e := range all {
		versions[i], when[i], ids[i] = e.Version, e.At, e.Tenant
	}
	rows, err := q.Query(ctx, selectInForce, versions, when, ids, everyTenant, maxInForce, appliedKept)
	if err != nil {
		return err
	}
	var i int
	var node *string
	var at *time.Time
	_, err = pgx.ForEachRow(rows, []any{&i, &node, &at}, func() error {
		e := &all[i-1]
		if e.Applied == nil {
			e.Applied = []tenants.InForce{}
		}
		if node != nil {
			e.Applied = append(e.Applied, tenants.InForce{Node: *node, At: *at})
		}
		return nil
	})
	return err
}
