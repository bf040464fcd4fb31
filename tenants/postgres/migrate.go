// Making the store's tables, and bringing them to the version that this program knows. Forwards only.

package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
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

// known are the numbers of a program's migrations, in their order.
func known(scripts fs.FS) (all []int64) {
	entries, err := fs.ReadDir(scripts, ".")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// ours are the migrations of this program.
func ours() fs.FS {
	scripts, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return scripts
}

// schemaVersion is that of the newest migration.
func schemaVersion() int64 { return slices.Max(known(ours())) }

// errOlder says that the store's tables can be brought to the version of this program.
type errOlder struct{ is, want int64 }

func (e errOlder) Error() string {
	return fmt.Sprintf("the store has version %d of its tables, and this program needs %d: run postern store init", e.is, e.want)
}

// judgeVersions compares the migrations that a store has had with those that a program knows. Both are in order. nil: they are the same;
// errOlder: the later ones are missing. Everything else is not for this program to change.
func judgeVersions(has, knows []int64) error {
	newest := knows[len(knows)-1]
	for _, n := range has {
		if !slices.Contains(knows, n) {
			return fmt.Errorf("the store's tables had migration %d, which this program does not know, it knows those up to %d: run a newer program", n, newest)
		}
	}
	if slices.Equal(has, knows) {
		return nil
	}
	if !slices.Equal(has, knows[:len(has)]) {
		return fmt.Errorf("the store's tables had migrations %d, and not all before the last one: %s was changed by hand, or restored in part", has, versionTable)
	}
	is := int64(0)
	if len(has) > 0 {
		is = has[len(has)-1]
	}
	return errOlder{is, newest}
}

// readVersions returns the migrations that a store has had: ErrNoStore.
func readVersions(ctx context.Context, q querier) (all []int64, err error) {
	var there bool
	if err := q.QueryRow(ctx, `SELECT to_regclass('`+versionTable+`') IS NOT NULL`).Scan(&there); err != nil {
		return nil, fmt.Errorf("asking for the store's version: %w", err)
	}
	if !there {
		return nil, ErrNoStore
	}
	if err := q.QueryRow(ctx, `SELECT coalesce(array_agg(DISTINCT version_id ORDER BY version_id), '{}') FROM `+versionTable+` WHERE version_id > 0 AND is_applied`).Scan(&all); err != nil {
		return nil, fmt.Errorf("asking for the store's version: %w", err)
	}
	return all, nil
}

// Init makes the store's tables, or migrates them, and returns their version. Who comes while another one does waits. What cannot be
// migrated is not touched; each migration is a transaction.
func Init(ctx context.Context, conf *pgx.ConnConfig) (version int64, err error) {
	return initFrom(ctx, conf, ours())
}

func initFrom(ctx context.Context, conf *pgx.ConnConfig, scripts fs.FS) (version int64, err error) {
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return 0, fmt.Errorf("connecting to the store: %w", plain(err))
	}
	defer closeConn(conn) // which lets go of the lock
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrating)); err != nil {
		return 0, err
	}
	has, err := readVersions(ctx, conn)
	if err == nil {
		err = judgeVersions(has, known(scripts))
	}
	switch {
	case err == nil:
		return slices.Max(has), nil
	case !errors.Is(err, ErrNoStore) && !errors.As(err, new(errOlder)):
		return 0, err
	}
	if _, err := conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS postern`); err != nil {
		return 0, err
	}
	db := stdlib.OpenDB(*conf)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, scripts, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, err
	}
	if _, err := p.Up(ctx); err != nil {
		return 0, err
	}
	return p.GetDBVersion(ctx)
}
