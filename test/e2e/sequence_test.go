// Sequences where clients share servers: whoever reads what was drawn gets its own latest, or Postgres's error.

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

// numbers makes a sequence and a table with a column that draws, which belong to app.
const numbers = "create sequence numbers; alter sequence numbers owner to app; create table numbered (id serial, who text); alter table numbered owner to app"

// drawer is a client that remembers what it has drawn: from the sequence, by the column with a default, and last.
type drawer struct {
	s              *script
	extended       bool
	number, id     string
	last           string
	read, withheld int
}

// undrawn is Postgres's error where nothing was drawn yet.
const undrawn = "E:55000"

// ask sends a text and returns the first value of its last row, or its error.
func (d *drawer) ask(text string) (string, error) {
	messages := []pgproto3.FrontendMessage{query(text)}
	if d.extended && !strings.Contains(text, ";") {
		messages = []pgproto3.FrontendMessage{parse("", text), bind(""), execute(), syncUp()}
	}
	got, err := d.s.try(1, messages...)
	if err != nil {
		return "", err
	}
	value := ""
	for _, word := range strings.Fields(got) {
		switch kind, rest, _ := strings.Cut(word, ":"); kind {
		case "D":
			value = rest
		case "E":
			return word, nil
		}
	}
	return value, nil
}

// draw sends a text that draws the numbers that it returns.
func (d *drawer) draw(text string, to *string) error {
	got, err := d.ask(text)
	if err == nil && (got == "" || strings.HasPrefix(got, "E:")) {
		err = fmt.Errorf("%s: got %s", text, got)
	}
	*to, d.last = got, got
	return err
}

// look reads what must be want; where it may be withheld, or there is none, the error is right, too.
func (d *drawer) look(text, want string, mayBeWithheld bool) error {
	got, err := d.ask(text)
	d.read++
	if err == nil && got == undrawn && (want == "" || mayBeWithheld) {
		d.withheld++
		return nil
	}
	if err == nil && (got != want || want == "") {
		return fmt.Errorf("%s: got %s, want %s", text, got, want)
	}
	return err
}

// block is a transaction that may draw, and reads.
func (d *drawer) block(random *rand.Rand, mayBeWithheld bool) error {
	if _, err := d.ask("begin"); err != nil {
		return err
	}
	before := *d
	drawn, inserted := random.IntN(2) == 0, random.IntN(3) == 0
	if random.IntN(3) == 0 {
		if _, err := d.ask("select 1"); err != nil {
			return err
		}
	}
	if drawn {
		if err := d.draw("select nextval('numbers')", &d.number); err != nil {
			return err
		}
	}
	if inserted {
		if err := d.draw("insert into numbered (who) values ('x') returning id", &d.id); err != nil {
			return err
		}
	}
	var err error
	switch random.IntN(3) {
	case 0:
		err = d.look("select currval('numbers')", d.number, mayBeWithheld && !drawn)
	case 1:
		err = d.look("select currval('numbered_id_seq')", d.id, mayBeWithheld && !inserted)
	default:
		err = d.look("select lastval()", d.last, mayBeWithheld && !drawn && !inserted)
	}
	if err != nil {
		return err
	}
	if d.last != before.last && random.IntN(3) == 0 {
		_, err = d.ask("rollback") // which takes no number back
		return err
	}
	_, err = d.ask("commit")
	return err
}

// step is something at random.
func (d *drawer) step(random *rand.Rand, mayBeWithheld bool) error {
	switch random.IntN(8) {
	case 0:
		return d.draw("select nextval('numbers')", &d.number)
	case 1:
		return d.draw("insert into numbered (who) values ('y') returning id", &d.id)
	case 2:
		got, err := d.ask("insert into numbered (who) values ('z') returning id; select lastval()")
		if err != nil || got == "" || strings.HasPrefix(got, "E:") {
			return fmt.Errorf("in one query: got %s (%v)", got, err)
		}
		d.id, d.last = got, got
		return nil
	case 3:
		return d.look("select currval('numbers')", d.number, mayBeWithheld)
	case 4:
		return d.look("select lastval()", d.last, mayBeWithheld)
	case 5:
		_, err := d.ask("select 1")
		return err
	}
	return d.block(random, mayBeWithheld)
}

