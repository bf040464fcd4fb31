// Import: bringing the store to a list of tenants, and saying what that changes.

package postgres

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
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
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
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
		w := newWriter(tx, k)
		steps := difference(before, list, broken, o.Prune)
		for i, step := range steps {
			changed++
			for _, line := range step.lines() {
				if _, err := fmt.Fprintln(out, line); err != nil {
					return err
				}
			}
			if !o.DryRun {
				if steps[i].tokens, err = tokensOf(ctx, tx, step); err != nil {
					return err
				}
				if err := w.apply(ctx, step); err != nil {
					return err
				}
			}
		}
		if o.DryRun || len(steps) == 0 {
			return nil
		}
		return w.finish(ctx, importEntries(steps))
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// importEntries are what the audit log says of an import.
func importEntries(steps []step) iter.Seq[tenants.Entry] {
	return func(yield func(tenants.Entry) bool) {
		for _, s := range steps {
			if !yield(s.entry(tenants.Actor{Name: "cli"}, "store.import")) {
				return
			}
		}
	}
}

// difference is what has to be done so that after is there, in the order of ids; those that go first, since a machine may go from
// one to another.
func difference(before, after []*tenants.Tenant, broken map[string]bool, prune bool) (steps []step) {
	was := make(map[string]*tenants.Tenant, len(before))
	for _, t := range before {
		was[t.ID] = t
	}
	for _, t := range after {
		if old := was[t.ID]; old == nil || broken[t.ID] || !old.Equal(t) || old.Upstream.RootPEM != t.Upstream.RootPEM || old.ClientCAPEM != t.ClientCAPEM {
			steps = append(steps, step{old: old, new: t, broken: broken[t.ID]})
		}
		delete(was, t.ID)
	}
	if prune {
		for _, t := range was {
			steps = append(steps, step{old: t, broken: broken[t.ID]})
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
