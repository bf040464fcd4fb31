// The registry: the store as it is asked, over a few connections of its own. What changes it is in change.go and tokens.go.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

const (
	registryConns = 4 // at most
	registryIdle  = time.Minute
	callTimeout   = 10 * time.Second // of one call as a whole
	slowFor       = 15 * time.Second // without an answer a store counts as slow; then it is away
)

// registryParams bound what a call may wait for, and what others wait for a process that stands still in the middle of one.
var registryParams = [][2]string{{"lock_timeout", "5s"}, {"idle_in_transaction_session_timeout", "5s"}}

// Registry implements [tenants.Registry].
type Registry struct {
	asker
	opts  Options
	store *Store // that is followed here; nil: none is
	known knownTokens
}

// asker asks the store over a few connections, which are made when they are needed.
type asker struct {
	pool  *pgxpool.Pool
	log   *slog.Logger
	told  atomic.Bool               // the log has been told that the store is away
	heard atomic.Pointer[time.Time] // when the store has answered last; nil: never
}

func (a *asker) itself() *asker { return a }

// hears notes that the store answers.
func (a *asker) hears() {
	now := time.Now()
	a.heard.Store(&now)
}

// isLate reports whether an error says no more than that the store takes its time.
func (a *asker) isLate(err error) bool {
	if heard := a.heard.Load(); heard == nil || time.Since(*heard) >= slowFor {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || slices.Contains([]string{lockNotAvailable, idleTransaction}, sqlState(err))
}

var _ tenants.Registry = (*Registry)(nil)

// NewRegistry makes a registry of a store, which is connected to when it is needed. Of the options it takes Conn, Keys, Judge and
// Log. The caller closes it.
func NewRegistry(o Options) (*Registry, error) {
	pool, err := newPool(&o)
	if err != nil {
		return nil, err
	}
	return &Registry{asker: asker{pool: pool, log: o.Log}, opts: o}, nil
}

// newPool makes connections to a store, when they are needed.
func newPool(o *Options) (*pgxpool.Pool, error) {
	conf, err := pgxpool.ParseConfig(o.Conn.ConnString()) // for what a pool has beside: the rest is taken as it was read
	if err != nil {
		return nil, errors.New("the connection string of the store cannot be read a second time")
	}
	conf.ConnConfig = o.Conn.Copy()
	for _, p := range registryParams {
		if conf.ConnConfig.RuntimeParams[p[0]] == "" {
			conf.ConnConfig.RuntimeParams[p[0]] = p[1]
		}
	}
	conf.MaxConns, conf.MinConns, conf.MinIdleConns, conf.MaxConnIdleTime, conf.PingTimeout = registryConns, 0, 0, registryIdle, answerTimeout
	conf.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if err := prepare(ctx, conn); err != nil {
			return awayError{err}
		}
		if _, err := bounded(ctx, answerTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, checkKeys(ctx, conn, o.Keys) }); err != nil {
			return awayError{err}
		}
		return nil
	}
	return pgxpool.NewWithConfig(context.Background(), conf)
}

// Registry makes a registry of the store that is followed. The caller closes it.
func (s *Store) Registry() (*Registry, error) {
	r, err := NewRegistry(s.opts)
	if err == nil {
		r.store = s
	}
	return r, err
}

// Close closes the connections, and waits for the calls that use them.
func (r *Registry) Close() { r.pool.Close() }

// Tenant implements [tenants.Registry].
func (r *Registry) Tenant(ctx context.Context, id string) (tenants.Record, error) {
	return ask(ctx, r, func(ctx context.Context) (tenants.Record, error) {
		var found []tenants.Record
		err := readRows(ctx, r.pool, func(in row) error {
			record, err := r.record(&document.Reader{}, in)
			if err != nil {
				return r.unreadable(in.ID, err)
			}
			found = append(found, record)
			return nil
		}, selectThese, []string{sane(id)})
		if err == nil && len(found) == 0 {
			err = tenants.ErrNoSuchTenant
		}
		if err != nil {
			return tenants.Record{}, err
		}
		return found[0], nil
	})
}

