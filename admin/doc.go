// Package admin is the HTTP side of Postern: health, readiness and metrics, the tenants of the store, the state of their machines
// and the switches for them, and the document that describes all this. It shows what others give it (a prometheus.Gatherer, a
// function that says whether the gate is ready), passes on what is asked of the gate (a Gate) and of the store (a
// tenants.Registry), and decides only who may ask.
//
// Invariants:
//   - What is not for everybody wants a bearer token. Those of the token file are operators'; it is read for each such request: a
//     token that is written there works, and one that is removed stops working, with the next request. Those of the Registry have
//     a scope. Only digests of tokens are compared, in constant time, and no token is kept, logged or echoed. There are no cookies
//     and no CORS headers, so that a browser holds nothing that another site could use.
//   - Each route in the one list says who may call it. A tenant's token may so for the tenant alone that the path names as {id};
//     any other tenant is for it one that does not exist. What a tenant's token may change is listed in owner.go, and nothing else.
//   - Without a token file, or when it cannot be read, what wants a token is refused.
//   - A changing call does exactly what it says or is refused: what means nothing is an error. Each is logged with its outcome; one
//     that is refused to somebody whom we know is in the audit log, as the store writes down those that are done.
//   - No path of a file comes by the API. Nor does a URL yet: one that does (a key set's, some day) must be https, without redirects,
//     and lead to a public address, which is checked when it is dialled.
//   - An answer holds texts that were written for answers; an unexpected error's goes to the log alone. No answer holds a secret.
//   - Every request has a bound in time, in header and body bytes, and how often it may come; connections and scrapes have a bound
//     in number. Nothing here runs in an event loop, so a slow scraper delays nobody's queries.
//   - openapi.yaml describes exactly the routes that are served; a test compares the two.
//
// Map: routes.go has the list, access.go who may call what, token.go whose token it is, limit.go how often, request.go ids and names,
// body.go and query.go strict reading, problem.go answers, commit.go changes of the store. Each resource has a file.
package admin