// TestSequences has many clients draw numbers and read them on few servers. With pin it is all as in Postgres.
func TestSequences(t *testing.T) {
	t.Parallel()
	for policy, size := range map[string]int{"reset": 2, "pin": 9} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			g := startGate(t, gateConf{PoolSize: size, Tenant: func(m harness.Map) { m["state"] = harness.Map{"sequence": policy} }})
			do(t, g.direct(t), numbers)
			// That transactions read is learned from the first one that does.
			first := drawer{s: g.script(t, "transaction")}
			first.s.want("C:BEGIN Z:T T D:1 C:SELECT_1 Z:T T E:55000 Z:E C:ROLLBACK Z:I", 4, query("begin"), query("select 1"), query("select lastval()"), query("rollback"))
			first.s.conn.Close()

			drawers := make([]drawer, 8)
			var all errgroup.Group
			for n := range drawers {
				d := &drawers[n]
				d.s, d.extended = g.script(t, "transaction"), n%2 == 0
				random := rand.New(rand.NewPCG(7, uint64(n)))
				all.Go(func() error {
					for i := range 150 {
						if err := d.step(random, policy == "reset"); err != nil {
							return fmt.Errorf("client %d, step %d: %w", n, i, err)
						}
					}
					return nil
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
			read, withheld := 0, 0
			for _, d := range drawers {
				read, withheld = read+d.read, withheld+d.withheld
			}
			if withheld == 0 || withheld == read {
				t.Errorf("of %d readings %d were withheld: nothing was proven", read, withheld)
			}
		})
	}
}

// TestSequencesOfAnotherMode gives a server on which a transaction has drawn to a session, and back.
func TestSequencesOfAnotherMode(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	do(t, g.direct(t), numbers)
	a := g.script(t, "transaction")
	a.want("T D:1 C:SELECT_1 Z:I", 1, query("select nextval('numbers')"))
	b := g.script(t, "session")
	b.want("T E:55000 Z:I", 1, query("select lastval()"))
	b.want("T D:2 C:SELECT_1 Z:I", 1, query("select nextval('numbers')"))
	b.want("T D:2 C:SELECT_1 Z:I", 1, query("select lastval()"))
	b.conn.Close()
	a.want("T E:55000 Z:I", 1, query("select currval('numbers')"))
}

// TestSequencesOnAKeptServer are as in Postgres, whatever others have drawn there before, and so is random().
func TestSequencesOnAKeptServer(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	do(t, g.direct(t), numbers)
	a := g.script(t, "transaction")
	for _, keep := range []string{"create temp table mine ()", "select setseed(0.5)", "select pg_advisory_lock(7)"} {
		a.say(query("insert into numbered default values"))
		a.hear(1)
		b := g.script(t, "transaction")
		if got, err := b.try(1, query(keep)); err != nil || !endsIdle(got) {
			t.Fatal(got, err)
		}
		b.say(query("select nextval('numbers') as n"))
		drawn := strings.Fields(b.hear(1))[1]
		b.want("T E:55000 Z:I", 1, query("select currval('numbered_id_seq')"))
		b.want("T "+drawn+" C:SELECT_1 Z:I", 1, query("select currval('numbers')"))
		b.want("1 2 "+drawn+" C:SELECT_1 Z:I", 1, parse("", "select lastval()"), bind(""), execute(), syncUp())
		if strings.Contains(keep, "seed") {
			b.want("T D:1 C:SELECT_1 Z:I", 1, query(seeded))
		}
		b.conn.Close()
		a.want("T E:55000 Z:I", 1, query("select lastval()"))
	}
}
