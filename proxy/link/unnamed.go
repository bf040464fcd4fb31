// Unnamed statements: whose definition a server holds, and how to define it again elsewhere.

package link

// Begin starts a lease for a client whose messages follow.
func (l *Link) Begin(s *Session) {
	l.client = s
	l.known = l.hasUnnamed(s)
	l.bound, l.portals, l.altered, l.restored = bound{}, bound{}, 0, agrees
}

// hasUnnamed reports whether the server's unnamed statement is the client's, and
// as it was told of it, perhaps elsewhere.
func (l *Link) hasUnnamed(s *Session) bool {
	return s != nil && l.owner == s && l.unnamed == s.Unnamed && (s.told == nil || l.shape != nil && l.shape.same(s.told))
}

// End ends the lease. What the client still had coming is nobody's.
func (l *Link) End() {
	l.client = nil
	if l.redefinitions > 0 {
		l.Forget() // how they end is not followed any more
	}
	l.redefinitions, l.unsure, l.resets = 0, false, false
	for i := l.head; i < len(l.queue); i++ {
		e := &l.queue[i]
		l.stmts.Drop(e.Stmt)
		l.orphan(e)
		e.Stmt, e.Mode = nil, Internal
		if e.redefines() {
			l.redefinitions++
		}
	}
}

// Close ends the lease, if there is one, and gives back what the server holds:
// it is gone.
func (l *Link) Close() {
	l.End()
	for i := l.head; i < len(l.queue); i++ {
		if e := &l.queue[i]; e.changes() && e.Kind == Close {
			l.confirm(e)
		}
	}
	l.cache.clear(l.stmts)
}

// Forget gives up on knowing the server's unnamed statement, because Postern
// itself uses it, or how it ends is not known.
func (l *Link) Forget() { l.owner, l.unnamed, l.known = nil, nil, false }

// missing is asked before a Bind or Describe of the unnamed statement is sent:
// needed says that the server does not hold what the client expects, which is
// put in then: a Parse of stmt or, where that is nil because the client has
// defined nothing, a Close.
func (l *Link) missing() (stmt *Stmt, needed bool) {
	if l.known || l.skip {
		return nil, false
	}
	l.known = true
	return l.client.Unnamed, true
}

// useUnnamed plans a Bind or Describe of the unnamed statement.
func (l *Link) useUnnamed(kind Kind, portal []byte) Plan {
	if l.undecided() {
		return Plan{Do: Wait}
	}
	if l.restored == agrees {
		l.restore()
	}
	switch l.restored {
	case asked:
		return l.await()
	case differs:
		return Plan{Do: Changed}
	}
	if kind == Bind {
		l.bind(portal, l.latest)
	}
	l.Sent(Entry{Kind: kind, name: Unnamed})
	return Plan{Puts: l.puts}
}

// restore puts in what is missing, and has it described where the client was
// told of it.
func (l *Link) restore() {
	stmt, needed := l.missing()
	switch {
	case !needed:
	case stmt == nil:
		l.put(Put{Kind: Close, Name: Unnamed}, Entry{})
	default:
		told := l.client.told
		l.put(Put{Kind: Parse, Name: Unnamed, Stmt: stmt, Types: told.asking(stmt)}, Entry{Stmt: l.stmts.Keep(stmt)})
		if told != nil {
			l.put(Put{Kind: Describe, Name: Unnamed}, Entry{})
			l.restored = asked
		}
	}
	if needed {
		l.latest = stmt
	}
}

// undecided reports whether it is still open what the server's unnamed
// statement will be: a Bind or Describe of it waits until an answer has come.
// While the server waits for COPY data nothing is worth waiting for.
func (l *Link) undecided() bool { return l.unsure && !l.copyIn }

// redefines reports whether the message changes the server's unnamed statement.
// A Parse that Postern asks for itself counts, whatever name it has.
func (e Entry) redefines() bool {
	return e.Stmt != nil || e.Kind == Query || e.Kind == Parse && e.Mode == Internal || e.Kind == Close && e.name == Unnamed
}

// defined records a ParseComplete.
func (l *Link) defined(h Entry) {
	l.shape = nil
	if h.Stmt == nil || h.Mode == Internal {
		l.owner, l.unnamed = nil, nil // nobody's, as far as is known
		return
	}
	l.owner, l.unnamed = l.client, h.Stmt
	if h.Mode == Forward && l.client != nil {
		if l.client.told = nil; l.client.Unnamed != h.Stmt {
			l.stmts.Drop(l.client.Unnamed)
			l.client.Unnamed = l.stmts.Keep(h.Stmt)
		}
	}
}

// undefined records that the server has dropped its unnamed statement, or may
// have: a Parse or Query that it cannot even read fails without doing so, and
// what it then still holds may be anybody's.
func (l *Link) undefined(h Entry, certain bool) {
	if l.owner, l.unnamed = nil, nil; certain {
		l.owner = l.client
	}
	if h.Mode == Forward && l.client != nil {
		l.stmts.Drop(l.client.Unnamed)
		l.client.Unnamed, l.client.told = nil, nil
	}
}
