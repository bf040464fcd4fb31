// Nodes as the store knows them: who they are, where a version is in force, and how one is forgotten.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
			tag, err := tx.Exec(ctx, `DELETE FROM postern.nodes WHERE name = $1`, sane(name))
			if err == nil && tag.RowsAffected() == 0 {
				err = refusal{tenants.ErrNoSuchNode}
			}
			if err == nil {
				_, err = tx.Exec(ctx, insertEntry, entryValues(e)...)
			}
			return err
		})
	})
	return r.answer(ctx, err, e)
}

// epochNow is the epoch of the store.
const epochNow = `(SELECT epoch FROM (` + selectHead + `) h (version, epoch))`

// checkRights says whether a node can say how it is.
func checkRights(ctx context.Context, q querier) error {
	var may bool
	if err := q.QueryRow(ctx, `SELECT bool_and(has_table_privilege(t, r)) FROM unnest(ARRAY['postern.nodes', 'postern.applied', 'postern.bans']) t,
		unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r`).Scan(&may); err != nil {
		return fmt.Errorf("asking for the rights on the store: %w", err)
	}
	if !may {
		return errors.New("a node has to announce itself in the store, and tells others of bans: GRANT SELECT, INSERT, UPDATE, DELETE ON postern.nodes, postern.applied, postern.bans to its role")
	}
	return nil
}

// readNodes lists the nodes by name.
func readNodes(ctx context.Context, q querier) ([]tenants.Node, error) {
	rows, err := q.Query(ctx, `SELECT name, started, seen, clock_timestamp() - seen > $1, CASE epoch WHEN `+epochNow+` THEN applied ELSE 0 END, refused, keys, cache
		FROM postern.nodes ORDER BY name`, silentAfter)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (n tenants.Node, err error) {
		err = row.Scan(&n.Name, &n.Started, &n.Seen, &n.Silent, &n.Applied, &n.Refused, &n.Keys, &n.Cache)
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
