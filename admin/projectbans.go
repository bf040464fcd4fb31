// Bans as Supabase's clients see and lift them: who has failed too often to log in at a tenant, on this node.

package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Ban is a network that may not log in at a tenant for now.
type Ban struct {
	Address  netip.Prefix
	Left     time.Duration
	Failures int
	Manual   bool // made by somebody; else by failed logins
}

// name is how the network is written: an address as one.
func (b Ban) name() string {
	if b.Address.IsSingleIP() {
		return b.Address.Addr().String()
	}
	return b.Address.String()
}

// kind is what the ban comes from.
func (b Ban) kind() string {
	if b.Manual {
		return "manual"
	}
	return "failed_logins"
}

// bannedList has a name that is older than Supabase's bans of IPv6.
type bannedList[T any] struct {
	Banned []T `json:"banned_ipv4_addresses"`
}

// richBan is a ban with what it is.
type richBan struct {
	Address    string `json:"banned_address"`
	Identifier string `json:"identifier"` // of the database: the tenant's id
	Type       string `json:"type"`
}

func (s *Server) retrieveBans(w http.ResponseWriter, r *http.Request) {
	list := bannedList[string]{Banned: []string{}}
	s.bans(w, r, func(_ string, b Ban) { list.Banned = append(list.Banned, b.name()) }, func() any { return list })
}

func (s *Server) retrieveRichBans(w http.ResponseWriter, r *http.Request) {
	list := bannedList[richBan]{Banned: []richBan{}}
	s.bans(w, r, func(tenant string, b Ban) { list.Banned = append(list.Banned, richBan{b.name(), tenant, b.kind()}) }, func() any { return list })
}

// bans tells of each ban, and answers.
func (s *Server) bans(w http.ResponseWriter, r *http.Request, each func(tenant string, b Ban), answer func() any) {
	tenant, all, err := s.askBans(r, saysNothing(r))
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	for _, b := range all {
		each(tenant, b)
	}
	reply(w, http.StatusCreated, answer())
}

// unban names the bans that are to be lifted.
type unban struct {
	Addresses   []string `json:"ipv4_addresses"` // or networks; IPv6 as well
	RequesterIP bool     `json:"requester_ip"`   // also the address from which this request comes
	Identifier  string   `json:"identifier"`     // of the database, of which there is one
}

// addresses are those that are named.
func (u *unban) addresses(r *http.Request) (all []netip.Addr, err error) {
	if u.Addresses == nil {
		return nil, bad("ipv4_addresses is missing")
	}
	if u.Identifier != "" && u.Identifier != r.PathValue("id") {
		return nil, bad("identifier must be the project's")
	}
	for i, text := range u.Addresses {
		addr, err := netip.ParseAddr(text)
		if network, err2 := netip.ParsePrefix(text); err2 == nil {
			addr, err = network.Addr(), nil
		}
		if err != nil || addr.Zone() != "" {
			return nil, bad("ipv4_addresses[%d] must be an address, or a network as it was told", i)
		}
		all = append(all, addr.Unmap())
	}
	if u.RequesterIP {
		all = append(all, peer(r).Addr())
	}
	return all, nil
}

// partly says that some of what was asked for was done, and some could not be.
type partly struct {
	done, left []string
	err        error
}

func (p *partly) Error() string {
	return fmt.Sprintf("done for %s, not for %s: %v", strings.Join(p.done, ", "), strings.Join(p.left, ", "), p.err)
}

func (p *partly) Unwrap() error { return p.err }

// lifted is the answer when bans were lifted.
type lifted struct {
	Removed int `json:"removed"`
}

func (s *Server) removeBans(w http.ResponseWriter, r *http.Request) {
	var all []netip.Addr
	n := 0
	says := func(r *http.Request) (err error) {
		var body unban
		if err = onlyBody(r, &body); err == nil {
			all, err = body.addresses(r)
		}
		return err
	}
	s.do(w, r, says, func(ctx context.Context, tenant string) error {
		var done, left []string
		var last error
		for _, addr := range all {
			of, err := s.opts.Gate.LiftBan(ctx, tenant, addr)
			if err != nil {
				left, last = append(left, addr.String()), err
				continue
			}
			if n += of; of > 0 {
				done = append(done, addr.String())
				callerOf(r).hasDone(banPath(addr), strconv.Quote("banned"), "")
			}
		}
		if last != nil && len(done) > 0 {
			return &partly{done, left, last}
		}
		return last
	}, func(context.Context, string) (int, any, error) { return http.StatusOK, lifted{n}, nil })
}
