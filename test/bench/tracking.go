// The tracking rows: what the scanner and the statements' books take of a transaction, measured by themselves.

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"syscall"
	"time"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/sqltext"
)

// Two whole programs, one with and one without, differ by less than this computer differs from itself. So the pure code
// runs here, on the messages of pgbench -S, and the time that it takes is set against Postern's CPU in the same round.
//
// A loop of it alone would be flattered: between two messages lie system calls, and between two turns of Postern's loop
// other processes, which leave little of it in the caches. So system calls lie between two measurements here, too, and a
// walk over memory that empties the caches: those of the first level (warm: the next message of the same turn), or those
// of the second as well (cold: the first message after others had the processor). What Postern pays lies between.
const (
	warmWalk      = 64 << 10 // bytes: twice a first-level cache
	coldWalk      = 2 << 20  // bytes: a second-level cache, or two
	warmExchanges = 20_000
	coldExchanges = 4_000
	primeAfter    = 4 * loadClients // exchanges that fill the books and are not measured
	cacheLine     = 64

	// trackingGoal is how much of the CPU of a transaction of the row simple tracking may take, in percent.
	trackingGoal = 3
)

// trackingCell measures what a transaction of pgbench -S -M mode takes. It needs no pooler.
func trackingCell(ctx context.Context, mode string) (figures, error) {
	t, err := newTracker(mode)
	if err != nil {
		return nil, err
	}
	defer t.close()
	warm, err := t.run(ctx, warmExchanges, warmWalk)
	if err != nil {
		return nil, err
	}
	cold, err := t.run(ctx, coldExchanges, coldWalk)
	if err != nil {
		return nil, err
	}
	f := figures{linkWarm: warm.link, linkCold: cold.link, trackingWarm: warm.scanner + warm.link, trackingCold: cold.scanner + cold.link}
	if mode == "simple" { // elsewhere a text is scanned once for its statement
		f[scannerWarm], f[scannerCold] = warm.scanner, cold.scanner
	}
	return f, nil
}

// A tracker has the links and sessions of a pool as busy as that of the row, and a socket to go through.
type tracker struct {
	mode     string // of pgbench: simple, extended or prepared
	answers  string // types of the messages that a transaction is answered with
	stmts    link.Statements
	links    [poolSize]*link.Link
	sessions [loadClients]link.Session
	random   *rand.Rand // the same for every run

	parse, tag, name []byte // parseBody, selectTag and preparedName, because nothing may be allocated meanwhile
	types, columns   []byte // the bodies of the answers to a Describe

	sockets [2]int
	buf     []byte
	memory  []byte // to walk over
	clock   float64
}

// The messages of pgbench -S, less their headers. It sends the text of the simple protocol with a literal that is most
// likely new.
const (
	simpleText = "SELECT abalance FROM pgbench_accounts WHERE aid = "
	accounts   = 2_000_000
	parseBody  = "\x00SELECT abalance FROM pgbench_accounts WHERE aid = $1;\x00\x00\x00" // behind the statement's name
	selectTag  = "SELECT 1"

	preparedName = "P0_1"
)

func newTracker(mode string) (*tracker, error) {
	t := &tracker{mode: mode, random: rand.New(rand.NewPCG(1, 2)), buf: make([]byte, 512), memory: make([]byte, coldWalk),
		parse: []byte(parseBody), tag: []byte(selectTag), name: []byte(preparedName),
		types: []byte("\x00\x01\x00\x00\x00\x17"), columns: []byte("\x00\x01abalance\x00\x00\x00\x40\x01\x00\x03\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00")}
	switch mode {
	case "simple":
		t.answers = "TDCZ"
	case "extended":
		t.answers = "12TDCZ"
	case "prepared":
		t.answers = "2TDCZ"
	default:
		return nil, fmt.Errorf("no tracking of mode %q", mode)
	}
	var err error
	if t.sockets, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0); err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	for i := range t.links {
		t.links[i] = link.New(&t.stmts)
	}
	for i := 0; i < len(t.sessions) && mode == "prepared"; i++ {
		if err := t.prepare(t.links[0], &t.sessions[i]); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

func (t *tracker) close() {
	for _, fd := range t.sockets {
		_ = syscall.Close(fd)
	}
}

// prepare has the session define pgbench's statement.
func (t *tracker) prepare(l *link.Link, s *link.Session) error {
	l.Begin(s)
	defer l.End()
	answer := byte('1')
	if l.Parse(t, t.name, t.parse).Do == link.StandIn {
		answer = '3' // the server holds it for another session
	}
	l.Sent(link.Entry{Kind: link.Sync})
	l.Received(answer, 0)
	l.Received('Z', 'I')
	if !l.Free() {
		return errBooks
	}
	return nil
}

// A taken is what one exchange took, or the mean of many, in nanoseconds.
type taken struct{ scanner, link float64 }

// run measures n exchanges with a walk over so many bytes before each half.
func (t *tracker) run(ctx context.Context, n, walk int) (taken, error) {
	t.clock = clockCost()
	scanner, books := make([]float64, 0, n), make([]float64, 0, n)
	for i := range n + primeAfter {
		one, err := t.exchange(i, walk)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return taken{}, err
		}
		if i >= primeAfter {
			scanner, books = append(scanner, one.scanner), append(books, one.link)
		}
	}
	return taken{trimmedMean(scanner), trimmedMean(books)}, nil
}

