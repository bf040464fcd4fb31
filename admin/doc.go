// Package admin is the HTTP side of Postern: health, readiness and metrics, the state of tenants' machines and the switches for
// them, and the document that describes all this. It shows what others give it (a prometheus.Gatherer, a function that says
// whether the gate is ready), passes on what is asked of the gate (a Gate), and decides only who may ask.
//
// Invariants:
//   - What is not marked public wants a bearer token from the token file, which is read for each such request: a token that is
//     written there works, and one that is removed stops working, with the next request. Only digests of tokens are compared,
//     in constant time, and no token is kept, logged or echoed. There are no cookies and no CORS headers, so that a browser
//     holds nothing that another site could use.
//   - Without a token file, or when it cannot be read, what wants a token is refused.
//   - A changing call does exactly what its path says or is refused: a body or query that would say more is an error. Each is
//     logged with its outcome.
//   - An answer holds texts that were written for answers; an unexpected error's goes to the log alone. No answer holds a
//     machine's address.
//   - Every request has a bound in time, in header and body bytes; connections and scrapes have a bound in number. Nothing
//     here runs in an event loop, so a slow scraper delays nobody's queries.
//   - openapi.yaml describes exactly the routes that are served; a test compares the two.
package admin
