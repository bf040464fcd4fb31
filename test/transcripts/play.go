// Playing a script: directly, where the replies are the truth, or through Postern, where they are compared with it.

package transcripts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// patience bounds the wait for a reply that the oracle has given. It is spent in full where it is accepted that none comes.
	patience = 15 * time.Second
	// afterthought is how long one waits for more when the replies differ already: where that is accepted, in vain.
	afterthought = time.Second
	// oraclePatience bounds a wait for the oracle.
	oraclePatience = time.Minute
)

// A Transcript is what was said and heard, wait by wait.
type Transcript []Turn

// A Turn is what one session said, and heard at the wait that followed.
type Turn struct {
	Session byte
	Said    []string
	Heard   []string
}

// Lines is the transcript in one piece.
func (t Transcript) Lines() []string {
	var lines []string
	for _, turn := range t {
		for _, s := range turn.Said {
			lines = append(lines, fmt.Sprintf("%c> %s", turn.Session, s))
		}
		for _, h := range turn.Heard {
			lines = append(lines, fmt.Sprintf("%c< %s", turn.Session, h))
		}
	}
	return lines
}

// A Side is one of the two that are compared. One run has it for itself.
type Side struct {
	Target Target
	ID     string // stands where the script has @@

	// listen hears what comes at a wait, at least so many messages.
	listen func(ctx context.Context, c *Conn, turn int, atLeast int) ([]string, error)
	// before, if any, is called before a session says something; between means that it is in no transaction.
	before func(ctx context.Context, session byte, between bool) error
	// after, if any, is called when a session has heard that it is in no transaction.
	after func(ctx context.Context, session byte) error
	// meanwhile does what the script has others do.
	meanwhile func(sql string) error
	// done, if any, tells that the rest is of no interest.
	done func(t Transcript) bool
}

// epilogue shows whether the conversation is still in step, and ends it. In a COPY only CopyFail is answered.
const epilogue = "CopyFail \"end\"\nSync\nQuery \"select 'end'\"\nwait\nTerminate\nwait\n"

// Play plays a script and what ends every session. An error is nobody's difference but something that broke.
func (s *Side) Play(ctx context.Context, script Script) (Transcript, error) {
	steps, err := script.Steps(s.ID)
	if err != nil {
		return nil, err
	}
	p := &play{side: s, ctx: ctx, actors: make(map[byte]*actor)}
	defer p.close()
	for _, step := range append(steps, ending(steps)...) {
		if err := p.step(step); err != nil {
			return p.transcript, fmt.Errorf("%s: %s: %w", script.Name, step, err)
		}
		if s.done != nil && s.done(p.transcript) {
			break
		}
	}
	return p.transcript, nil
}

// ending is an epilogue for every session.
func ending(steps []Step) (end []Step) {
	last, err := Parse(epilogue)
	if err != nil {
		panic(err)
	}
	seen := map[byte]bool{}
	for _, s := range steps {
		if seen[s.Session] {
			continue
		}
		seen[s.Session] = true
		end = append(end, Step{s.Session, Wait(0)})
		for _, l := range last {
			end = append(end, Step{s.Session, l.Action})
		}
	}
	return end
}

// A play is one script on one side.
type play struct {
	side       *Side
	ctx        context.Context
	actors     map[byte]*actor
	transcript Transcript
}

// An actor is one session of a play.
type actor struct {
	conn *Conn // nil before the login
	over bool
	said []string
	out  []byte
	idle bool // the latest reply was a ReadyForQuery outside a transaction
}

