// Statements with a name: what becomes of a message that defines, uses or drops one.

package link

// A client's names are its own; the statements behind them are shared. Each
// server holds some of them under names of Postern's, and whatever a client
// wants to use is prepared first where its server lacks it.
//
// The books assume that what is sent succeeds. An entry of the queue that
// changed them is undone if an error has the server skip it. Once a Sync was
// sent behind such entries, whatever touches named statements waits for their
// answers: the next segment would run even if they are undone. It waits as
// well behind a command that may drop statements.

// Do says what becomes of a client's message.
type Do uint8

// The ways.
const (
	Pass    Do = iota // it goes to the server as it is
	Rename            // the same, with Plan.Name in place of the client's
	Rewrite           // a Parse of Plan.Name and Plan.Stmt, or the Query Dropping, goes in its place
	StandIn           // a Close of Plan.Name goes in its place
	Wait              // nothing happens yet: ask again when an answer has come
	TooMany           // the client has too many statements
	Changed           // it would not be what the client was told of: an error goes in its place
)

// Put is a message that Postern puts in.
type Put struct {
	Kind  Kind // Parse, Describe or Close
	Name  ServerName
	Stmt  *Stmt  // Parse: nil for an empty text
	Types string // Parse: in place of those in Stmt's body, "" for those
}

// Plan is how a client's message is dealt with. Everything in it is recorded
// already, except for TooMany and Changed.
type Plan struct {
	Do   Do
	Name ServerName
	Stmt *Stmt
	Puts []Put // sent before it; valid until the next plan
	// Flush: the answer that is waited for comes only after a Flush, which is put in.
	Flush bool
}

// Parse plans a Parse. body is what stands behind the name, from the NUL which
// ends that. env is anything comparable that stands for the client's settings:
// a text may mean something else under others.
func (l *Link) Parse(env any, name, body []byte) Plan {
	l.puts = l.puts[:0]
	if l.deaf() {
		l.Sent(Entry{Kind: Parse})
		return Plan{}
	}
	if len(name) > 0 && l.unsettled() {
		return l.settle()
	}
	st, ok := l.intern(body)
	if !ok {
		return l.wait()
	}
	plan := Plan{Do: Rename, Stmt: st}
	if st.deallocates != "" {
		plan.Do = Rewrite
	}
	if len(name) == 0 {
		if plan.Name = Unnamed; plan.Do == Rename {
			plan.Do = Pass
		}
		l.Sent(Entry{Kind: Parse, Stmt: st})
		return plan
	}
	if old := l.client.find(name); old != nil {
		return l.parseTaken(plan, env, old, name)
	}
	n := l.define(env, name, st)
	if l.client.full(n.size(), l.stmts.Limits) {
		l.stmts.Drop(st)
		return Plan{Do: TooMany}
	}
	l.client.add(n)
	if h := l.cache.find(st, n.env, ""); h != nil && !n.alone && l.current(h) && l.certain() {
		l.cache.touch(h)
		l.Sent(Entry{Kind: Parse, Mode: Stand, named: n})
		return Plan{Do: StandIn, Name: Nothing}
	}
	h := l.insert(l.stmts.Keep(st), n.env, "")
	l.Sent(Entry{Kind: Parse, named: n, held: h, name: h.name})
	plan.Name, plan.Puts = h.name, l.puts
	return plan
}

// parseTaken plans a Parse under a name that the client has given away. Postgres
// looks at that last, after the text: the server itself finds it out, because
// it holds the older statement under the name that it is sent.
func (l *Link) parseTaken(plan Plan, env any, old *Name, name []byte) Plan {
	e := Entry{Kind: Parse, Mode: Doomed, named: l.define(env, name, plan.Stmt)}
	switch h := l.cache.find(old.stmt, old.env, ""); {
	case h != nil:
		e.name = h.name
	case l.AwaitsReady():
		l.stmts.Drop(plan.Stmt)
		return Plan{Do: Wait} // until it is known which of the next two it is
	case l.Status() == 'E':
		// The older one cannot be prepared, and neither can this, unless it ends
		// transactions or is empty: then it takes its own name.
		e.name = l.ensure(e.named, env).name
	default:
		e.name = l.ensure(old, env).name
	}
	l.Sent(e)
	plan.Name, plan.Puts = e.name, l.puts
	return plan
}

// Bind plans a Bind of a statement to a portal.
func (l *Link) Bind(env any, portal, name []byte) Plan { return l.use(env, Bind, portal, name) }

// DescribeStatement plans a Describe of a statement.
func (l *Link) DescribeStatement(env any, name []byte) Plan { return l.use(env, Describe, nil, name) }

