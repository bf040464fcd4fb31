// Tokens of the admin API: made, listed, revoked and found.

package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

const tokenTimeout = 2 * time.Second // for the store to say whether a token is valid: a request waits, and may be answered without

const tokenColumns = `id, name, scope, coalesce(tenant, ''), created, expires, used`

func scanToken(from pgx.Row, more ...any) (t tenants.Token, err error) {
	var expires, used *time.Time
	err = from.Scan(append([]any{&t.ID, &t.Name, &t.Scope, &t.Tenant, &t.Created, &expires, &used}, more...)...)
	if expires != nil {
		t.Expires = *expires
	}
	if used != nil {
		t.Used = *used
	}
	return t, err
}

// Tokens implements [tenants.Registry].
func (r *Registry) Tokens(ctx context.Context, tenant, after string, limit int) ([]tenants.Token, error) {
	return ask(ctx, r, func(ctx context.Context) ([]tenants.Token, error) {
		return readTokens(ctx, r.pool, selectTokens+` AND ($1 = '' OR tenant = $1) AND id > $2 ORDER BY id LIMIT $3`, sane(tenant), sane(after), limit)
	})
}

// Token implements [tenants.Registry].
func (r *Registry) Token(ctx context.Context, id string) (tenants.Token, error) {
	return ask(ctx, r, func(ctx context.Context) (tenants.Token, error) {
		t, err := scanToken(r.pool.QueryRow(ctx, selectTokens+` AND id = $1`, sane(id)))
		if errors.Is(err, pgx.ErrNoRows) {
			err = tenants.ErrNoSuchToken
		}
		return t, err
	})
}

// selectTokens reads those that were not revoked.
const selectTokens = `SELECT ` + tokenColumns + ` FROM postern.tokens WHERE revoked IS NULL`

func readTokens(ctx context.Context, q querier, sql string, args ...any) ([]tenants.Token, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (tenants.Token, error) { return scanToken(row) })
}

// tokensOf says of a step that removes a tenant, whose row is locked, which tokens go with it.
func tokensOf(ctx context.Context, tx pgx.Tx, s step) (gone []tenants.Difference, err error) {
	if s.new != nil || s.old == nil {
		return nil, nil
	}
	all, err := readTokens(ctx, tx, selectTokens+` AND tenant = $1 ORDER BY id`, s.old.ID)
	for _, t := range all {
		path, text := shownToken(t)
		gone = append(gone, tenants.Difference{Path: path, Old: text})
	}
	return gone, err
}

// AddToken implements [tenants.Registry].
func (r *Registry) AddToken(ctx context.Context, by tenants.Actor, t tenants.Token, digest [32]byte) (tenants.Token, error) {
	e := tenants.Entry{By: by, Action: "token.add", Tenant: t.Tenant}
	return r.changeToken(ctx, e, func(ctx context.Context, tx pgx.Tx) (tenants.Token, tenants.Difference, error) {
		if problems := tenants.ValidateToken(t); len(problems) > 0 {
			return t, tenants.Difference{}, refusal{tenants.Problems(problems)}
		}
		var expires *time.Time
		if !t.Expires.IsZero() {
			expires = &t.Expires
		}
		made, err := scanToken(tx.QueryRow(ctx, `INSERT INTO postern.tokens (id, name, scope, tenant, digest, expires) VALUES ($1, $2, $3, nullif($4, ''), $5, $6)
			RETURNING `+tokenColumns, strings.ToLower(rand.Text()), t.Name, string(t.Scope), t.Tenant, digest[:], expires))
		var server *pgconn.PgError
		if errors.As(err, &server) {
			switch server.ConstraintName {
			case "tokens_digest":
				err = refusal{tenants.ErrTaken}
			case "tokens_tenant_fkey":
				err = refusal{tenants.ErrNoSuchTenant}
			}
		}
		path, text := shownToken(made)
		return made, tenants.Difference{Path: path, New: text}, err
	})
}

