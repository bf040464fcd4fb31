// Changing the key of the store: a new one is made known to every node, then all secrets are sealed with it, then the old one can
// go. It can be interrupted anywhere, and goes on when it is started again.

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/tenants"
)

// RotateOptions say how the key is changed.
type RotateOptions struct {
	Conn    *pgx.ConnConfig
	KeyFile string
	To      string    // id of a key that the file has already; "": a new one is made
	DryRun  bool      // only say what there is to do
	Out     io.Writer // is told what happens, and who is waited for

	beforeBatch func(context.Context) error // in tests
}

// rotating is the advisory lock of who changes the key, two behind that of who migrates.
const rotating = migrating + 2

const askNodesEvery = time.Second

// rotation is a change of the key under way.
type rotation struct {
	RotateOptions
	conn *pgx.Conn
	keys *Keys  // of the file; all open, and key seals
	key  string // id of the new one
}

// beAlone takes the lock of who changes the key. Who was interrupted and starts again finds the lock taken for a moment: the server
// may not have noticed yet that the connection is gone.
func beAlone(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SET lock_timeout = '5s'`)
	if err == nil {
		_, err = conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(rotating))
	}
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && refused.Code == lockNotAvailable {
		return errors.New("somebody else is changing the key of the store at the moment")
	}
	if err == nil {
		_, err = conn.Exec(ctx, `RESET lock_timeout`)
	}
	return err
}

// RotateKey changes the key of the store.
func RotateKey(ctx context.Context, o RotateOptions) error {
	conn, err := connect(ctx, o.Conn)
	if err != nil {
		return err
	}
	defer closeConn(conn) // which lets go of the lock
	if err := beAlone(ctx, conn); err != nil {
		return err
	}
	r := &rotation{RotateOptions: o, conn: conn}
	if r.beforeBatch == nil {
		r.beforeBatch = func(context.Context) error { return nil }
	}
	if err := r.begin(ctx); err != nil || o.DryRun {
		return err
	}
	if err := r.await(ctx, "to have key "+r.key+": give them the key file", func(n tenants.Node) string {
		if slices.Contains(n.Keys, r.key) {
			return ""
		}
		return "has " + strings.Join(n.Keys, ", ")
	}); err != nil {
		return err
	}
	if err := r.promote(); err != nil {
		return err
	}
	if err := r.reseal(ctx); err != nil {
		return err
	}
	if err := r.await(ctx, "to seal with key "+r.key+": give them the key file again, it is the first one there now", func(n tenants.Node) string {
		if n.Keys[0] == r.key {
			return ""
		}
		return "seals with " + n.Keys[0]
	}); err != nil {
		return err
	}
	if err := r.reseal(ctx); err != nil { // what they have sealed meanwhile
		return err
	}
	if err := r.await(ctx, "to write their cache files anew", func(n tenants.Node) string {
		if n.Cache == "" || n.Cache == r.key {
			return ""
		}
		return "has one that needs " + n.Cache
	}); err != nil {
		return err
	}
	return r.end(ctx)
}

func (r *rotation) say(format string, args ...any) { fmt.Fprintf(r.Out, format+"\n", args...) }

// begin finds out which key is the new one, and makes it known.
func (r *rotation) begin(ctx context.Context) (err error) {
	if r.keys, err = ReadKeys(r.KeyFile); err != nil {
		return err
	}
	has := func(id string) bool { return slices.Contains(r.keys.IDs(), id) }
	err = r.conn.QueryRow(ctx, `SELECT key FROM postern.rotation`).Scan(&r.key)
	switch fresh := errors.Is(err, pgx.ErrNoRows); {
	case err != nil && !fresh:
		return err
	case !fresh && r.To != "" && r.To != r.key:
		return fmt.Errorf("the store is being changed to key %s: that has to end first", r.key)
	case !fresh && !has(r.key):
		return fmt.Errorf("the store is being changed to key %s, which %s does not have: go on where it was made", r.key, r.KeyFile)
	case !fresh:
		r.say("the store is being changed to key %s: going on", r.key)
	case r.To != "" && !has(r.To):
		return fmt.Errorf("%s has no key %s", r.KeyFile, r.To)
	default:
		if r.key = r.To; r.key == "" {
			if r.key, err = r.nextID(ctx); err != nil {
				return err
			}
		}
		if r.DryRun {
			break
		}
		if r.To == "" {
			if err := addKey(r.KeyFile, r.key); err != nil {
				return fmt.Errorf("%w (add a line by hand, and name its key with --to)", err)
			}
			r.say("made key %s, the second one in %s", r.key, r.KeyFile)
		}
		if err := r.announce(ctx); err != nil {
			return err
		}
	}
	if r.DryRun {
		return r.tellPlan(ctx)
	}
	all, err := ReadKeys(r.KeyFile)
	if err == nil {
		r.keys = all.sealingWith(r.key)
	}
	return err
}

// nextID is k and a number that no key has, nor anything that was sealed.
func (r *rotation) nextID(ctx context.Context) (string, error) {
	ids := slices.Clone(r.keys.IDs())
	nodes, err := readNodes(ctx, r.conn)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		ids = append(append(ids, n.Keys...), n.Cache)
	}
	most := 0
	for _, id := range ids {
		if n, err := strconv.Atoi(strings.TrimPrefix(id, "k")); err == nil {
			most = max(most, n)
		}
	}
	return fmt.Sprint("k", most+1), nil
}

// announce writes down that the key is being changed.
func (r *rotation) announce(ctx context.Context) error {
	e := tenants.Entry{By: tenants.Actor{Name: "cli"}, Action: "store.rotate-key", Outcome: tenants.OutcomeDone,
		Changes: []tenants.Difference{{Path: "key", Old: strconv.Quote(r.keys.IDs()[0]), New: strconv.Quote(r.key)}}}
	return pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO postern.rotation (key) VALUES ($1)`, r.key); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insertEntry, entryValues(e)...)
		return err
	})
}

