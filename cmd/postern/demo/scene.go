// What a visitor of the demo needs to know, and how the demo tells it.

package demo

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// scene is a running demo as seen from outside. Addresses are host:port.
type scene struct {
	config, ca       string            // files
	machines         string            // the folder of the clusters
	suspendAfter     time.Duration     // how long they stay awake unused
	listeners        map[string]string // addresses by name
	allowed, refused string            // the relays that send allowedSource and refusedSource
	admin, token     string
	passwords        map[string]string // of the user app, by tenant
}

// uri is how a client without TLS reaches a tenant.
func (s *scene) uri(address, tenant string) string {
	return "postgres://app." + tenant + ":" + s.passwords[tenant] + "@" + address + "/app?sslmode=disable"
}

// secureURI is how a client reaches a tenant by a host name (which no name
// server knows) with everything that TLS and SCRAM can prove.
func (s *scene) secureURI(tenant string) string {
	_, port, _ := strings.Cut(s.listeners[listenerTransaction], ":")
	ca := strings.NewReplacer("'", "%27", "&", "%26", "+", "%2B").Replace((&url.URL{Path: s.ca}).EscapedPath())
	return "postgres://app:" + s.passwords[tenant] + "@" + tenant + "." + tenantDomain + ":" + port +
		"/app?sslmode=verify-full&channel_binding=require&sslrootcert=" + ca
}

// tell prints what there is to try.
func (s *scene) tell(w io.Writer) {
	psql := func(title string, uris ...string) {
		fmt.Fprintf(w, "\n%s\n", title)
		for _, uri := range uris {
			fmt.Fprintf(w, "  psql '%s'\n", uri)
		}
	}
	curl := func(title string, requests ...string) {
		fmt.Fprintf(w, "\n%s\n", title)
		for _, r := range requests {
			fmt.Fprintf(w, "  curl -s -H 'Authorization: Bearer %s' %s\n", s.token, r)
		}
	}
	transaction, session := s.listeners[listenerTransaction], s.listeners[listenerSession]
	api := "http://" + s.admin
	fmt.Fprintf(w, "\nPostern is up, with two tenants: acme and globex, each on a PostgreSQL machine of its own. Both machines are asleep:\n"+
		"no PostgreSQL runs. The first psql that proves its password wakes its machine and waits for it; the very first time\n"+
		"this includes initdb, some seconds. %v after the last query the machine sleeps again, while psql stays connected:\n"+
		"its next query wakes it, and psql never notices. A sleeping acme is stopped (no process is left), a sleeping globex is\n"+
		"suspended (its processes are frozen, so it wakes faster). Each wake and sleep is told below. Try, in another terminal:\n", s.suspendAfter)
	psql("Transaction mode, where a client borrows a server for each transaction:", s.uri(transaction, "acme"), s.uri(transaction, "globex"))
	psql("Session mode, where a client keeps its server, and so keeps the machine awake:", s.uri(session, "acme"))
	psql("TLS with the server's certificate verified; the host name says which tenant:", s.secureURI("acme")+"&hostaddr=127.0.0.1")
	psql("Behind a load balancer that sends a PROXY header (ours is a relay inside this demo), from "+allowedSource+", which acme allows:",
		s.uri(s.allowed, "acme"))
	psql("The same from "+refusedSource+", which nobody allows, and to globex, which does not allow "+allowedSource+" either (who is refused wakes nobody):",
		s.uri(s.refused, "acme"), s.uri(s.allowed, "globex"))
	fmt.Fprintf(w, "\nCancel: run \"select pg_sleep(60);\" in any of them and press Ctrl-C. Only that client's own query ends.\n")
	curl("How acme's machine is doing, and what keeps it awake:", api+"/v1/tenants/acme/machine")
	curl("Whom acme has refused, and whether it would refuse an address:", api+"/v1/tenants/acme/refusals",
		"-H 'Content-Type: application/json' -d '{\"address\": \""+refusedSource+"\"}' "+api+"/v1/tenants/acme/restrictions/check")
	curl("Hold acme's clients for a while, and let them go on:", "-X POST "+api+"/v1/tenants/acme/pause", "-X POST "+api+"/v1/tenants/acme/resume")
	curl("What the gate counts:", api+"/metrics | grep ^postern_")
	fmt.Fprintf(w, "\nThe configuration is %s, with tenants.yaml beside it:\nchange an allow_list there, and it holds at once, for open connections too.\n", s.config)
	fmt.Fprintf(w, "\nPress Ctrl-C to stop.\n\n")
}
