// Making roles and databases in a running cluster.

package local

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// applyLimit bounds the making of roles and databases; a database is a copy of some megabytes.
const applyLimit = 30 * time.Second

// discreet are settings of a session that handles secrets. The statements must not be written down anywhere: not in the
// server's log (whatever is below PANIC stays out of it), not in pg_stat_activity, not in pg_stat_statements (a setting of
// an extension that is absent is taken without a word). A literal must mean what literal says. And what is committed must
// survive a kill of the server even where durability was given up, because the digests of it do.
var discreet = [][2]string{
	{"log_statement", "none"},
	{"log_min_messages", "panic"},
	{"log_min_error_statement", "panic"},
	{"log_min_duration_statement", "-1"},
	{"log_min_duration_sample", "-1"},
	{"log_transaction_sample_rate", "0"},
	{"log_duration", "off"},
	{"track_activities", "off"},
	{"pg_stat_statements.track_utility", "off"},
	{"client_encoding", "UTF8"},
	{"standard_conforming_strings", "on"},
	{"password_encryption", "scram-sha-256"},
	{"default_transaction_read_only", "off"},
	{"synchronous_commit", "local"},
}

// apply makes what w wants and was not made before. If that is nothing, it does not even connect.
func (c *Cluster) apply(ctx context.Context, w wanted) (made wanted, err error) {
	applied, err := c.applied()
	if err != nil {
		return wanted{}, err
	}
	missing := w.missing(c.password, applied)
	if len(missing.roles)+len(missing.databases) == 0 {
		return wanted{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	conn, err := c.Connect(ctx, "postgres")
	if err != nil {
		return wanted{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	owner := ""
	if len(w.roles) > 0 {
		owner = w.roles[0].Name
	}
	if err := ensure(ctx, conn, missing, owner); err != nil {
		return wanted{}, fmt.Errorf("roles and databases: %w", err)
	}
	return missing, c.write(appliedName, w.digests(c.password))
}

// ensure makes roles and databases, or gives the roles that exist their secret. A database that exists stays as it is.
func ensure(ctx context.Context, conn *pgx.Conn, w wanted, owner string) error {
	var set []string
	for _, s := range discreet {
		set = append(set, fmt.Sprintf("SET %s = %s", s[0], literal(s[1])))
	}
	if err := together(ctx, conn, set); err != nil {
		return err
	}
	names := make([]string, len(w.roles))
	for i, r := range w.roles {
		names[i] = r.Name
	}
	there, err := existing(ctx, conn, "select rolname::text from pg_catalog.pg_roles where rolname = any($1)", names)
	if err != nil {
		return err
	}
	var roles []string
	for _, r := range w.roles {
		roles = append(roles, r.statement(slices.Contains(there, r.Name)))
	}
	if err := together(ctx, conn, roles); err != nil {
		return err
	}
	there, err = existing(ctx, conn, "select datname::text from pg_catalog.pg_database where datname = any($1)", w.databases)
	if err != nil {
		return err
	}
	for _, d := range w.databases {
		if slices.Contains(there, d) {
			continue
		}
		create := "CREATE DATABASE " + identifier(d)
		if owner != "" {
			create += " OWNER " + identifier(owner)
		}
		if err := together(ctx, conn, []string{create}); err != nil { // alone: it is not allowed in a transaction
			return err
		}
		there = append(there, d) // it may be wanted twice
	}
	return nil
}

func (r Role) statement(exists bool) string {
	verb, password := "CREATE", "NULL"
	if exists {
		verb = "ALTER"
	}
	if r.Secret != "" {
		password = literal(r.Secret)
	}
	return fmt.Sprintf("%s ROLE %s LOGIN PASSWORD %s", verb, identifier(r.Name), password)
}

// together sends statements in one message, which makes them one transaction.
func together(ctx context.Context, conn *pgx.Conn, statements []string) error {
	if len(statements) == 0 {
		return nil
	}
	_, err := conn.PgConn().Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	return err
}

func existing(ctx context.Context, conn *pgx.Conn, query string, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	rows, err := conn.Query(ctx, query, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a text under standard_conforming_strings.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
