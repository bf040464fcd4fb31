// What a server has reported of its parameters: lists that are shared, compared by pointer, and never changed.

package proxy

import (
	"slices"
	"time"

	"github.com/postern/postern/proxy/pgwire"
)

const (
	// maxReported and maxReportedBytes bound what a server may report, which each of
	// its clients may keep a list of: twice what is taken at login.
	maxReported      = 256
	maxReportedBytes = 128 << 10
	// maxReportWork bounds what a tenant's servers may have copied in a second by
	// what they report, in bytes: each report makes a new list. It is several
	// times what a loop can do of transactions that SET something.
	maxReportWork = 64 << 20
	// maxReportBytes bounds the lists that one pool remembers. Beyond it all are
	// forgotten; those in use live on and are compared by content.
	maxReportBytes = 4 << 20
)

// reports is an immutable list of ParameterStatus messages, less the one of
// application_name, which is each client's own. A server has one, which says
// what its session shows, and so has a client, which says what it was last told.
// If both are the same pointer, there is nothing to tell.
type reports struct {
	list     []pgwire.Param
	messages string
}

// params are what is reported. A nil list is empty.
func (r *reports) params() []pgwire.Param {
	if r == nil {
		return nil
	}
	return r.list
}

// tooMuch reports whether a server has reported more than is kept of anybody.
func (r *reports) tooMuch() bool {
	return r != nil && (len(r.list) > maxReported || len(r.messages) > maxReportedBytes)
}

// news appends what somebody who was told r has to be told to know of now.
func (r *reports) news(dst []byte, now *reports) []byte {
	for _, p := range now.params() {
		if !slices.Contains(r.params(), p) {
			dst = pgwire.AppendParameterStatus(dst, p)
		}
	}
	return dst
}

// size is about how many bytes it takes.
func (r *reports) size() int {
	if r == nil {
		return 0
	}
	return len(r.messages)
}

// same reports whether both say the same.
func (r *reports) same(o *reports) bool {
	return r == o || len(r.params()) == len(o.params()) && len(r.news(nil, o)) == 0
}

// reportSets shares lists by content. One pool's, loop thread only.
type reportSets struct {
	byMessages map[string]*reports
	bytes      int
}

// of returns the shared form of a list.
func (t *reportSets) of(list []pgwire.Param) *reports {
	list = slices.DeleteFunc(slices.Clone(list), func(p pgwire.Param) bool { return p.Name == applicationName })
	var messages []byte
	for _, p := range list {
		messages = pgwire.AppendParameterStatus(messages, p)
	}
	if r, ok := t.byMessages[string(messages)]; ok {
		return r
	}
	if t.byMessages == nil || t.bytes > maxReportBytes {
		t.byMessages, t.bytes = make(map[string]*reports), 0
	}
	t.bytes += len(messages)
	r := &reports{list, string(messages)}
	t.byMessages[r.messages] = r
	return r
}

// with returns the list in which a parameter has another value.
func (t *reportSets) with(r *reports, p pgwire.Param) *reports {
	if p.Name == applicationName || slices.Contains(r.params(), p) {
		return r
	}
	list := slices.Clone(r.params())
	if i := slices.IndexFunc(list, func(q pgwire.Param) bool { return q.Name == p.Name }); i >= 0 {
		list[i] = p
	} else {
		list = append(list, p)
	}
	return t.of(list)
}

// hear tells a client what its server shows and it does not know yet. Others may
// have heard of it while they had the server; or this is another server, which
// logged in when something else was the default.
func (c *client) hear() {
	s := c.server
	if c.told == s.shown {
		return
	}
	if news := c.told.news(c.tenant.insert[:0], s.shown); len(news) > 0 {
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
	n := s.shown.size() + s.params.size
	if s.client != nil {
		n += s.client.params.size
	}
	return n
}

// report takes note of a ParameterStatus. told says that the client hears it, too.
func (s *server) report(p pgwire.Param) {
	s.shown = s.pool.reports.with(s.shown, p)
	s.reported = s.reported || p.Name != applicationName
}

// heard takes note of one that was passed on to the client, before which its
// server showed old.
func (c *client) heard(p pgwire.Param, old *reports) {
	if c.told == old {
		c.told = c.server.shown
	} else {
		c.told = c.pool.reports.with(c.told, p)
	}
}
