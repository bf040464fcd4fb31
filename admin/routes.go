// Which path and method leads where, who may go there, and what is answered to all others.

package admin

import (
	"errors"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
)

// route is one operation of the API. GET includes HEAD. The parameter {id} of a path is a tenant's id, and nothing else is called so.
type route struct {
	method, path string
	who          access
	name         string // in the audit log and the log
	handler      http.HandlerFunc
	body         int64 // bytes of a request's body; 0: maxBody
}

// routes is the one list of what is served; openapi.yaml describes the same.
func (s *Server) routes() []route {
	scrapes, tenantScrapes := scrapers, watchers
	if s.opts.MetricsPublic {
		scrapes, tenantScrapes = everybody, everybody
	}
	return []route{
		{method: "GET", path: "/healthz", who: everybody, name: "health", handler: s.health},
		{method: "GET", path: "/readyz", who: everybody, name: "ready", handler: s.ready},
		{method: "GET", path: "/metrics", who: scrapes, name: "metrics", handler: s.metrics()},
		{method: "GET", path: "/metrics/tenants/{id}", who: tenantScrapes, name: "tenant.metrics", handler: s.tenantMetrics},
		{method: "GET", path: "/openapi.yaml", who: everybody, name: "document", handler: s.document},

		{method: "GET", path: "/v1/tenants", who: operators, name: "tenant.list", handler: shown(s, s.tenantPage)},
		{method: "GET", path: "/v1/tenants/{id}", who: readers, name: "tenant.get", handler: s.getTenant},
		{method: "PUT", path: "/v1/tenants/{id}", who: operators, name: "tenant.put", handler: s.putTenant, body: maxDocument},
		{method: "PATCH", path: "/v1/tenants/{id}", who: writers, name: "tenant.patch", handler: s.patchTenant, body: maxDocument},
		{method: "DELETE", path: "/v1/tenants/{id}", who: operators, name: "tenant.delete", handler: s.deleteTenant},

		{method: "GET", path: "/v1/tenants/{id}/users", who: readers, name: "user.list", handler: s.listUsers},
		{method: "GET", path: "/v1/tenants/{id}/users/{name}", who: readers, name: "user.get", handler: s.getUser},
		{method: "PUT", path: "/v1/tenants/{id}/users/{name}", who: operators, name: "user.put", handler: s.putUser},
		{method: "PATCH", path: "/v1/tenants/{id}/users/{name}", who: writers, name: "user.patch", handler: s.patchUser},
		{method: "DELETE", path: "/v1/tenants/{id}/users/{name}", who: operators, name: "user.delete", handler: s.deleteUser},

		{method: "GET", path: "/v1/tenants/{id}/refusals", who: readers, name: "refusal.list", handler: s.listRefusals},
		{method: "POST", path: "/v1/tenants/{id}/restrictions/check", who: readers, name: "restriction.check", handler: s.checkRestrictions},

		{method: "GET", path: "/v1/tokens", who: operators, name: "token.list", handler: shown(s, s.tokenPage)},
		{method: "POST", path: "/v1/tokens", who: operators, name: "token.add", handler: s.makeToken},
		{method: "GET", path: "/v1/tokens/{token}", who: operators, name: "token.get", handler: shown(s, s.token)},
		{method: "DELETE", path: "/v1/tokens/{token}", who: operators, name: "token.revoke", handler: s.revokeToken},
		{method: "GET", path: "/v1/audit", who: operators, name: "audit.list", handler: shown(s, s.auditPage)},
		{method: "GET", path: "/v1/cluster", who: operators, name: "node.list", handler: shown(s, s.nodes)},
		{method: "DELETE", path: "/v1/cluster/{node}", who: operators, name: "node.forget", handler: s.forgetNode},

		{method: "GET", path: "/v1/tenants/{id}/machine", who: operators, name: "machine.get", handler: s.machine},
		{method: "POST", path: "/v1/tenants/{id}/machine/wake", who: operators, name: "wake", handler: s.change(Gate.WakeMachine, s.started)},
		{method: "POST", path: "/v1/tenants/{id}/machine/suspend", who: operators, name: "suspend", handler: s.change(Gate.SuspendMachine, s.started)},
		{method: "POST", path: "/v1/tenants/{id}/pause", who: operators, name: "pause", handler: s.pause()},
		{method: "POST", path: "/v1/tenants/{id}/resume", who: operators, name: "resume", handler: s.resume()},
		{method: "GET", path: "/v1/tenants/{id}/bans", who: readers, name: "bans.list", handler: s.listBans},
		{method: "POST", path: "/v1/tenants/{id}/bans", who: writers, name: "bans.create", handler: s.makeBan},
		{method: "DELETE", path: "/v1/tenants/{id}/bans", who: writers, name: "bans.lift", handler: s.liftBan},
		{method: "GET", path: "/v1/tenants/{id}/sessions", who: readers, name: "session.list", handler: shown(s, s.sessionPage)},
		{method: "DELETE", path: "/v1/tenants/{id}/sessions", who: writers, name: "session.end_all", handler: s.endSessions},
		{method: "DELETE", path: "/v1/tenants/{id}/sessions/{session}", who: writers, name: "session.end", handler: s.endSession},

		{method: "GET", path: "/v1/projects/{id}/network-restrictions", who: readers, name: "restrictions.get", handler: s.getRestrictions},
		{method: "POST", path: "/v1/projects/{id}/network-restrictions/apply", who: writers, name: "restrictions.apply", handler: s.applyRestrictions, body: maxDocument},
		{method: "PATCH", path: "/v1/projects/{id}/network-restrictions", who: writers, name: "restrictions.patch", handler: s.patchRestrictions, body: maxDocument},
		{method: "POST", path: "/v1/projects/{id}/network-bans/retrieve", who: readers, name: "ban.list", handler: s.retrieveBans},
		{method: "POST", path: "/v1/projects/{id}/network-bans/retrieve/enriched", who: readers, name: "ban.list_enriched", handler: s.retrieveRichBans},
		{method: "DELETE", path: "/v1/projects/{id}/network-bans", who: writers, name: "ban.lift", handler: s.removeBans},
		{method: "GET", path: "/v1/projects/{id}/ssl-enforcement", who: readers, name: "tls.get", handler: s.getEnforcement},
		{method: "PUT", path: "/v1/projects/{id}/ssl-enforcement", who: writers, name: "tls.put", handler: s.putEnforcement},
		{method: "GET", path: "/v1/projects/{id}/config/database/pooler", who: readers, name: "pooler.get", handler: s.getPooler},
		{method: "PATCH", path: "/v1/projects/{id}/config/database/pooler", who: writers, name: "pooler.patch", handler: s.patchPooler},
	}
}

