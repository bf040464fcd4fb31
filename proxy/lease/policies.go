// What a tenant has done about the kinds of session state.

package lease

import "github.com/postern/postern/proxy/sqltext"

// Policies are what a tenant has done about the kinds of session state. A kind
// in none of the four sets is allowed: it stays on the server, for whoever comes
// next. Immutable once Compile has made them.
type Policies struct {
	Track, Pin, Reset, Refuse sqltext.State

	// Always has a server reset after every transaction.
	Always bool

	unnoted sqltext.State // what need not be noted
	forget  sqltext.State // before what a server forgets the numbers of others; 0: never
}

// Compile returns what follows from the four sets.
func (p Policies) Compile() Policies {
	p.unnoted = sqltext.StateNamed | sqltext.StateNameInBind | sqltext.StateReads | sqltext.StateMakes
	// Numbers are not taken away after a transaction, but before others would see
	// them; and who does not want them read does not mind that they are drawn.
	switch drawn := sqltext.StateSequence; {
	case p.Pin&drawn != 0:
		p.forget = drawn | sqltext.StateReads
	case p.Reset&drawn != 0:
		p.Reset, p.unnoted, p.forget = p.Reset&^drawn, p.unnoted|drawn, sqltext.StateReads
	case p.Refuse&drawn != 0:
		p.Refuse, p.unnoted = p.Refuse&^drawn|sqltext.StateReads, p.unnoted|drawn
	default:
		p.unnoted |= drawn
	}
	return p
}

// minded are the kinds that the next client must not see.
func (p *Policies) minded() sqltext.State { return p.Track | p.Pin | p.Reset | p.Refuse }

// Refuses reports whether the tenant does not want what a text would leave.
func (p *Policies) Refuses(text []byte) bool {
	return p.Refuse != 0 && sqltext.Refusable(text)&p.Refuse != 0
}
