// The audit log: who did what. Rows are only added; each is chained to the one before it, so that one that was changed or taken out
// later is found.

package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

const (
	maxText = 1000   // bytes, before some are replaced
	maxPage = 10_000 // entries
)

// insertEntry adds a row. It takes the lock that is the last one of a transaction: nothing but the commit may follow.
const insertEntry = `INSERT INTO postern.audit (actor, token, address, request, action, tenant, outcome, changes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

// auditChange is a tenants.Difference as it is written down.
type auditChange struct {
	Path   string `json:"path"`
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"`
	Secret bool   `json:"secret,omitempty"`
}

func entryValues(e tenants.Entry) []any {
	address := ""
	if e.By.Address.IsValid() {
		address = e.By.Address.String()
	}
	changes := []auditChange{}
	for _, d := range e.Changes {
		changes = append(changes, auditChange(d))
	}
	return []any{sane(e.By.Name), sane(e.By.Token), address, sane(e.By.Request), sane(e.Action), sane(e.Tenant),
		sane(e.Outcome), string(document.Encode(changes))}
}

// sane is what a text column takes of a text that may be a stranger's. It makes no text the same as a sane one: what is put in the
// place of what cannot be stands in no id.
func sane(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s[:min(len(s), maxText)], "\x00", "\uFFFD"), "\uFFFD")
}

// Note implements [tenants.Registry].
func (r *Registry) Note(ctx context.Context, e tenants.Entry) error {
	_, err := ask(ctx, r, func(ctx context.Context) (struct{}, error) {
		_, err := r.pool.Exec(ctx, insertEntry, entryValues(e)...)
		return struct{}{}, err
	})
	return err
}

// The ways to read the log. Changes are read as the text that the chain is of.
const (
	auditColumns   = `SELECT number, at, actor, token, address, request, action, tenant, outcome, version, changes::text, chain FROM postern.audit`
	selectAudit    = auditColumns + ` WHERE number < $1 ORDER BY number DESC LIMIT $2`
	selectAuditOf  = auditColumns + ` WHERE number < $1 AND tenant = $3 ORDER BY number DESC LIMIT $2`
	selectAuditAll = auditColumns + ` ORDER BY number`
)

// Audit implements [tenants.Registry].
func (r *Registry) Audit(ctx context.Context, tenant string, before int64, limit int) ([]tenants.Entry, error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	sql, args := selectAudit, []any{before, min(limit, maxPage)}
	if tenant != "" {
		sql, args = selectAuditOf, append(args, sane(tenant))
	}
	return ask(ctx, r, func(ctx context.Context) (all []tenants.Entry, err error) {
		err = readAudit(ctx, r.pool, func(a auditRow) error {
			e, err := a.entry()
			all = append(all, e)
			return err
		}, sql, args...)
		if err == nil {
			err = readInForce(ctx, r.pool, all)
		}
		return all, err
	})
}

// auditRow is a row of the log.
type auditRow struct {
	number, version                                         int64
	at                                                      time.Time
	actor, token, address, request, action, tenant, outcome string
	changes                                                 string
	chain                                                   []byte
}

func readAudit(ctx context.Context, q querier, each func(auditRow) error, sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	var a auditRow
	_, err = pgx.ForEachRow(rows, []any{&a.number, &a.at, &a.actor, &a.token, &a.address, &a.request, &a.action, &a.tenant, &a.outcome, &a.version, &a.changes, &a.chain},
		func() error { return each(a) })
	return err
}

func (a auditRow) entry() (tenants.Entry, error) {
	e := tenants.Entry{Number: a.number, At: a.at, By: tenants.Actor{Name: a.actor, Token: a.token, Request: a.request}, Action: a.action, Tenant: a.tenant,
		Outcome: a.outcome, Version: a.version, Chain: hex.EncodeToString(a.chain)}
	if a.address != "" {
		var err error
		if e.By.Address, err = netip.ParseAddrPort(a.address); err != nil {
			return e, err
		}
	}
	var changes []auditChange
	if err := json.Unmarshal([]byte(a.changes), &changes); err != nil {
		return e, err
	}
	for _, c := range changes {
		e.Changes = append(e.Changes, tenants.Difference(c))
	}
	return e, nil
}

// AuditError says where the log is not what was written.
type AuditError struct {
	Number int64 // of the first row that is not right; what is before it is
	Why    string
}

// Error implements error.
func (e *AuditError) Error() string {
	return fmt.Sprintf("row %d of the audit log is not what was written: %s", e.Number, e.Why)
}

// VerifyAudit reads the whole log and returns its last entry (number 0: it is empty), or an *AuditError. It computes the chain by itself. The
// chain tells that a row was changed or taken out of the middle. Whoever can do anything in the database can write a whole new
// log, or take the end away: that shows in a number and its chain that were kept elsewhere.
func (r *Registry) VerifyAudit(ctx context.Context) (last tenants.Entry, err error) {
	var before auditRow
	err = readAudit(ctx, r.pool, func(a auditRow) error {
		switch {
		case a.number != before.number+1:
			return &AuditError{a.number, fmt.Sprintf("the one before it has number %d", before.number)}
		case !bytes.Equal(a.chain, a.link(before.chain)):
			return &AuditError{a.number, "its chain is another"}
		}
		before = a
		return nil
	}, selectAuditAll)
	if err != nil || before.number == 0 {
		return last, err
	}
	return before.entry()
}

// link is the chain that the row must have, given that of the row before. Each text is hashed by itself, so that none can be
// moved from one column to the next. It is what the trigger does, see the migration.
func (a auditRow) link(before []byte) []byte {
	sum := sha256.New()
	sum.Write(before)
	for _, text := range []string{strconv.FormatInt(a.number, 10), a.at.UTC().Format("2006-01-02 15:04:05.000000"), a.actor, a.token, a.address, a.request,
		a.action, a.tenant, a.outcome, strconv.FormatInt(a.version, 10), a.changes} {
		part := sha256.Sum256([]byte(text))
		sum.Write(part[:])
	}
	return sum.Sum(nil)
}