// mux routes requests, and answers the rest with a problem: 404, or 405 where only the method is wrong.
func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string)
	for _, r := range s.routes() {
		h := http.Handler(r.handler)
		if r.who != everybody {
			h = s.authorized(r, h)
		}
		mux.Handle(r.method+" "+r.path, bounded(r.body, h))
		methods[r.path] = append(methods[r.path], r.method)
		if r.method == http.MethodGet {
			methods[r.path] = append(methods[r.path], http.MethodHead)
		}
	}
	for pattern, allowed := range methods {
		allow := strings.Join(allowed, ", ")
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			fail(w, r, http.StatusMethodNotAllowed, "this path answers "+allow+" only")
		})
	}
	nothing := func(w http.ResponseWriter, r *http.Request) {
		fail(w, r, http.StatusNotFound, "there is nothing at this path; see /openapi.yaml")
	}
	mux.HandleFunc("/", nothing)
	return s.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux would redirect from "..", "//" and the like. What stands in a path encoded is a name: %2E%2E, a%2F%2Fb.
		if p := r.URL.EscapedPath(); path.Clean(p) != p {
			nothing(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// bounded ends bodies that are too long.
func bounded(most int64, next http.Handler) http.Handler {
	if most == 0 {
		most = maxBody
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, most)
		next.ServeHTTP(w, r)
	})
}

// guarded is around every request: its id, headers for every answer, the name by which we were called, and a 500 for a panic.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(requestID, idOf(r))
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p) // net/http's own way to end a connection
				}
				s.opts.Log.Error("admin: BUG: panic", "panic", p, "route", r.Pattern, "request", w.Header().Get(requestID), "stack", string(debug.Stack()))
				fail(w, r, http.StatusInternalServerError, "internal error")
			}
		}()
		if !isProbe(r) && !s.isOurs(r.Host) {
			fail(w, r, http.StatusMisdirectedRequest, "this is not a name of ours: use an address, or list the name in admin.hosts")
			return
		}
		next.ServeHTTP(w, r)
	})
}
