// The STATS family: totals since the start, and averages over the last period.

package console

import "time"

// The counters in PgBouncer's order, without the prefixes total_ and avg_.
// Times, and what is counted of prepared statements, are not measured: 0.
const (
	statsColumns = `database total_server_assignment_count:n total_xact_count:n total_query_count:n total_received:n total_sent:n total_xact_time:n
		total_query_time:n total_wait_time:n total_client_parse_count:n total_server_parse_count:n total_bind_count:n
		avg_server_assignment_count:n avg_xact_count:n avg_query_count:n avg_recv:n avg_sent:n avg_xact_time:n avg_query_time:n avg_wait_time:n
		avg_client_parse_count:n avg_server_parse_count:n avg_bind_count:n total_requests:n`
	counterColumns = `server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n query_time:n wait_time:n
		client_parse_count:n server_parse_count:n bind_count:n`
)

// counterNames are the names in SHOW TOTALS.
func counterNames() []string {
	return []string{"server_assignment_count", "xact_count", "query_count", "client_bytes", "server_bytes", "xact_time", "query_time", "wait_time",
		"client_parse_count", "server_parse_count", "bind_count"}
}

// list is the counters in that order.
func (c Counters) list() []any {
	return []any{c.Assignments, c.Transactions, c.Queries, c.Received, c.Sent, 0, 0, 0, 0, 0, 0}
}

// perSecond is what the counters grew by in a second.
func (s *Stats) perSecond() Counters {
	rate := func(now, old uint64) uint64 {
		if s.Period <= 0 || now < old {
			return 0
		}
		return uint64(float64(now-old) / (float64(s.Period) / float64(time.Second)))
	}
	n, o := s.Now, s.Old
	return Counters{rate(n.Assignments, o.Assignments), rate(n.Transactions, o.Transactions), rate(n.Queries, o.Queries),
		rate(n.Received, o.Received), rate(n.Sent, o.Sent)}
}

func statsTable(g Gate) table {
	return tableOf(g.Stats(), func(s *Stats) []any {
		row := append([]any{s.Name}, s.Now.list()...)
		return append(append(row, s.perSecond().list()...), s.Now.Queries)
	})
}

func statsTotals(g Gate) table {
	return tableOf(g.Stats(), func(s *Stats) []any { return append([]any{s.Name}, s.Now.list()...) })
}

func statsAverages(g Gate) table {
	return tableOf(g.Stats(), func(s *Stats) []any { return append([]any{s.Name}, s.perSecond().list()...) })
}

func totalRows(all []Stats) (out []count) {
	var total, avg Counters
	for i := range all {
		total, avg = total.plus(all[i].Now), avg.plus(all[i].perSecond())
	}
	for _, part := range []struct {
		prefix string
		values []any
	}{{"total_", total.list()}, {"avg_", avg.list()}} {
		for i, name := range counterNames() {
			out = append(out, count{part.prefix + name, number(part.values[i])})
		}
	}
	return out
}

func (c Counters) plus(o Counters) Counters {
	return Counters{c.Assignments + o.Assignments, c.Transactions + o.Transactions, c.Queries + o.Queries, c.Received + o.Received, c.Sent + o.Sent}
}
