package postgres

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// verified judges the whole audit log.
func (w *world) verified(r *Registry) {
	w.t.Helper()
	last := w.entries(r, 1)[0]
	if got, err := r.VerifyAudit(w.t.Context()); err != nil || got.Number != last.Number || got.Chain != last.Chain {
		w.t.Errorf("verified up to %+v, %v; the last is %+v", got, err, last)
	}
}

// TestAuditIsOnlyAddedTo: nobody changes it by mistake; who does so on purpose is found, at the first row that is not what it was.
func TestAuditIsOnlyAddedTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	if got, err := r.VerifyAudit(t.Context()); err != nil || got.Number != 0 {
		t.Errorf("an empty one: %+v, %v", got, err)
	}
	for i := range 8 {
		if err := r.Note(t.Context(), tenants.Entry{By: operator, Action: "test", Tenant: fmt.Sprint("t", i), Outcome: "no", Changes: []tenants.Difference{{Path: "a", Old: "1", New: `"ä"`}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Change(t.Context(), put(sample("acme"), 0)); err != nil {
		t.Fatal(err)
	}
	w.verified(r)
	conn := w.connect()
	if err := conn.QueryRow(t.Context(), documentedQuery(t)).Scan(new(int64)); !errors.Is(err, pgx.ErrNoRows) {
		t.Error(err)
	}
	for _, sql := range []string{`UPDATE postern.audit SET actor = 'nobody' WHERE number = 3`, `DELETE FROM postern.audit WHERE number = 3`, `TRUNCATE postern.audit`} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is not refused", sql)
		}
	}
	w.exec(`GRANT UPDATE, DELETE, TRUNCATE ON postern.audit TO CURRENT_USER`)
	for _, sql := range []string{`UPDATE postern.audit SET actor = 'nobody' WHERE number = 3`, `DELETE FROM postern.audit WHERE number = 3`, `TRUNCATE postern.audit`} {
		if _, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "only added to") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	w.exec(`ALTER TABLE postern.audit DISABLE TRIGGER USER`)
	for _, column := range []string{"at = at + interval '1 us'", "actor = actor || '.'", "token = 'x'", "address = '198.51.100.8:4711'", "request = ''", "action = 'tes'", "tenant = 't'",
		"outcome = 'done'", "version = 1", "changes = '[]'", "chain = sha256(chain)", "actor = actor || token, token = ''"} {
		w.broken(r, 3, `UPDATE postern.audit SET `+column+` WHERE number = 3`)
	}
	w.broken(r, 4, `DELETE FROM postern.audit WHERE number = 3`)
	w.broken(r, 4, `UPDATE postern.audit SET number = 100 WHERE number = 3`)
	w.broken(r, 1, `UPDATE postern.audit SET chain = sha256('') WHERE number = 1`)
	var rows []auditRow
	if err := readAudit(t.Context(), conn, func(a auditRow) error { rows = append(rows, a); return nil }, selectAuditAll); err != nil {
		t.Fatal(err)
	}
	forged := rows[8] // a chain that is right, behind a gap
	forged.number = 12
	w.broken(r, 12, fmt.Sprintf(`UPDATE postern.audit SET number = 12, chain = '\x%x' WHERE number = 9`, forged.link(rows[7].chain)))
	w.broken(r, 10, `INSERT INTO postern.audit SELECT number + 1, at, actor, token, address, request, action, tenant, outcome, version, changes, chain FROM postern.audit WHERE number = 9`)
}

// broken does something to the log that is found at a row, and undoes it.
func (w *world) broken(r *Registry, at int64, sql string) {
	w.t.Helper()
	w.exec(`CREATE TABLE kept AS TABLE postern.audit`)
	w.exec(sql)
	var found *AuditError
	if _, err := r.VerifyAudit(w.t.Context()); !errors.As(err, &found) || found.Number != at {
		w.t.Errorf("%s: %v, want row %d", sql, err, at)
	}
	var shown int64
	if err := w.connect().QueryRow(w.t.Context(), documentedQuery(w.t)).Scan(&shown); err != nil || shown != at {
		w.t.Errorf("%s: the documentation's query finds row %d, %v, want %d", sql, shown, err, at)
	}
	w.exec(`TRUNCATE postern.audit`)
	w.exec(`INSERT INTO postern.audit TABLE kept`)
	w.exec(`DROP TABLE kept`)
	w.verified(r)
}

// documentedQuery is what docs/operate.md says finds the first row that is not right.
func documentedQuery(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```sql\n")
	query, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/operate.md has no query")
	}
	return query
}

// TestAuditTakesAnyText: what strangers have sent is written down, cut to what is sensible.
func TestAuditTakesAnyText(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	r := w.registry()
	for _, text := range []string{"", "\x00", "a\xffb", strings.Repeat("ä", 5000), `{"a": 'b'}`, "x" + strings.Repeat("€", 400)} {
		e := tenants.Entry{By: tenants.Actor{Name: text, Token: text, Request: text}, Action: text, Tenant: text, Outcome: text}
		if err := r.Note(t.Context(), e); err != nil {
			t.Errorf("%.20q: %v", text, err)
		} else if got := w.entries(r, 1)[0]; len(got.By.Name) > 2*maxText || (got.By.Name == "") != (text == "") || got.Outcome != got.By.Name || got.Tenant != got.Action || got.By.Address.IsValid() {
			t.Errorf("%.20q: %+v", text, got)
		}
	}
	w.verified(r)
}