func (l *Link) use(env any, kind Kind, portal, name []byte) Plan {
	l.puts = l.puts[:0]
	if l.deaf() {
		l.Sent(Entry{Kind: kind})
		return Plan{}
	}
	if len(name) == 0 {
		return l.useUnnamed(kind, portal)
	}
	if l.unsettled() {
		return l.settle()
	}
	n := l.client.find(name)
	if n == nil {
		if kind == Bind {
			l.bindText(portal, unknownText) // perhaps a statement that SQL prepared
		}
		return l.unknown(kind, name)
	}
	if kind == Bind {
		l.bind(portal, n.stmt)
	}
	h, do := l.agreed(kind, n, env)
	switch do {
	case Wait:
		return l.await()
	case Changed:
		return Plan{Do: Changed}
	}
	l.Sent(Entry{Kind: kind, named: n, held: h, name: h.name})
	h.asked = h.asked || kind == Describe
	return Plan{Do: Rename, Name: h.name, Puts: l.puts}
}

// CloseStatement plans a Close of a statement. The server keeps a named one for
// others: it closes nothing, which is a success as well.
func (l *Link) CloseStatement(name []byte) Plan {
	switch {
	case l.deaf():
		l.Sent(Entry{Kind: Close})
		return Plan{}
	case len(name) == 0:
		l.Sent(Entry{Kind: Close, name: Unnamed})
		return Plan{}
	case l.unsettled():
		return l.settle()
	}
	n := l.client.find(name)
	if n == nil {
		return l.unknown(Close, name)
	}
	l.client.remove(n)
	e, closed := Entry{Kind: Close, named: n}, Nothing
	if h := l.heldAlone(n); h != nil { // nobody else's
		l.cache.remove(h)
		e.held, closed = h, h.name
	}
	l.Sent(e)
	return Plan{Do: Rename, Name: closed}
}

// heldAlone returns what the server holds of a statement for its client alone.
func (l *Link) heldAlone(n *Name) *held {
	if !n.alone {
		return nil
	}
	if h := l.cache.find(n.stmt, n.env, ""); h != nil {
		return h
	}
	return l.cache.find(n.stmt, n.env, n.told.asking(n.stmt))
}

// unknown plans a message with a name that the client has not given to
// anything: the server says so, unless SQL has. Names of Postern's own are not
// for clients.
func (l *Link) unknown(kind Kind, name []byte) Plan {
	if len(name) < len(prefix) || string(name[:len(prefix)]) != prefix {
		l.Sent(Entry{Kind: kind})
		return Plan{}
	}
	e := Entry{Kind: kind}
	if kind != Close {
		e.named = &Name{text: string(name), stmt: &Stmt{}} // for the error's text
	}
	l.Sent(e)
	return Plan{Do: Rename, Name: Nothing}
}

// insert makes room for a statement whose Parse is to be sent next, and counts it
// as held. It takes over the reference.
func (l *Link) insert(st *Stmt, env any, types string) *held {
	limit := l.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	for c := &l.cache; c.n > 0 && (c.n >= limit || c.bytes+len(st.Body) > maxCacheBytes); {
		eldest := c.eldest
		for eldest != nil && l.fixed(eldest) {
			eldest = eldest.newer
		}
		if eldest == nil {
			break
		}
		c.remove(eldest)
		l.put(Put{Kind: Close, Name: eldest.name}, Entry{held: eldest})
	}
	h := &held{stmt: st, env: env, types: types, version: st.version, changes: l.stmts.changes, name: l.cache.name()}
	l.cache.add(h)
	return h
}

// put puts in a message whose success is not for the client.
func (l *Link) put(p Put, e Entry) {
	e.Kind, e.Mode, e.name = p.Kind, Quiet, p.Name
	l.Sent(e)
	l.puts = append(l.puts, p)
}

// deaf reports whether the server will not read, or not read as usual, what
// comes next: then nothing is recorded of it.
func (l *Link) deaf() bool { return l.skip || l.copyIn }

// unsettled reports whether it is open which named statements there are.
func (l *Link) unsettled() bool { return l.sealed || l.drops > 0 }

// settle plans to wait until it is settled. What is sealed has a Sync behind it:
// a Flush would only bring the client the answers to what it has sent since
// sooner than Postgres does.
func (l *Link) settle() Plan {
	if l.sealed {
		return Plan{Do: Wait}
	}
	return l.wait()
}

// wait plans to wait for answers. Sync and Query have the server send
// what it has to say; behind an Execute, or what was put in, it must be told to.
func (l *Link) wait() Plan {
	p := Plan{Do: Wait, Flush: l.open && !l.flushed}
	if p.Flush {
		l.SentFlush()
		l.flushed = true
	}
	return p
}

// await is wait behind what is put in.
func (l *Link) await() Plan {
	p := l.wait()
	p.Puts = l.puts
	return p
}

// current reports whether a Parse of what is held would come to the same.
func (l *Link) current(h *held) bool {
	return h.version == h.stmt.version && h.changes == l.stmts.changes
}

// certain reports whether a Parse that was successful before will be so now:
// in the segment that the server is in, whatever fails has it skipped, and
// what went before has left no failed transaction.
func (l *Link) certain() bool {
	if l.Status() == 'E' || l.slack > 0 || l.doubt {
		return false
	}
	for _, e := range l.queue[l.head:] {
		if !e.Kind.extended() {
			return false
		}
	}
	return true
}
