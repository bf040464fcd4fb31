// What a backup of a store of tenants has.

package harness

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// StoreDump is all that a backup of the store has, binary columns in hex and as the text that they may be.
func StoreDump(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT format('SELECT concat(string_agg(concat(t %s), E''\n'')) FROM postern.%I t',
		(SELECT string_agg(format(', encode(%I, ''escape'')', attname), '') FROM pg_attribute WHERE attrelid = c.oid AND atttypid = 'bytea'::regtype AND attnum > 0 AND NOT attisdropped), relname)
		FROM pg_class c WHERE relnamespace = 'postern'::regnamespace AND relkind = 'r' ORDER BY relname`)
	if err != nil {
		t.Fatal(err)
	}
	queries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(queries) < 8 {
		t.Fatalf("%d tables, %v", len(queries), err)
	}
	var all strings.Builder
	for _, sql := range queries {
		var text string
		if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		all.WriteString(text)
	}
	return all.String()
}
