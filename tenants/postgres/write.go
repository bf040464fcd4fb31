// Writing tenants: the statements that make of what the store has what it shall have, and the rows of the audit log with them.

package postgres

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// step is one tenant that becomes another.
type step struct {
	old, new *tenants.Tenant      // nil: not there
	broken   bool                 // old is, in a form that cannot be read; it has what can be
	tokens   []tenants.Difference // that go with it
}

// entry is what the audit log says of the step.
func (s step) entry(by tenants.Actor, action string) tenants.Entry {
	e := tenants.Entry{By: by, Action: action, Tenant: s.id(), Outcome: tenants.OutcomeDone}
	old := s.old
	if s.broken {
		e.Changes = []tenants.Difference{{Path: "document", Old: `"cannot be read"`}}
		old = nil
	}
	e.Changes = slices.Concat(e.Changes, document.Differences(old, s.new), s.tokens)
	return e
}

// writer writes steps, some at a time, and then once what the audit log says of them.
type writer struct {
	tx    pgx.Tx
	keys  *Keys
	batch *pgx.Batch
}

func newWriter(tx pgx.Tx, k *Keys) *writer { return &writer{tx: tx, keys: k, batch: &pgx.Batch{}} }

const batchSize = 500 // statements in one round trip

func (w *writer) apply(ctx context.Context, s step) error {
	if s.new == nil {
		w.batch.Queue(`DELETE FROM postern.tenants WHERE id = $1`, s.old.ID)
		return w.flushFull(ctx)
	}
	r := rowOf(s.new, 0, w.keys)
	w.tenant(s, r)
	names := []string{}
	for _, u := range r.Users {
		names = append(names, u.Name)
		w.user(s, u)
	}
	if s.old != nil {
		w.batch.Queue(`DELETE FROM postern.users WHERE tenant = $1 AND name <> ALL ($2)`, s.new.ID, names)
	}
	return w.flushFull(ctx)
}

// tenant writes a tenant, but its users. Secrets that are what they were stay sealed as they are.
func (w *writer) tenant(s step, r row) {
	if s.old == nil { // whoever makes the same one at the same time has to see this one
		w.batch.Queue(`INSERT INTO postern.tenants (id, document, client_key, auth_query_password, machine_token, service_password) VALUES ($1, $2, $3, $4, $5, $6)`,
			r.ID, r.Document, r.Secrets.ClientKey, r.Secrets.AuthQueryPassword, r.Secrets.MachineToken, r.Secrets.ServicePassword)
		return
	}
	set, args := `document = $2`, []any{r.ID, r.Document}
	for _, field := range tenantColumns() {
		if s.broken || tenantSecret(s.old, field) != tenantSecret(s.new, field) {
			args = append(args, *r.Secrets.sealed(field))
			set += fmt.Sprintf(`, %s = $%d`, field, len(args))
		}
	}
	w.batch.Queue(`UPDATE postern.tenants SET `+set+` WHERE id = $1`, args...)
}

// user writes a user, if it is not what it was. Secrets that are what they were stay sealed as they are.
func (w *writer) user(s step, r userRow) {
	now, was := s.new.Users[r.Name], (*tenants.User)(nil)
	if s.old != nil && !s.broken {
		was = s.old.Users[r.Name]
	}
	if was != nil && reflect.DeepEqual(*was, *now) {
		return
	}
	set := `document = excluded.document`
	for _, secret := range document.Secrets() {
		if was == nil || *secret.Of(was) != *secret.Of(now) {
			set += fmt.Sprintf(`, %[1]s = excluded.%[1]s`, secret.Field)
		}
	}
	w.batch.Queue(`INSERT INTO postern.users (tenant, name, document, verifier, password, server_password) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant, name) DO UPDATE SET `+set, s.new.ID, r.Name, r.Document, r.Verifier, r.Password, r.ServerPassword)
}

// finish takes the transaction's version in the feed, and writes the audit log. Nothing but the commit may follow: from here on
// everybody else who changes something waits.
func (w *writer) finish(ctx context.Context, entries iter.Seq[tenants.Entry]) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	w.batch.Queue(`SET CONSTRAINTS ALL IMMEDIATE`) // what else would happen in the commit
	for e := range entries {
		w.batch.Queue(insertEntry, entryValues(e)...)
		if err := w.flushFull(ctx); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

func (w *writer) flushFull(ctx context.Context) error {
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
