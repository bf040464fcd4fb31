// What servers report of their parameters: what it costs, who is told, and who has heard it already.

package proxy

import (
	"time"

	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
)

// maxReportWork bounds what a tenant's servers may have copied in a second by
// what they report, in bytes: each report makes a new list. It is several
// times what a loop can do of transactions that SET something.
const maxReportWork = 64 << 20

// hear tells a client what its server shows and it does not know yet. Others may
// have heard of it while they had the server; or this is another server, which
// logged in when something else was the default.
func (c *client) hear() {
	s := c.server
	if c.told == s.shown {
		return
	}
	if news := c.told.News(c.tenant.insert[:0], s.shown); len(news) > 0 {
		c.tenant.insert = news
		c.write(news)
	}
	c.told = s.shown
}

// reportWork is what was copied because of reports since some time.
type reportWork struct {
	since time.Time
	bytes int
}

// affords reports whether so many bytes more may be copied because of what
// servers report. One that has more to say than any that is honest is not listened
// to, for the loop is others', too.
func (t *tenant) affords(bytes int) bool {
	w := &t.reportWork
	if now := t.loop.Now(); now.Sub(w.since) >= time.Second {
		*w = reportWork{since: now}
	}
	w.bytes += bytes
	return w.bytes <= maxReportWork
}

// reportCost is what a report copies: the list that the server shows, and what it
// and its client have set.
func (s *server) reportCost() int {
	n := s.shown.Size() + s.params.Size()
	if s.client != nil {
		n += s.client.params.Size()
	}
	return n
}

// report takes note of a ParameterStatus.
func (s *server) report(p pgwire.Param) {
	s.shown = s.pool.reports.With(s.shown, p)
	s.reported = s.reported || p.Name != params.ApplicationName
}

// heard takes note of one that was passed on to the client, before which its
// server showed old.
func (c *client) heard(p pgwire.Param, old *params.Reports) {
	if c.told == old {
		c.told = c.server.shown
	} else {
		c.told = c.pool.reports.With(c.told, p)
	}
}
