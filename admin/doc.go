// Package admin is the HTTP side of Postern: health, readiness and metrics, and the document that describes them. It shows
// what others give it (a prometheus.Gatherer, a function that says whether the gate is ready) and decides only who may ask.
//
// Invariants:
//   - What is not marked public wants a bearer token from the token file, which is read for each such request: a token that is
//     written there works, and one that is removed stops working, with the next request. Only digests of tokens are compared,
//     in constant time, and no token is kept, logged or echoed. There are no cookies and no CORS headers, so that a browser
//     holds nothing that another site could use.
//   - Without a token file, or when it cannot be read, what wants a token is refused.
//   - Every request has a bound in time, in header and body bytes; connections and scrapes have a bound in number. Nothing
//     here runs in an event loop, so a slow scraper delays nobody's queries.
//   - openapi.yaml describes exactly the routes that are served; a test compares the two.
package admin
