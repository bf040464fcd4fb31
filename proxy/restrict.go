// Restrictions at work: what rules know of a peer, and which open sessions a configuration ends.

package proxy

import (
	"strconv"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

// whoIs is a peer as rules know it. What a header says of it was believed when the header was read.
func whoIs(p *proxyproto.Peer) netrestrict.Who {
	who := netrestrict.Who{Address: p.Client.Addr(), Flycast: p.Destination.Addr()}
	through := func(provider netrestrict.Cloud, id string) {
		who.Endpoints = append(who.Endpoints, netrestrict.Endpoint{Provider: provider, ID: id})
	}
	if p.AWSEndpoint != "" {
		through(netrestrict.AWS, p.AWSEndpoint)
	}
	if p.AzureLinkSet {
		through(netrestrict.Azure, strconv.FormatUint(uint64(p.AzureLink), 10))
	}
	if p.GCPEndpointSet {
		through(netrestrict.GCP, strconv.FormatUint(p.GCPEndpoint, 10))
	}
	return who
}

// standing is what a configuration judges of an open session.
type standing struct {
	peer           *proxyproto.Peer
	region         string // where this node is
	user, database string
	secure         bool // nobody could read along on its way here
}

func (c *client) standing() standing {
	return standing{&c.peer, c.tenant.gate.opts.Region, c.place.user, c.database, c.secure}
}

func (r *replica) standing() standing {
	return standing{&r.peer, r.gate.opts.Region, r.user, r.database, r.tls != nil}
}

// revoked says why a configuration does not allow the session any more; "": it does.
func (s standing) revoked(conf *tenants.Tenant, now time.Time) (reason string) {
	switch {
	case conf == nil:
		return "tenant_removed"
	case conf.Refuses(now, whoIs(s.peer)):
		return "address_revoked"
	case !conf.Residency.ServedIn(s.region):
		return "region_revoked"
	case !conf.AllowsDatabase(s.database):
		return "database_revoked"
	case conf.RequireTLS && !s.secure:
		return "tls_required"
	}
	if _, ok := conf.User(s.user); !ok {
		return "user_removed"
	}
	return ""
}

// review ends the sessions that the configuration does not allow now. Loop thread only.
func (t *tenant) review(now time.Time) {
	for _, c := range append([]*client(nil), t.clients...) {
		if reason := c.standing().revoked(t.conf, now); reason != "" {
			c.revoke(errRevoked, reason)
		}
	}
}
