// Sealing anew: what another key has sealed is opened and sealed with the one that seals now, some rows at a time.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sealedTable is a table with sealed values. Its key is text, and what the seals are bound to.
type sealedTable struct {
	name    string
	key     []string
	fields  []string
	parents string // locks the rows that everybody locks before those of the table, in order; $1 are the values of the first part of the key
}

// sealedTables are all of them.
func sealedTables() []sealedTable {
	const theirTenants = `SELECT FROM postern.tenants WHERE id = ANY ($1) ORDER BY id FOR UPDATE`
	return []sealedTable{
		{"tenants", []string{"id"}, tenantColumns(), theirTenants},
		{"users", []string{"tenant", "name"}, []string{"verifier", "password", "server_password"}, theirTenants},
		{"roles", []string{"tenant"}, []string{"sealed"}, theirTenants},
	}
}

const resealBatch = 100 // rows in one transaction, which holds up who wants to edit them

// otherKey is a condition: of the fields one was sealed by another key than that of the seal head in $1.
func (t sealedTable) otherKey() string {
	var or []string
	for _, f := range t.fields {
		or = append(or, fmt.Sprintf(`substring(%s FROM 1 FOR octet_length($1::bytea)) <> $1`, f))
	}
	return `(` + strings.Join(or, ` OR `) + `)`
}

// countOthers counts the rows that have to be sealed anew for a key to be the only one.
func countOthers(ctx context.Context, q querier, key string) (rows int, err error) {
	for _, t := range sealedTables() {
		var n int
		if err := q.QueryRow(ctx, `SELECT count(*) FROM postern.`+t.name+` WHERE `+t.otherKey(), sealHead(key)).Scan(&n); err != nil {
			return 0, err
		}
		rows += n
	}
	return rows, nil
}

// resealer seals anew with the first of its keys.
type resealer struct {
	conn   *pgx.Conn
	keys   *Keys
	before func(context.Context) error // called before each transaction, when its rows are chosen
	done   func(rows int)              // called after each

	closed []string // values that do not open, by their places
}

// all goes once through everything.
func (r *resealer) all(ctx context.Context) error {
	for _, t := range sealedTables() {
		after := make([]string, len(t.key))
		for {
			rows, err := r.next(ctx, t, after)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1]
			if err := r.before(ctx); err != nil {
				return err
			}
			if err := pgx.BeginTxFunc(ctx, r.conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { return r.rows(ctx, tx, t, rows) }); err != nil {
				return fmt.Errorf("sealing %s anew: %w", t.name, err)
			}
			r.done(len(rows))
		}
	}
	return nil
}

// next returns the keys of the next rows that have to be sealed anew.
func (r *resealer) next(ctx context.Context, t sealedTable, after []string) ([][]string, error) {
	key := strings.Join(t.key, ", ")
	args := []any{sealHead(r.keys.IDs()[0])}
	var places []string
	for i, a := range after {
		args, places = append(args, a), append(places, fmt.Sprintf("$%d", i+2))
	}
	rows, err := r.conn.Query(ctx, fmt.Sprintf(`SELECT ARRAY[%s] FROM postern.%s WHERE %s AND (%s) > (%s) ORDER BY %s LIMIT %d`,
		key, t.name, t.otherKey(), key, strings.Join(places, ", "), key, resealBatch), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]string])
}

// rows locks rows in the order in which everybody does, reads what they have now, and seals that anew.
func (r *resealer) rows(ctx context.Context, tx pgx.Tx, t sealedTable, keys [][]string) error {
	columns := make([][]string, len(t.key)) // the parts of the keys, each as an array
	var args []any
	var places []string
	for i := range t.key {
		for _, k := range keys {
			columns[i] = append(columns[i], k[i])
		}
		args, places = append(args, columns[i]), append(places, fmt.Sprintf("$%d::text[]", i+1))
	}
	if t.parents != "" {
		if _, err := tx.Exec(ctx, `LOCK TABLE postern.tenants, postern.users IN ROW EXCLUSIVE MODE`); err != nil { // as Registry.lock
			return err
		}
		if _, err := tx.Exec(ctx, t.parents, columns[0]); err != nil {
			return err
		}
	}
	key := strings.Join(t.key, ", ")
	found, err := tx.Query(ctx, fmt.Sprintf(`SELECT ARRAY[%s], ARRAY[%s] FROM postern.%s WHERE (%s) IN (SELECT * FROM unnest(%s)) ORDER BY %s FOR UPDATE`,
		key, strings.Join(t.fields, ", "), t.name, key, strings.Join(places, ", "), key), args...)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	var row []string
	var sealed [][]byte
	if _, err := pgx.ForEachRow(found, []any{&row, &sealed}, func() error {
		r.row(b, t, row, sealed)
		return nil
	}); err != nil {
		return err
	}
	if b.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}

// row queues what writes a row's values as they are sealed now.
func (r *resealer) row(b *pgx.Batch, t sealedTable, row []string, sealed [][]byte) {
	for i, value := range sealed {
		if value == nil || sealedBy(value) == r.keys.IDs()[0] {
			continue
		}
		at := place{table: t.name, row: slices.Clone(row), field: t.fields[i]}
		text, err := r.keys.open(at, value)
		if err != nil {
			r.closed = append(r.closed, fmt.Sprintf("%s of %s: %v", at.field, strings.Join(row, "/"), err))
			continue
		}
		args := []any{r.keys.seal(at, text)}
		var where []string
		for n, part := range row {
			args, where = append(args, part), append(where, fmt.Sprintf("%s = $%d", t.key[n], n+2))
		}
		b.Queue(fmt.Sprintf(`UPDATE postern.%s SET %s = $1 WHERE %s`, t.name, at.field, strings.Join(where, " AND ")), args...)
	}
}

// broken says which values do not open; nil: all do.
func (r *resealer) broken() error {
	if len(r.closed) == 0 {
		return nil
	}
	shown := r.closed[:min(len(r.closed), 10)]
	return errors.New(fmt.Sprintf("%d secrets do not open and stay as they are, put them right and run this again:\n  ", len(r.closed)) + strings.Join(shown, "\n  "))
}
