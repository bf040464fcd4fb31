// The bans at a tenant, in our own words: listed, made and lifted by its owner.

package admin

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/postern/postern/netrestrict"
)

// longestBan is in seconds: 30 days.
const longestBan = 30 * 24 * 60 * 60

// tenantBan is a ban as it is told.
type tenantBan struct {
	Address  string `json:"address"` // or a network
	Left     int    `json:"seconds_left"`
	Failures int    `json:"failures"`
	Manual   bool   `json:"manual"`
}

func (b Ban) told() tenantBan {
	return tenantBan{b.name(), int(math.Ceil(b.Left.Seconds())), b.Failures, b.Manual}
}

type tenantBans struct {
	Bans []tenantBan `json:"bans"`
}

func (s *Server) listBans(w http.ResponseWriter, r *http.Request) {
	list := tenantBans{Bans: []tenantBan{}}
	_, wrong := query(r)
	tenant, all, err := s.askBans(r, wrong)
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	for _, b := range all {
		list.Bans = append(list.Bans, b.told())
	}
	reply(w, http.StatusOK, list)
}

// askBans asks the gate for the bans at the tenant that the path names, unless the request was wrong.
func (s *Server) askBans(r *http.Request, wrong error) (tenant string, all []Ban, err error) {
	if wrong != nil {
		return "", nil, wrong
	}
	if tenant, err = s.subject(r); err != nil {
		return tenant, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), gateTimeout)
	defer cancel()
	all, err = s.opts.Gate.Bans(ctx, tenant)
	return tenant, all, err
}

// newBan is what somebody wants banned, and for how long.
type newBan struct {
	Address string `json:"address"`
	Seconds int    `json:"seconds"`
}

func (s *Server) makeBan(w http.ResponseWriter, r *http.Request) {
	var made Ban
	says := func(r *http.Request) error {
		var body newBan
		if err := plainBody(r, &body); err != nil {
			return err
		}
		network, err := netrestrict.ParsePrefix(body.Address)
		switch {
		case err != nil:
			return wrongAddress(err)
		case body.Seconds < 1 || body.Seconds > longestBan:
			return invalid{{"/seconds", fmt.Sprintf("must be from 1 to %d", longestBan)}}
		}
		made = Ban{Address: network, Left: time.Duration(body.Seconds) * time.Second, Manual: true}
		return nil
	}
	s.do(w, r, says, func(ctx context.Context, tenant string) error {
		callerOf(r).hasDone(banPath(made.Address), "", strconv.Quote(made.Left.String()))
		return s.opts.Gate.Ban(ctx, tenant, made.Address, made.Left)
	},
		func(context.Context, string) (int, any, error) { return http.StatusCreated, made.told(), nil })
}

// banPath is what the audit log calls the ban of an address or a network.
func banPath(of fmt.Stringer) string { return fmt.Sprintf("bans[%q]", of) }

func wrongAddress(err error) error { return invalid{{"/address", err.Error()}} }

// oldBan says whom to let in again.
type oldBan struct {
	Address string `json:"address"`
}

func (s *Server) liftBan(w http.ResponseWriter, r *http.Request) {
	var addr netip.Addr
	n := 0
	says := func(r *http.Request) error {
		var body oldBan
		err := plainBody(r, &body)
		if err == nil {
			var network netip.Prefix
			if network, err = netrestrict.ParsePrefix(body.Address); err != nil {
				return wrongAddress(err)
			}
			addr = network.Addr()
		}
		return err
	}
	s.do(w, r, says, func(ctx context.Context, tenant string) (err error) {
		if n, err = s.opts.Gate.LiftBan(ctx, tenant, addr); err == nil && n == 0 {
			err = ErrNoBan
		}
		callerOf(r).hasDone(banPath(addr), strconv.Quote("banned"), "")
		return err
	}, func(context.Context, string) (int, any, error) { return http.StatusOK, lifted{n}, nil })
}