func (p *play) close() {
	for _, a := range p.actors {
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

func (p *play) step(s Step) error {
	if m, ok := s.Action.(Meanwhile); ok {
		return p.side.meanwhile(string(m))
	}
	a := p.actors[s.Session]
	if a == nil {
		a = &actor{idle: true}
		p.actors[s.Session] = a
		c, explicit := s.Action.(Connect)
		greeting, err := p.login(a, c)
		if err != nil {
			return err
		}
		if explicit || a.over {
			p.add(Turn{s.Session, []string{c.String()}, greeting})
		}
		if explicit {
			return nil
		}
	}
	if w, ok := s.Action.(Wait); ok {
		return p.wait(s.Session, a, int(w))
	}
	a.said = append(a.said, s.Action.String())
	var err error
	a.out, err = encode(a.out, s.Action)
	return err
}

// login connects an actor and returns what the server reported, or why it refused.
func (p *play) login(a *actor, settings []Setting) ([]string, error) {
	c, err := Login(p.ctx, p.side.Target, settings)
	if err != nil {
		return nil, err
	}
	a.conn, a.over = c, c.refused
	return c.greeting, nil
}

// wait sends and hears.
func (p *play) wait(session byte, a *actor, atLeast int) error {
	if a.over {
		a.said, a.out = nil, nil
		return nil
	}
	if len(a.out) > 0 && p.side.before != nil {
		if err := p.side.before(p.ctx, session, a.idle); err != nil {
			return err
		}
	}
	if err := a.conn.send(a.out); err != nil {
		return err
	}
	heard, err := p.side.listen(p.ctx, a.conn, len(p.transcript), atLeast)
	if n := len(heard); n > 0 {
		a.idle = heard[n-1] == ready+"I"
		a.over = heard[n-1] == closed
	}
	p.add(Turn{session, a.said, heard})
	a.said, a.out = nil, nil
	if err == nil && a.idle && p.side.after != nil {
		err = p.side.after(p.ctx, session)
	}
	return err
}

func (p *play) add(t Turn) {
	for i := range t.Said {
		t.Said[i] = strings.ReplaceAll(t.Said[i], p.side.ID, unique)
	}
	for i := range t.Heard {
		t.Heard[i] = strings.ReplaceAll(t.Heard[i], p.side.ID, unique)
	}
	p.transcript = append(p.transcript, t)
}

// An Oracle knows when a server is quiet. Its clients must have come by a Unix socket.
type Oracle struct{ Observer *pgx.Conn }

// activity says what a server process waits for.
const activity = "select coalesce(wait_event_type, ''), coalesce(wait_event, '') from pg_stat_get_activity($1)"

// Side is PostgreSQL itself.
func (o *Oracle) Side(to Target, id string) *Side {
	return &Side{Target: to, ID: id, listen: o.listen}
}

// listen reads until the server has nothing more to say. First it must have taken in every byte. From then on, as it shows
// no wait while it works, it is done when it is seen waiting for its client; and what it has sent by then is in our socket.
func (o *Oracle) listen(ctx context.Context, c *Conn, _ int, atLeast int) ([]string, error) {
	var heard []string
	pause := 100 * time.Microsecond
	for end := time.Now().Add(oraclePatience); time.Now().Before(end); pause = min(2*pause, 10*time.Millisecond) {
		quiet, err := o.quiet(ctx, c)
		if err != nil {
			return heard, err
		}
		if err := c.readAll(); err != nil {
			return heard, err
		}
		if heard, err = gather(c, heard); err != nil {
			return heard, err
		}
		if c.ended {
			return append(heard, closed), c.flushed(true)
		}
		if quiet && len(heard) >= atLeast {
			return heard, nil
		}
		time.Sleep(pause)
	}
	return heard, fmt.Errorf("the server is not quiet, having said %q", heard)
}

func (o *Oracle) quiet(ctx context.Context, c *Conn) (bool, error) {
	if err := c.flushed(false); errors.Is(err, errBusy) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if n, err := c.unread(); n > 0 || err != nil {
		return false, err
	}
	var kind, event string
	if err := o.Observer.QueryRow(ctx, activity, c.pid).Scan(&kind, &event); errors.Is(err, pgx.ErrNoRows) {
		return false, nil // it has gone: the end of the connection is near
	} else if err != nil {
		return false, err
	}
	return event == "ClientRead" || kind == "Lock", nil
}

// gather appends the whole messages that were received.
func gather(c *Conn, heard []string) ([]string, error) {
	for {
		line, ok, err := c.line()
		if !ok || err != nil {
			return heard, err
		}
		heard = append(heard, line)
	}
}

// Against is a side that is compared with what the oracle has said.
func Against(truth Transcript, to Target, id string) *Side {
	wait := patience
	return &Side{Target: to, ID: id, listen: func(_ context.Context, c *Conn, turn int, _ int) ([]string, error) {
		if turn >= len(truth) {
			return nil, nil
		}
		heard, err := hear(c, truth[turn].Heard, id, wait)
		if n := len(heard); n > 0 && heard[n-1] == missing {
			wait = afterthought // once is enough
		}
		return heard, err
	}}
}

// missing stands in a transcript where the oracle has said more.
const missing = "(nothing more)"

// hear reads as many messages as want has, or, where they are others, until no more seem to come.
func hear(c *Conn, want []string, id string, patience time.Duration) (heard []string, err error) {
	differ := func() bool {
		for i, h := range heard {
			if i >= len(want) || strings.ReplaceAll(h, id, unique) != want[i] {
				return true
			}
		}
		return false
	}
	for {
		line, ok, err := c.line()
		switch {
		case err != nil:
			return heard, err
		case ok:
			heard = append(heard, line)
		case c.ended:
			return append(heard, closed), c.flushed(true)
		}
		if !differ() && len(heard) >= len(want) || differ() && ended(heard) && ended(want) && readies(heard) == readies(want) {
			return heard, nil
		}
		if ok {
			continue
		}
		deadline := time.Now().Add(patience)
		if differ() {
			deadline = time.Now().Add(afterthought)
		}
		if err := c.read(deadline); err != nil {
			var late net.Error
			if !errors.As(err, &late) || !late.Timeout() {
				return heard, err
			}
			if len(heard) < len(want) {
				heard = append(heard, missing)
			}
			return heard, nil
		}
	}
}

// ready begins the line of a ReadyForQuery; its status follows.
const ready = "ReadyForQuery "

func readies(lines []string) (n int) {
	for _, l := range lines {
		if strings.HasPrefix(l, ready) {
			n++
		}
	}
	return n
}

// ended reports whether the last of the lines is a ReadyForQuery.
func ended(lines []string) bool {
	return len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1], ready)
}
