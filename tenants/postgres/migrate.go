// Making the store's tables, and bringing them to the version that this program knows. Forwards only.

package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	versionTable = "postern.schema_version"
	// migrating is the advisory lock of who migrates: a number that nobody else has for anything else.
	migrating = 0x706f737465726e // "postern"
)

// schemaVersion is that of the newest migration.
func schemaVersion() (newest int64) {
	entries, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		newest = max(newest, n)
	}
	return newest
}

func newerStore(is int64) error {
	return fmt.Errorf("the store has version %d of its tables, and this program knows %d: run a newer program", is, schemaVersion())
}

// Init makes the store's tables, or migrates them, and returns their version. Who comes while another one does waits.
func Init(ctx context.Context, conf *pgx.ConnConfig) (version int64, err error) {
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return 0, fmt.Errorf("connecting to the store: %w", plain(err))
	}
	defer closeConn(conn) // which lets go of the lock
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrating)); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS postern`); err != nil {
		return 0, err
	}
	db := stdlib.OpenDB(*conf)
	defer func() { err = errors.Join(err, db.Close()) }()
	scripts, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, scripts, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, err
	}
	is, err := p.GetDBVersion(ctx)
	if err != nil {
		return 0, err
	}
	if is > schemaVersion() {
		return 0, newerStore(is)
	}
	if _, err := p.Up(ctx); err != nil {
		return 0, err
	}
	return p.GetDBVersion(ctx)
}
