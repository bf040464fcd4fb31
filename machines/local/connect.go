// The superuser's way in.

package local

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// connectLimit bounds one connection attempt: a stopped (SIGSTOP) server accepts and never answers.
const connectLimit = 10 * time.Second

// Connect returns a connection of the superuser to a database. The caller closes it.
func (c *Cluster) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	// A config must come from ParseConfig, which also reads the environment: what matters is set again below.
	cfg, err := pgx.ParseConfig("sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, fmt.Errorf("connection settings: %w", err)
	}
	cfg.Host, cfg.Port = "127.0.0.1", uint16(c.Port())
	cfg.User, cfg.Password, cfg.Database = c.opts.Superuser, c.password, database
	cfg.RuntimeParams = map[string]string{"application_name": "postern local cluster"}
	cfg.Fallbacks = nil
	cfg.ConnectTimeout = connectLimit
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", c, err)
	}
	return conn, nil
}

// Exec runs one or more statements as the superuser on a connection of their own.
func (c *Cluster) Exec(ctx context.Context, database, sql string) error {
	conn, err := c.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("%v: %w", c, err)
	}
	return nil
}
