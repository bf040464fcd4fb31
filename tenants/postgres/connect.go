// Connections to the store, and whether it is one that we know.

package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/files"
)

const (
	maxDSN         = 64 << 10
	connectTimeout = 5 * time.Second // unless the connection string says otherwise
)

// ReadDSN reads a file with a connection string. Errors do not repeat it: it may hold a password.
func ReadDSN(path string) (*pgx.ConnConfig, error) {
	text, err := files.Read(path, maxDSN)
	if err != nil {
		return nil, fmt.Errorf("connection string of the store: %w", err)
	}
	return parseDSN(path, string(bytes.TrimSpace(text)))
}

func parseDSN(path, text string) (*pgx.ConnConfig, error) {
	conf, err := pgx.ParseConfig(text)
	if err != nil || text == "" {
		return nil, fmt.Errorf("%s holds no connection string, such as postgres://postern@db.internal/postern?sslmode=verify-full", path)
	}
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = connectTimeout
	}
	if conf.ValidateConnect == nil { // of several hosts, the one that can be listened to and written
		conf.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	conf.DialFunc, conf.LookupFunc = dialer(conf.ConnectTimeout).DialContext, newNames(conf.LookupFunc).lookup
	if conf.RuntimeParams["application_name"] == "" {
		conf.RuntimeParams["application_name"] = "postern"
	}
	return conf, nil
}

// connect opens a connection to a store that this program knows.
func connect(ctx context.Context, conf *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("connecting to the store: %w", plain(err))
	}
	if err := prepare(ctx, conn); err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// listen opens a connection that is told of what others notify.
func listen(ctx context.Context, conf *pgx.ConnConfig, channel string) (*pgx.Conn, error) {
	conn, err := connect(ctx, conf)
	if err != nil {
		return nil, err
	}
	if _, err := bounded(ctx, answerTimeout, func(ctx context.Context) (pgconn.CommandTag, error) { return conn.Exec(ctx, "LISTEN "+channel) }); err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// sessionParams are what a session has unless the connection string says otherwise. Its statements are not compiled: they read a few rows, but
// while the tables have no statistics, as after an import, many are expected, and compiling takes a second each time. The server lets go of
// it within moments if this process is not reached any more: its locks, and its place among the connections that there may be.
var sessionParams = [][2]string{{"jit", "off"}, {"tcp_keepalives_idle", "5"}, {"tcp_keepalives_interval", "2"}, {"tcp_keepalives_count", "3"}, {"tcp_user_timeout", "10000"}}

// prepare makes a new connection ours, if it is to a store that this program knows.
func prepare(ctx context.Context, conn *pgx.Conn) error {
	_, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) {
		var set strings.Builder
		for _, p := range sessionParams {
			if conn.Config().RuntimeParams[p[0]] == "" {
				fmt.Fprintf(&set, "SET %s = %s;", p[0], p[1])
			}
		}
		if _, err := conn.Exec(ctx, set.String()); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, checkSchema(ctx, conn)
	})
	return err
}

// plain is an error of connecting in one line and without the connection's settings, which pgx repeats, though not the password.
func plain(err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server
	}
	var connecting *pgconn.ConnectError
	if !errors.As(err, &connecting) {
		return err
	}
	var why []string
	for _, one := range each(connecting.Unwrap()) {
		var network *net.OpError // has the address, and no more
		text := one.Error()
		if errors.As(one, &network) {
			text = network.Error()
		}
		if !slices.Contains(why, text) { // with TLS and without it, say
			why = append(why, text)
		}
	}
	return unreachable{strings.Join(why, "; "), err}
}

// each takes joined errors apart.
func each(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

// unreachable is an error of connecting in our words.
type unreachable struct {
	text  string
	cause error
}

// Error implements error.
func (e unreachable) Error() string { return e.text }

func (e unreachable) Unwrap() error { return e.cause }

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// ErrNoStore says that the database holds no store of tenants.
var ErrNoStore = errors.New("the database holds no store of tenants: run postern store init")

func checkSchema(ctx context.Context, conn *pgx.Conn) error {
	has, err := readVersions(ctx, conn)
	if err != nil {
		return err
	}
	return judgeVersions(has, known(ours()))
}

// selectHead asks where the feed ends. The epoch is what versions belong to: see the package's documentation.
const selectHead = `SELECT f.version, concat_ws('/', (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
	(SELECT oid FROM pg_database WHERE datname = current_database()), f.tableoid) FROM postern.feed f`

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readHead(ctx context.Context, q querier) (h head, err error) {
	err = q.QueryRow(ctx, selectHead).Scan(&h.version, &h.epoch)
	return h, err
}

// readRows calls each for every row of a query, as they come.
func readRows(ctx context.Context, q querier, each func(row) error, sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	return scanRows(rows, each)
}

func scanRows(rows pgx.Rows, each func(row) error) error {
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.ID, &r.version, &r.Mark, &r.at, &r.Document, &r.Secrets, &r.Users); err != nil {
			return err
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

// snapshot runs f in a transaction that sees one moment of the store.
func snapshot(ctx context.Context, conn *pgx.Conn, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, f)
}

// checkKeys opens some of the store's secrets until one opens: with another key file none would, and better all tenants stay than none.
// What does not open beside one that does is its tenant's affair.
func checkKeys(ctx context.Context, conn *pgx.Conn, k *Keys) error {
	rows, err := conn.Query(ctx, `SELECT tenant, name, field, sealed FROM postern.users,
		LATERAL (VALUES ('verifier', verifier), ('password', password), ('server_password', server_password)) v (field, sealed)
		WHERE sealed IS NOT NULL
		UNION ALL SELECT id, '', field, sealed FROM postern.tenants,
		LATERAL (VALUES ('client_key', client_key), ('auth_query_password', auth_query_password), ('machine_token', machine_token),
			('service_password', service_password)) v (field, sealed)
		WHERE sealed IS NOT NULL LIMIT 100`)
	if err != nil {
		return fmt.Errorf("opening a secret of the store: %w", err)
	}
	var tenant, user, field string
	var sealed []byte
	var lost error
	opened := false
	if _, err := pgx.ForEachRow(rows, []any{&tenant, &user, &field, &sealed}, func() error {
		at := userPlace(tenant, user, field)
		if user == "" {
			at = tenantPlace(tenant, field)
		}
		_, err := k.open(at, sealed)
		opened, lost = opened || err == nil, cmp.Or(lost, err)
		return nil
	}); err != nil {
		return fmt.Errorf("opening a secret of the store: %w", err)
	}
	if lost != nil && !opened {
		return fmt.Errorf("opening a secret of the store: %w", lost)
	}
	return nil
}
