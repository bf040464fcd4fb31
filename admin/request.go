// What every request has: an id, by which its answer, its log lines and its row in the audit log are found again, and the name
// by which we were called.

package admin

import (
	"crypto/rand"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// requestID is the header with the request's id, of requests and answers.
const requestID = "X-Request-Id"

// safeID is what an id that a client gives must look like: it ends in logs.
var safeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) // immutable, safe for concurrent use

// idOf is the client's id for the request, or one of our own.
func idOf(r *http.Request) string {
	if id := r.Header.Get(requestID); safeID.MatchString(id) {
		return id
	}
	return rand.Text()
}

// isProbe reports whether this is a load balancer's question, which may call us anything.
func isProbe(r *http.Request) bool { return r.URL.Path == "/healthz" || r.URL.Path == "/readyz" }

// isOurs reports whether a Host header names us. A page of a stranger's site can have a browser ask us, by a name of that site
// that leads to our address. What has no dot, or ends in .internal, which is set aside for private networks, is no name that a
// stranger can own.
func (s *Server) isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".internal") {
		return true
	}
	return slices.ContainsFunc(s.opts.Hosts, func(ours string) bool { return strings.EqualFold(ours, host) })
}

// peer is where the request came from.
func peer(r *http.Request) netip.AddrPort {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