// Tenants implements [tenants.Registry]. What cannot be read is left out, and told in the log: it is in force nowhere in this form.
func (r *Registry) Tenants(ctx context.Context, after string, limit int) ([]tenants.Record, error) {
	return ask(ctx, r, func(ctx context.Context) (found []tenants.Record, err error) {
		reader := &document.Reader{}
		for rows := limit; len(found) < limit && rows == limit; { // again if some were left out
			rows = 0
			if err := readRows(ctx, r.pool, func(in row) error {
				rows++
				after = in.ID
				record, err := r.record(reader, in)
				if err != nil {
					_ = r.unreadable(in.ID, err)
				} else if len(found) < limit {
					found = append(found, record)
				}
				return nil
			}, selectPage, sane(after), limit); err != nil {
				return nil, err
			}
		}
		return found, nil
	})
}

// record is what can be read of a row, and why not all of it.
func (r *Registry) record(reader *document.Reader, in row) (tenants.Record, error) {
	t, lost := readable(reader, in, r.opts.Keys)
	return tenants.Record{Tenant: t, Revision: in.Mark, Version: in.version, Changed: in.at}, lost
}

// unreadable tells the log why a tenant cannot be read, and the caller that it cannot.
func (r *Registry) unreadable(id string, why error) error {
	r.opts.Log.Error("a tenant of the store cannot be read", "tenant", id, "error", why)
	return tenants.ErrUnreadable
}

// ask bounds a call, and says so if the store is away, or slower than the caller can wait.
func ask[T any](ctx context.Context, of interface{ itself() *asker }, f func(context.Context) (T, error)) (T, error) {
	r := of.itself()
	out, err := bounded(ctx, callTimeout, f)
	if err == nil || errors.Is(ctx.Err(), context.Canceled) || !isAway(err) {
		if err == nil {
			r.told.Store(false)
			r.hears()
		}
		return out, err
	}
	away := awayBecause(err)
	if r.isLate(err) {
		away.cause = fmt.Errorf("%w: %w", tenants.ErrLate, away.cause)
	}
	if sqlState(err) == readOnlyServer {
		r.pool.Reset() // connections to a server that is no primary any more are of no use: the next ones find the one that is
	}
	if !r.told.Swap(true) {
		r.log.Error("the store of tenants cannot be asked", "error", away.cause)
	}
	return out, away
}

// awayError is tenants.ErrAway with a cause that is for the log alone.
type awayError struct{ cause error }

// Error implements error.
func (e awayError) Error() string { return tenants.ErrAway.Error() }

func (e awayError) Unwrap() []error { return []error{tenants.ErrAway, e.cause} }

func awayBecause(err error) awayError {
	var away awayError
	if !errors.As(err, &away) {
		away = awayError{plain(err)}
	}
	return away
}

// Explain is an error of a registry for the operator's own eyes: if it is that the store is away, with the cause.
func Explain(err error) error {
	if err == nil || !isAway(err) {
		return err
	}
	return fmt.Errorf("the store of tenants cannot be asked: %w", awayBecause(err).cause)
}

// isAway reports whether an error says that the store cannot be had now: a broken connection, a server that ends, starts, is
// full or a standby, a lock that somebody does not let go of.
func isAway(err error) bool {
	var connecting *pgconn.ConnectError
	state := sqlState(err)
	var network net.Error
	switch {
	case errors.As(err, new(refusal)):
		return false
	case errors.Is(err, tenants.ErrAway), errors.As(err, &connecting):
		return true
	case state != "":
		return slices.Contains([]string{"08", "53", "57", "58"}, state[:2]) || slices.Contains([]string{readOnlyServer, idleTransaction, lockNotAvailable}, state)
	}
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) ||
		pgconn.SafeToRetry(err) || pgconn.Timeout(err)
}

const (
	readOnlyServer   = "25006"
	idleTransaction  = "25P03" // for too long
	lockNotAvailable = "55P03" // in time
)

// sqlState is the code of an error that the server has sent; "": none has.
func sqlState(err error) string {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return ""
	}
	return server.Code
}
