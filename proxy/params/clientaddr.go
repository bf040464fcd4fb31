// Telling Postgres who the client is: an address among the parameters, which follow every lease.

package params

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// WithoutAddress drops what a client claims about its address.
func WithoutAddress(list []pgwire.Param) []pgwire.Param {
	return slices.DeleteFunc(slices.Clone(list), func(p pgwire.Param) bool { return strings.EqualFold(p.Name, ClientAddress) })
}

// WithAddress adds the client's address to what it came with, as a parameter of
// its own. What the client claims is dropped.
func WithAddress(list []pgwire.Param, client netip.AddrPort) []pgwire.Param {
	return append(WithoutAddress(list), pgwire.Param{Name: ClientAddress, Value: zoneless(client).Addr().String()})
}

// WithAddressInName adds address and port behind the application's name. What
// the client claims is dropped.
func WithAddressInName(list []pgwire.Param, client netip.AddrPort) []pgwire.Param {
	list = WithoutAddress(list)
	name := ""
	for _, p := range list {
		if strings.EqualFold(p.Name, ApplicationName) {
			name = p.Value
		}
	}
	suffix := zoneless(client).String()
	if name != "" {
		// The name is what gives way: an address that was cut would be another one.
		name = name[:min(len(name), sqltext.MaxName-len(suffix)-3)] + " - "
	}
	return append(list, pgwire.Param{Name: ApplicationName, Value: name + suffix})
}

// zoneless drops the zone, which is this computer's own, and no inet in Postgres
// can have one.
func zoneless(client netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(client.Addr().WithZone(""), client.Port())
}
