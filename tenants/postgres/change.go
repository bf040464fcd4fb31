// Changing a tenant: one transaction, from the row's lock to the row of the audit log.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// refusal is an error that is the answer to a call, and goes to the audit log.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

const changeAttempts = 5

// Change implements [tenants.Registry]. After ErrAway the change may have been made: the store went away before it has said so.
func (r *Registry) Change(ctx context.Context, c tenants.Edit) (tenants.Record, error) {
	record, err := ask(ctx, r, func(ctx context.Context) (record tenants.Record, err error) {
		for range changeAttempts {
			if record, err = r.change(ctx, c); !overtaken(err) {
				break
			}
		}
		return record, err
	})
	if no := (refusal{}); c.Unnoted && errors.As(err, &no) {
		return record, no.error
	}
	return record, r.answer(ctx, err, tenants.Entry{By: c.By, Action: c.Action, Tenant: c.Tenant})
}

// answer is what the caller is told. What was refused is written down first.
func (r *Registry) answer(ctx context.Context, err error, e tenants.Entry) error {
	var no refusal
	if !errors.As(err, &no) {
		return err
	}
	e.Outcome = no.Error()
	if err := r.Note(context.WithoutCancel(ctx), e); err != nil {
		r.opts.Log.Error("a refused call is not in the audit log", "action", e.Action, "tenant", e.Tenant, "error", err)
	}
	return no.error
}

// overtaken reports whether somebody else was there at the same time, so that another attempt sees what they have done.
func overtaken(err error) bool {
	return slices.Contains([]string{"40001", "40P01", "23505"}, sqlState(err))
}

func (r *Registry) change(ctx context.Context, c tenants.Edit) (now tenants.Record, err error) {
	if !tenants.ValidID(c.Tenant) { // of which there is none, and will be none: the edit says what that means
		if _, err := r.edit(c, now); err != nil {
			return now, refusal{err}
		}
		return now, nil
	}
	err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		var lost error
		if now, lost, err = r.lock(ctx, tx, c.Tenant); err != nil {
			return err
		}
		if lost != nil && !c.Unread {
			return refusal{r.unreadable(c.Tenant, lost)}
		}
		next, err := r.edit(c, now)
		if err != nil {
			return refusal{err}
		}
		s := step{old: now.Tenant, new: next, broken: lost != nil}
		if same := (s.old == nil) == (s.new == nil) && len(document.Differences(s.old, s.new)) == 0; same && !s.broken {
			return nil
		}
		if s.broken {
			r.opts.Log.Warn("a tenant that cannot be read is replaced or removed, with what was lost", "tenant", c.Tenant, "error", lost)
		}
		if s.tokens, err = tokensOf(ctx, tx, s); err != nil {
			return err
		}
		if err := free(ctx, tx, next); err != nil {
			return err
		}
		w := newWriter(tx, r.opts.Keys)
		if err := w.apply(ctx, s); err != nil {
			return err
		}
		if err := w.finish(ctx, slices.Values([]tenants.Entry{s.entry(c.By, c.Action)})); err != nil {
			return err
		}
		now = tenants.Record{Tenant: next}
		return tx.QueryRow(ctx, `SELECT mark, version, at FROM postern.changes WHERE tenant = $1`, c.Tenant).Scan(&now.Revision, &now.Version, &now.Changed)
	})
	return now, err
}

// lock reads a tenant that nobody else changes until the transaction ends, neither by a registry nor by SQL: the row's lock holds up
// new users and who comes to change the tenant, the users' locks who changes one of them. The tables are locked first, in the
// mode that the writing needs, because an import has them: locked later, each would wait for the other.
//
// lost is why not all of it can be read.
func (r *Registry) lock(ctx context.Context, tx pgx.Tx, id string) (is tenants.Record, lost, err error) {
	var b pgx.Batch
	b.Queue(`LOCK TABLE postern.tenants, postern.users IN ROW EXCLUSIVE MODE`)
	b.Queue(`SELECT FROM postern.tenants WHERE id = $1 FOR UPDATE`, id)
	b.Queue(`SELECT FROM postern.users WHERE tenant = $1 ORDER BY name FOR UPDATE`, id)
	b.Queue(selectThese, []string{id}).Query(func(rows pgx.Rows) error { // which sees what was committed while we waited
		return scanRows(rows, func(in row) error {
			is, lost = r.record(&document.Reader{}, in)
			return nil
		})
	})
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return is, nil, fmt.Errorf("tenant %s: %w", id, err)
	}
	return is, lost, nil
}

// edit is what shall be there. Its errors are refusals.
func (r *Registry) edit(c tenants.Edit, is tenants.Record) (*tenants.Tenant, error) {
	switch {
	case c.Match == tenants.MatchNone && is.Tenant != nil:
		return nil, tenants.ErrTaken
	case c.Match > 0 && (is.Tenant == nil || is.Revision != c.Match):
		return nil, tenants.ErrChanged
	}
	next, err := c.Edit(is.Tenant)
	if err != nil || next == nil {
		return nil, err
	}
	if next.ID != c.Tenant {
		return nil, tenants.Problems{{Path: "id", Message: fmt.Sprintf("must be %q", c.Tenant)}}
	}
	next.Complete()
	if problems := r.opts.Judge.judge(next); len(problems) > 0 {
		return nil, problems
	}
	return next, nil
}

// free refuses a machine, or an address of Flycast's, that is another tenant's. One that takes it at this moment is found by the
// table's constraints.
func free(ctx context.Context, tx pgx.Tx, t *tenants.Tenant) error {
	if t == nil {
		return nil
	}
	if t.Machine != nil {
		taken := tenants.ConflictError{ID: t.ID, Machine: t.Machine.Key()}
		if err := freeOf(ctx, tx, `SELECT id FROM postern.tenants WHERE machine = $1 AND id <> $2`, taken.Machine, &taken); err != nil {
			return err
		}
	}
	if t.Flycast.IsValid() {
		taken := tenants.ConflictError{ID: t.ID, Flycast: t.Flycast}
		return freeOf(ctx, tx, `SELECT id FROM postern.tenants WHERE flycast = $1 AND id <> $2`, t.Flycast.String(), &taken)
	}
	return nil
}

// freeOf asks who has something.
func freeOf(ctx context.Context, tx pgx.Tx, query, what string, taken *tenants.ConflictError) error {
	err := tx.QueryRow(ctx, query, what, taken.ID).Scan(&taken.Other)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return refusal{taken}
}
