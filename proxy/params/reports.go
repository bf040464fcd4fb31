// What a server has reported of its parameters: lists that are shared, compared by pointer, and never changed.

package params

import (
	"slices"

	"github.com/postern/postern/proxy/pgwire"
)

const (
	// maxReported and maxReportedBytes bound what a server may report, which each of
	// its clients may keep a list of: twice what is taken at login.
	maxReported      = 256
	maxReportedBytes = 128 << 10
	// maxReportBytes bounds the lists that one pool remembers. Beyond it all are
	// forgotten; those in use live on and are compared by content.
	maxReportBytes = 4 << 20
)

// Reports is an immutable list of ParameterStatus messages, less the one of
// application_name, which is each client's own. A server has one, which says
// what its session shows, and so has a client, which says what it was last told.
// If both are the same pointer, there is nothing to tell. A nil Reports is empty.
type Reports struct {
	list     []pgwire.Param
	messages string
}

// List is what is reported. It is not for the caller to change.
func (r *Reports) List() []pgwire.Param {
	if r == nil {
		return nil
	}
	return r.list
}

// Messages are the messages that say all of it.
func (r *Reports) Messages() string {
	if r == nil {
		return ""
	}
	return r.messages
}

// Size is about how many bytes it takes.
func (r *Reports) Size() int { return len(r.Messages()) }

// TooMuch reports whether a server has reported more than is kept of anybody.
func (r *Reports) TooMuch() bool { return len(r.List()) > maxReported || r.Size() > maxReportedBytes }

// News appends what somebody who was told r has to be told to know of now.
func (r *Reports) News(dst []byte, now *Reports) []byte {
	for _, p := range now.List() {
		if !slices.Contains(r.List(), p) {
			dst = pgwire.AppendParameterStatus(dst, p)
		}
	}
	return dst
}

// Same reports whether both say the same.
func (r *Reports) Same(o *Reports) bool {
	return r == o || len(r.List()) == len(o.List()) && len(r.News(nil, o)) == 0
}

// ReportSets shares lists by content. It is one pool's, and the loop thread's
// only. The zero value is ready.
type ReportSets struct {
	byMessages map[string]*Reports
	bytes      int
}

// Intern returns the shared form of a list.
func (t *ReportSets) Intern(list []pgwire.Param) *Reports {
	list = slices.DeleteFunc(slices.Clone(list), func(p pgwire.Param) bool { return p.Name == ApplicationName })
	var messages []byte
	for _, p := range list {
		messages = pgwire.AppendParameterStatus(messages, p)
	}
	if r, ok := t.byMessages[string(messages)]; ok {
		return r
	}
	if t.byMessages == nil || t.bytes > maxReportBytes {
		t.byMessages, t.bytes = make(map[string]*Reports), 0
	}
	t.bytes += len(messages)
	r := &Reports{list, string(messages)}
	t.byMessages[r.messages] = r
	return r
}

// With returns the list in which a parameter has another value.
func (t *ReportSets) With(r *Reports, p pgwire.Param) *Reports {
	if p.Name == ApplicationName || slices.Contains(r.List(), p) {
		return r
	}
	list := slices.Clone(r.List())
	if i := slices.IndexFunc(list, func(q pgwire.Param) bool { return q.Name == p.Name }); i >= 0 {
		list[i] = p
	} else {
		list = append(list, p)
	}
	return t.Intern(list)
}
