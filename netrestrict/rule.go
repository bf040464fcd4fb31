// A rule: who may connect, and until when; and the one spelling of each of its parts.

package netrestrict

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Rule is an entry of a list. Exactly one of Network, Endpoint and Flycast says whom it allows.
type Rule struct {
	Network  netip.Prefix // who comes from there
	Endpoint Endpoint     // who comes through it
	Flycast  netip.Addr   // who has connected to this address, which is in a private network of Fly's
	Comment  string       // for people
	Expires  time.Time    // from then on it allows nobody; zero: never
}

// expired reports whether the rule's time is over.
func (r *Rule) expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// compare orders rules: networks, endpoints, addresses of Flycast. Two that say the same are equal.
func (r Rule) compare(o Rule) int {
	return cmp.Or(
		cmp.Compare(r.kind(), o.kind()),
		r.Network.Addr().Compare(o.Network.Addr()), cmp.Compare(r.Network.Bits(), o.Network.Bits()),
		r.Endpoint.compare(o.Endpoint), r.Flycast.Compare(o.Flycast),
		strings.Compare(r.Comment, o.Comment), r.Expires.Compare(o.Expires))
}

// kind is the place among the rules of a list.
func (r *Rule) kind() int {
	switch {
	case r.Endpoint != Endpoint{}:
		return 1
	case r.Flycast.IsValid():
		return 2
	}
	return 0
}

// Cloud is whose private endpoints they are.
type Cloud string

// The clouds.
const (
	AWS   Cloud = "aws"
	Azure Cloud = "azure"
	GCP   Cloud = "gcp"
)

// Endpoint is a private endpoint, as the balancer at its other end names it.
type Endpoint struct {
	Provider Cloud
	ID       string // aws: of the VPC endpoint; azure: the link identifier; gcp: of the Private Service Connect connection
}

func (e Endpoint) compare(o Endpoint) int {
	return cmp.Or(cmp.Compare(e.Provider, o.Provider), strings.Compare(e.ID, o.ID))
}

var awsEndpoint = regexp.MustCompile(`^vpce-[0-9a-f]{8,64}$`)

// Check says what is wrong with an endpoint that somebody wrote down.
func (e Endpoint) Check() error {
	bits := 64
	switch e.Provider {
	case AWS:
		if !awsEndpoint.MatchString(e.ID) {
			return errors.New("id: must be the id of a VPC endpoint, such as vpce-08d2bf15fac5001c9")
		}
		return nil
	case Azure:
		bits = 32
	case GCP:
	case "":
		return errors.New("provider: is missing")
	default:
		return fmt.Errorf("provider: must be one of %s, %s, %s", AWS, Azure, GCP)
	}
	if n, err := strconv.ParseUint(e.ID, 10, bits); err != nil || strconv.FormatUint(n, 10) != e.ID {
		return fmt.Errorf("id: must be a number of %d bits, in plain decimal digits", bits)
	}
	return nil
}

// flycast has every private address of Fly's.
var flycast = netip.MustParsePrefix("fdaa::/16")

// IsFlycast reports whether an address can be one of Flycast's.
func IsFlycast(a netip.Addr) bool { return a.Zone() == "" && flycast.Contains(a) }

// ParseFlycast reads an address of Flycast's.
func ParseFlycast(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !IsFlycast(a) {
		return netip.Addr{}, fmt.Errorf("must be an address of Flycast's, which are in %s", flycast)
	}
	return a, nil
}

// ParseExpiry reads the time at which a rule ends.
func ParseExpiry(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 {
		return time.Time{}, errors.New("must be a time such as 2027-01-31T18:00:00Z")
	}
	return t.UTC(), nil
}

// MaxComment bounds a comment, in characters.
const MaxComment = 200

// Check says what is wrong with a rule.
func (r *Rule) Check() error {
	said := 0
	if r.Network != (netip.Prefix{}) {
		said++
		if err := checkPrefix(r.Network.String(), r.Network); err != nil {
			return err
		}
	}
	if r.Endpoint != (Endpoint{}) {
		said++
		if err := r.Endpoint.Check(); err != nil {
			return fmt.Errorf("endpoint.%w", err)
		}
	}
	if r.Flycast.IsValid() {
		said++
		if !IsFlycast(r.Flycast) {
			return fmt.Errorf("flycast: must be in %s", flycast)
		}
	}
	switch {
	case said != 1:
		return errors.New("needs exactly one of cidr, endpoint and flycast")
	case !utf8.ValidString(r.Comment) || strings.ContainsFunc(r.Comment, func(c rune) bool { return !unicode.IsPrint(c) }):
		return errors.New("comment: must be printable, on one line")
	case utf8.RuneCountInString(r.Comment) > MaxComment:
		return fmt.Errorf("comment: must have at most %d characters", MaxComment)
	}
	return nil
}
