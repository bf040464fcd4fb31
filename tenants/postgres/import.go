// Import: bringing the store to a list of tenants, and saying what that changes.

package postgres

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// ImportOptions say how far an import goes.
type ImportOptions struct {
	Prune  bool // tenants that are not in the list are removed
	DryRun bool // nothing is changed
}

// Import brings the store to what a list of tenants says, in one transaction, and writes what is different, a line for each. What
// is the same is not touched, so that importing twice changes nothing the second time.
func Import(ctx context.Context, conf *pgx.ConnConfig, k *Keys, list []*tenants.Tenant, o ImportOptions, out io.Writer) (changed int, err error) {
	conn, err := connect(ctx, conf)
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	if err := checkKeys(ctx, conn, k); err != nil {
		return 0, err
	}
	list = slices.SortedFunc(slices.Values(list), byID)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if !o.DryRun {
			// Two imports take turns, and nobody changes what was compared; readers are not held up.
			if _, err := tx.Exec(ctx, `LOCK TABLE postern.tenants, postern.users IN SHARE ROW EXCLUSIVE MODE`); err != nil {
				return err
			}
		}
		var before []*tenants.Tenant
		broken := make(map[string]bool) // what is there and cannot be read
		var r document.Reader
		if err := readRows(ctx, tx, func(in row) error {
			t, err := rowTenant(&r, in, k)
			if err != nil {
				t, broken[in.ID] = tenants.New(in.ID), true
			}
			before = append(before, t)
			return nil
		}, selectAll); err != nil {
			return err
		}
		w := writer{tx: tx, keys: k, batch: &pgx.Batch{}}
		for _, step := range difference(before, list, broken, o.Prune) {
			changed++
			for _, line := range step.lines() {
				if _, err := fmt.Fprintln(out, line); err != nil {
					return err
				}
			}
			if !o.DryRun {
				if err := w.apply(ctx, step); err != nil {
					return err
				}
			}
		}
		return w.flush(ctx)
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// step is one tenant that becomes another.
type step struct {
	old, new *tenants.Tenant // nil: not there
	broken   bool            // old is, in a form that cannot be read
}

// difference is what has to be done so that after is there, in the order of ids; those that go first, since a machine may go from
// one to another.
func difference(before, after []*tenants.Tenant, broken map[string]bool, prune bool) (steps []step) {
	was := make(map[string]*tenants.Tenant, len(before))
	for _, t := range before {
		was[t.ID] = t
	}
	for _, t := range after {
		if old := was[t.ID]; old == nil || broken[t.ID] || !old.Equal(t) || old.Upstream.RootPEM != t.Upstream.RootPEM {
			steps = append(steps, step{old, t, broken[t.ID]})
		}
		delete(was, t.ID)
	}
	if prune {
		for _, t := range was {
			steps = append(steps, step{old: t})
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.id(), b.id()))
	})
	return steps
}

func rank(s step) int {
	if s.new == nil {
		return 0
	}
	return 1
}

func (s step) id() string {
	if s.new != nil {
		return s.new.ID
	}
	return s.old.ID
}

// lines say what changes, in words without secrets.
func (s step) lines() []string {
	switch {
	case s.new == nil:
		return []string{"- " + s.id()}
	case s.old == nil:
		return []string{"+ " + s.id()}
	case s.broken:
		return []string{"~ " + s.id() + ": what is there cannot be read"}
	}
	var out []string
	for _, d := range document.Differences(s.old, s.new) {
		line := fmt.Sprintf("~ %s: %s: %s -> %s", s.id(), d.Path, cmp.Or(d.Old, "(none)"), cmp.Or(d.New, "(none)"))
		if d.Secret {
			line = fmt.Sprintf("~ %s: %s changed", s.id(), d.Path)
		}
		out = append(out, line)
	}
	return out
}

// writer writes steps, some at a time.
type writer struct {
	tx    pgx.Tx
	keys  *Keys
	batch *pgx.Batch
}

const batchSize = 500 // statements in one round trip

func (w *writer) apply(ctx context.Context, s step) error {
	if s.new == nil {
		w.batch.Queue(`DELETE FROM postern.tenants WHERE id = $1`, s.old.ID)
	} else {
		r := rowOf(s.new, 0, w.keys)
		w.batch.Queue(`INSERT INTO postern.tenants (id, document) VALUES ($1, $2)
			ON CONFLICT (id) DO UPDATE SET document = excluded.document`, r.ID, r.Document)
		names := []string{}
		for _, u := range r.Users {
			names = append(names, u.Name)
			w.batch.Queue(`INSERT INTO postern.users (tenant, name, document, verifier, password, server_password) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (tenant, name) DO UPDATE SET document = excluded.document, verifier = excluded.verifier,
				password = excluded.password, server_password = excluded.server_password`,
				r.ID, u.Name, u.Document, u.Verifier, u.Password, u.ServerPassword)
		}
		if s.old != nil {
			w.batch.Queue(`DELETE FROM postern.users WHERE tenant = $1 AND name <> ALL ($2)`, r.ID, names)
		}
	}
	if w.batch.Len() < batchSize {
		return nil
	}
	return w.flush(ctx)
}

func (w *writer) flush(ctx context.Context) error {
	if w.batch.Len() == 0 {
		return nil
	}
	err := w.tx.SendBatch(ctx, w.batch).Close()
	w.batch = &pgx.Batch{}
	return err
}