// RevokeToken implements [tenants.Registry].
func (r *Registry) RevokeToken(ctx context.Context, by tenants.Actor, tenant, id string) error {
	var digest []byte
	_, err := r.changeToken(ctx, tenants.Entry{By: by, Action: "token.revoke", Tenant: tenant}, func(ctx context.Context, tx pgx.Tx) (tenants.Token, tenants.Difference, error) {
		gone, err := scanToken(tx.QueryRow(ctx, `UPDATE postern.tokens SET revoked = now() WHERE id = $1 AND revoked IS NULL AND ($2 = '' OR tenant = $2)
			RETURNING `+tokenColumns+`, digest`, sane(id), sane(tenant)), &digest)
		if errors.Is(err, pgx.ErrNoRows) {
			err = refusal{tenants.ErrNoSuchToken}
		}
		path, text := shownToken(gone)
		return gone, tenants.Difference{Path: path, Old: text}, err
	})
	if digest != nil { // and if nobody knows whether it was done
		r.known.revoked([32]byte(digest))
	}
	return err
}

// changeToken does something to a token, with its row in the audit log.
func (r *Registry) changeToken(ctx context.Context, e tenants.Entry, f func(context.Context, pgx.Tx) (tenants.Token, tenants.Difference, error)) (tenants.Token, error) {
	is, err := ask(ctx, r, func(ctx context.Context) (is tenants.Token, err error) {
		err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			var what tenants.Difference
			if is, what, err = f(ctx, tx); err != nil {
				return err
			}
			done := e
			done.Tenant, done.Outcome, done.Changes = is.Tenant, tenants.OutcomeDone, []tenants.Difference{what}
			_, err := tx.Exec(ctx, insertEntry, entryValues(done)...)
			return err
		})
		return is, err
	})
	if err != nil {
		return tenants.Token{}, r.answer(ctx, err, e)
	}
	return is, nil
}

// shownToken is what the audit log says of a token.
func shownToken(t tenants.Token) (path, text string) {
	return fmt.Sprintf("tokens[%q]", t.ID), string(document.Encode(struct {
		Name    string        `json:"name"`
		Scope   tenants.Scope `json:"scope"`
		Expires time.Time     `json:"expires,omitzero"`
	}{t.Name, t.Scope, t.Expires}))
}

// findToken notes the use, once a minute: what was noted already is not written.
const findToken = `WITH noted AS (UPDATE postern.tokens SET used = date_trunc('minute', now())
		WHERE digest = $1 AND revoked IS NULL AND (expires IS NULL OR expires > now()) AND (used IS NULL OR used < date_trunc('minute', now())))
	SELECT ` + tokenColumns + `, digest FROM postern.tokens WHERE digest = $1 AND revoked IS NULL AND (expires IS NULL OR expires > now())`

// FindToken implements [tenants.Registry]. What the store has said of a valid token holds for a second, and for a minute while it is
// away.
//
// The index and the map find a digest by comparing it from its start, which takes the longer the more of it is right. That tells
// nothing: digests are SHA-256 of long random tokens, so whoever does not have the token cannot choose how its digest starts, and who
// knew a digest could not make a token of it. The whole is compared in constant time.
func (r *Registry) FindToken(ctx context.Context, digest [32]byte) (tenants.Token, error) {
	asked := time.Now()
	t, known, again := r.known.find(digest, asked)
	ended := r.known.ended.Load()
	if !again {
		return t, nil
	}
	now, err := ask(ctx, r, func(ctx context.Context) (tenants.Token, error) {
		return bounded(ctx, tokenTimeout, func(ctx context.Context) (tenants.Token, error) {
			var kept []byte
			t, err := scanToken(r.pool.QueryRow(ctx, findToken, digest[:]), &kept)
			if errors.Is(err, pgx.ErrNoRows) || err == nil && subtle.ConstantTimeCompare(kept, digest[:]) != 1 {
				err = tenants.ErrNoSuchToken
			}
			return t, err
		})
	})
	switch {
	case err == nil:
		r.known.valid(digest, now, asked, ended)
		return now, nil
	case errors.Is(err, tenants.ErrNoSuchToken):
		r.known.invalid(digest)
	case errors.Is(err, tenants.ErrAway) && known:
		r.known.away(digest, time.Now())
		return t, nil
	}
	return tenants.Token{}, err
}