// errBooks says that the messages here are not what the link takes for a transaction that is over.
var errBooks = errors.New("tracking: a transaction does not end as it should")

// exchange is one transaction: a client that is lent a server asks, is answered, and gives it back. What is measured are
// the calls of the proxy's feed and judge functions to its pure room.
func (t *tracker) exchange(i, walk int) (taken, error) {
	// Every client comes to every server.
	l, s := t.links[(i*5+i/loadClients)%len(t.links)], &t.sessions[i%len(t.sessions)]
	question := t.parse
	if t.mode == "simple" {
		question = append(strconv.AppendInt(append(t.buf[:0], simpleText...), 1+t.random.Int64N(accounts), 10), ";\x00"...)
	}
	if err := t.disturb(question, walk); err != nil {
		return taken{}, err
	}
	question = t.buf[:len(question)] // as it was read

	began := time.Now()
	var note sqltext.Note
	var state sqltext.State
	if t.mode == "simple" {
		note, state = sqltext.Scan(question)
	}
	scanned := time.Now()
	l.Begin(s)
	puts := t.ask(l, question, note)
	full := l.Outstanding() >= link.MaxOutstanding
	asked := time.Now()

	if err := t.disturb(t.parse, walk); err != nil { // about as long as an answer
		return taken{}, err
	}
	answered := time.Now()
	right := t.answer(l, puts) && l.Free()
	l.End()
	ended := time.Now()

	if !right || state != 0 || full {
		return taken{}, errBooks
	}
	one := taken{link: ns(asked.Sub(scanned)) + ns(ended.Sub(answered)) - 2*t.clock}
	if t.mode == "simple" {
		one.scanner = ns(scanned.Sub(began)) - t.clock
	}
	return one, nil
}

// ask records the messages of one transaction and returns how many that were put in are not answered yet.
func (t *tracker) ask(l *link.Link, question []byte, note sqltext.Note) (puts int) {
	switch t.mode {
	case "simple":
		l.Query(question, note)
		return 0
	case "extended":
		l.Parse(t, nil, question)
		puts = len(l.Bind(t, nil, nil).Puts)
	case "prepared":
		for {
			plan := l.Bind(t, nil, t.name)
			t.settle(l, plan.Puts)
			if plan.Do != link.Wait {
				break
			}
		}
	}
	l.Sent(link.Entry{Kind: link.Describe})
	l.Execute(nil)
	l.Bound(nil)
	l.Sent(link.Entry{Kind: link.Sync})
	return puts
}

// settle answers what was put in: each server prepares the statement once, and says what it is.
func (t *tracker) settle(l *link.Link, puts []link.Put) {
	for _, put := range puts {
		switch put.Kind {
		case link.Parse:
			l.Received('1', 0)
		case link.Describe:
			l.Received('t', 0)
			l.Heed(t.types, true)
			l.Received('T', 0)
			l.Heed(t.columns, true)
		}
	}
}

// answer has the link judge the answers; false: one of them was unexpected.
func (t *tracker) answer(l *link.Link, puts int) bool {
	right := true
	for range puts {
		right = l.Received('1', 0) == link.Swallow && right
	}
	for i := range len(t.answers) {
		typ := t.answers[i]
		right = l.Received(typ, 'I') == link.ToClient && right
		if typ == 'C' {
			right = !l.Completed(t.tag) && sqltext.TagState(t.tag, l.Last().Note) == 0 && right
		}
	}
	return right
}

// disturb leaves the processor's caches as the way of a message does: bytes go through a socket into the buffer, and a
// walk over memory takes the place of what others do meanwhile. message may lie in the buffer.
func (t *tracker) disturb(message []byte, walk int) error {
	if _, err := syscall.Write(t.sockets[0], message); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	for i := 0; i < walk; i += cacheLine {
		t.memory[i]++
	}
	if _, err := syscall.Read(t.sockets[1], t.buf); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// clockCost returns what reading the clock adds to a measurement, in nanoseconds.
func clockCost() float64 {
	const readings = 10_000
	xs := make([]float64, readings)
	for i := range xs {
		began := time.Now()
		xs[i] = ns(time.Since(began))
	}
	return trimmedMean(xs)
}

func ns(d time.Duration) float64 { return float64(d.Nanoseconds()) }