// tellPlan says what there is to do.
func (r *rotation) tellPlan(ctx context.Context) error {
	rows, err := countOthers(ctx, r.conn, r.key)
	if err != nil {
		return err
	}
	nodes, err := readNodes(ctx, r.conn)
	if err != nil {
		return err
	}
	r.say("would seal %d rows with key %s", rows, r.key)
	for _, n := range nodes {
		r.say("node %s has %s%s", n.Name, strings.Join(n.Keys, ", "), silence(n))
	}
	return nil
}

func silence(n tenants.Node) string {
	if !n.Silent {
		return ""
	}
	return fmt.Sprintf(" (silent since %s: if it does not come back, postern store forget-node %s)", n.Seen.Format(time.DateTime), n.Name)
}

// await waits until there is nothing to say against any node. A silent one counts: it may come back with what it had.
func (r *rotation) await(ctx context.Context, what string, lacks func(tenants.Node) string) error {
	tick := time.NewTicker(askNodesEvery)
	defer tick.Stop()
	var told []string
	for {
		nodes, err := readNodes(ctx, r.conn)
		if err != nil {
			return err
		}
		var waiting []string
		for _, n := range nodes {
			if why := lacks(n); why != "" {
				waiting = append(waiting, fmt.Sprintf("  %s %s%s", n.Name, why, silence(n)))
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		if !slices.Equal(waiting, told) {
			r.say("waiting for nodes %s\n%s", what, strings.Join(waiting, "\n"))
			told = waiting
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// promote puts the new key at the first place of the file.
func (r *rotation) promote() error {
	is, err := ReadKeys(r.KeyFile)
	if err != nil || is.IDs()[0] == r.key {
		return err
	}
	if err := putKeyFirst(r.KeyFile, r.key); err != nil {
		return fmt.Errorf("%w (put the line of key %s first by hand, and start this again)", err, r.key)
	}
	r.say("key %s is the first one in %s now", r.key, r.KeyFile)
	return nil
}

// reseal goes through all secrets until none is sealed with another key.
func (r *rotation) reseal(ctx context.Context) error {
	for {
		rows, err := countOthers(ctx, r.conn, r.key)
		if err != nil || rows == 0 {
			return err
		}
		done, told := 0, time.Now()
		s := &resealer{conn: r.conn, keys: r.keys, before: r.beforeBatch, done: func(n int) {
			if done += n; time.Since(told) > time.Second {
				told = time.Now()
				r.say("sealed %d of %d rows", done, rows)
			}
		}}
		if err := s.all(ctx); err != nil {
			return err
		}
		r.say("sealed %d rows with key %s", done, r.key)
		if err := s.broken(); err != nil {
			return err
		}
	}
}

// end says that the other keys are not needed any more.
func (r *rotation) end(ctx context.Context) error {
	if _, err := r.conn.Exec(ctx, `DELETE FROM postern.rotation`); err != nil {
		return err
	}
	if others := r.keys.IDs()[1:]; len(others) > 0 {
		r.say("nothing needs %s any more: take it out of every key file, but keep it for as long as you keep backups of before", strings.Join(others, ", "))
	}
	return nil
}
