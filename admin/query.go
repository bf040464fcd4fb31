// Query parameters, which are as strict as bodies, and conditions on what is changed.

package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/postern/postern/tenants"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// query returns the parameters of a request, each of which must be one of those that are known.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("the query is malformed")
	}
	for name, values := range q {
		switch {
		case len(known) == 0:
			return nil, bad("this takes no query parameters")
		case !slices.Contains(known, name):
			return nil, bad("this takes no query parameter %.64q, but %q", name, known)
		case len(values) > 1:
			return nil, bad("the query parameter %s is there twice", name)
		}
	}
	return q, nil
}

// pageOf is which page of a list is asked for: the one behind after, or the first one. The request may have more parameters.
func pageOf(r *http.Request, more ...string) (after string, limit int, err error) {
	q, err := query(r, append(more, "limit", "after")...)
	if err == nil {
		limit, err = limitOf(q)
	}
	if err == nil && q.Has("after") && q.Get("after") == "" {
		err = bad("after must be where a page before has ended")
	}
	return q.Get("after"), limit, err
}

// cut takes a page off a list that was read with one item more, and says where it ends if there is a next one.
func cut[T, K any](all []T, limit int, key func(T) K) (page []T, next *K) {
	if len(all) <= limit {
		return all, nil
	}
	return all[:limit], new(key(all[limit-1]))
}

// limitOf is how many items of a list are asked for.
func limitOf(q url.Values) (int, error) {
	if !q.Has("limit") {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > maxLimit {
		return 0, bad("limit must be between 1 and %d", maxLimit)
	}
	return n, nil
}

// etag is a revision as a header has it.
func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// condition is what the tenant must be: an Edit's Match, whether it must be there, and that it may be one that cannot be read.
type condition struct {
	match     int64
	mustExist bool
	unread    bool
}

// conditionOf is what a request says.
func conditionOf(r *http.Request) (c condition, err error) {
	is, not := r.Header.Values("If-Match"), r.Header.Values("If-None-Match")
	switch {
	case len(is)+len(not) == 0:
	case len(is)+len(not) > 1:
		return c, bad("If-Match and If-None-Match: one of them, and once")
	case len(not) == 1 && not[0] == "*":
		c.match = tenants.MatchNone
	case len(not) == 1:
		return c, bad("If-None-Match must be *: there must be none yet")
	case is[0] == "*":
		c.mustExist = true
	default:
		text, err := strconv.Unquote(is[0])
		revision, err2 := strconv.ParseInt(text, 10, 64)
		if err != nil || err2 != nil || revision <= 0 || etag(revision) != is[0] {
			return c, bad("If-Match must be one ETag as an answer had it, or *")
		}
		c.match = revision
	}
	return c, nil
}

// pointers turns the paths of a tenant's problems into pointers: pool.size is /pool/size, databases[0] is /databases/0, and
// users["app"].verifier is /users/app/verifier.
func pointers(problems tenants.Problems) (all invalid) {
	for _, p := range problems {
		all = append(all, fieldError{pointer(p.Path), p.Message})
	}
	return all
}

func pointer(path string) string {
	var b strings.Builder
	for path != "" {
		if rest, ok := strings.CutPrefix(path, "["); ok {
			key, err := strconv.QuotedPrefix(rest)
			if err == nil {
				path = strings.TrimPrefix(rest[len(key):], "]")
				key, _ = strconv.Unquote(key)
			} else {
				key, path, _ = strings.Cut(rest, "]")
			}
			b.WriteString("/" + escape(key))
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		b.WriteString("/" + escape(path[:end]))
		path = path[end:]
	}
	return b.String()
}
