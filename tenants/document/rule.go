// The entries of an allow_list: a network as plain text, or an object with more to say.

package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// rule is an entry. One that has a network and nothing else is written as text.
type rule struct {
	CIDR     string    `json:"cidr,omitempty"`
	Endpoint *endpoint `json:"endpoint,omitempty"`
	Flycast  string    `json:"flycast,omitempty"`
	Comment  string    `json:"comment,omitempty"`
	Expires  string    `json:"expires,omitempty"`
}

type endpoint struct {
	Provider netrestrict.Cloud `json:"provider"`
	ID       string            `json:"id"`
}

// object is a rule without its methods.
type object rule

// MarshalJSON implements json.Marshaler.
func (r rule) MarshalJSON() ([]byte, error) {
	if r == (rule{CIDR: r.CIDR}) {
		return json.Marshal(r.CIDR)
	}
	return json.Marshal(object(r))
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *rule) UnmarshalJSON(text []byte) error {
	*r = rule{}
	if bytes.HasPrefix(text, []byte(`"`)) {
		return json.Unmarshal(text, &r.CIDR)
	}
	d := json.NewDecoder(bytes.NewReader(text)) // the outer one's strictness is not ours
	d.DisallowUnknownFields()
	err := d.Decode((*object)(r))
	if err == nil {
		err = exactKeys(text)
	}
	if err != nil {
		if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return fmt.Errorf("allow_list: a rule has no key %s", key)
		}
		return fmt.Errorf("allow_list: an entry is neither a network nor a rule: %w", err)
	}
	return nil
}

func ruleOf(r netrestrict.Rule) (d rule) {
	d.Comment = r.Comment
	if !r.Expires.IsZero() {
		d.Expires = r.Expires.Format(time.RFC3339Nano)
	}
	switch {
	case r.Network.IsValid():
		d.CIDR = r.Network.String()
	case r.Flycast.IsValid():
		d.Flycast = r.Flycast.String()
	default:
		d.Endpoint = &endpoint{r.Endpoint.Provider, r.Endpoint.ID}
	}
	return d
}

func (r rule) make() (netrestrict.Rule, error) {
	made := netrestrict.Rule{Comment: r.Comment}
	if r.Endpoint != nil {
		made.Endpoint = netrestrict.Endpoint{Provider: r.Endpoint.Provider, ID: r.Endpoint.ID}
	}
	err := errors.Join(
		part("cidr", r.CIDR, netrestrict.ParsePrefix, &made.Network),
		part("flycast", r.Flycast, netrestrict.ParseFlycast, &made.Flycast),
		part("expires", r.Expires, netrestrict.ParseExpiry, &made.Expires))
	if err == nil {
		err = made.Check()
	}
	return made, err
}

// part reads one of a rule's texts, if it is there.
func part[T netip.Prefix | netip.Addr | time.Time](key, text string, parse func(string) (T, error), into *T) (err error) {
	if text == "" {
		return nil
	}
	if *into, err = parse(text); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func allowList(list []rule) (*netrestrict.AllowList, error) {
	rules := make([]netrestrict.Rule, 0, len(list))
	for i, r := range list {
		made, err := r.make()
		if err != nil {
			return nil, tenants.Problem{Path: fmt.Sprintf("allow_list[%d]", i), Message: err.Error()}
		}
		rules = append(rules, made)
	}
	return netrestrict.CompileRules(rules)
}

// EncodeRule writes an entry of an allow_list as [Of] does.
func EncodeRule(r netrestrict.Rule) json.RawMessage { return Encode(ruleOf(r)) }
