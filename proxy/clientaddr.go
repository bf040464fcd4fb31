// Telling Postgres who the client is: an address among the parameters, which follow every lease.

package proxy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// clientAddressName is the setting that holds the client's address with
// client_address: guc.
const clientAddressName = "postern.client_address"

// withAddress adds the client's address to what it came with, in the way that
// its tenant wants. What a client claims about its address is dropped.
func withAddress(list []pgwire.Param, how tenants.ClientAddress, client netip.AddrPort) []pgwire.Param {
	list = slices.DeleteFunc(slices.Clone(list), func(p pgwire.Param) bool { return strings.EqualFold(p.Name, clientAddressName) })
	// A zone is this computer's own, and no inet in Postgres can have one.
	client = netip.AddrPortFrom(client.Addr().WithZone(""), client.Port())
	switch how {
	case tenants.AddressGUC:
		return append(list, pgwire.Param{Name: clientAddressName, Value: client.Addr().String()})
	case tenants.AddressName:
		name := ""
		for _, p := range list {
			if strings.EqualFold(p.Name, applicationName) {
				name = p.Value
			}
		}
		suffix := client.String()
		if name != "" {
			// The name is what gives way: an address that was cut would be another one.
			name = name[:min(len(name), maxName-len(suffix)-3)] + " - "
		}
		return append(list, pgwire.Param{Name: applicationName, Value: name + suffix})
	}
	return list
}
