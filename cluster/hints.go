// What the gossip says for the budget: who is seen to live although the store has not heard of it, and whether anybody is.

package cluster

import "slices"

// SeesAlive reports whether a process answers, as far as the gossip knows. See BudgetOptions.Alive.
func (c *Cluster) SeesAlive(_, boot string) bool {
	return slices.ContainsFunc(c.Members(), func(m Member) bool { return m.Boot == boot && m.State == Alive })
}

// SeesNobody reports whether no other node answers, although the store knew some that lived when it was read last. See BudgetOptions.Alone.
func (c *Cluster) SeesNobody() bool {
	others := false
	for _, n := range c.Nodes() {
		others = others || n.Boot != c.Boot() && !n.Silent
	}
	return others && !slices.ContainsFunc(c.Members(), func(m Member) bool { return m.Boot != c.Boot() && m.State == Alive })
}
