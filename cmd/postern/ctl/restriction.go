// postern restriction: who may connect to a tenant, and who was refused.

package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

func restrictionCommand() *cobra.Command {
	return group("restriction", "Say who may connect to a tenant, and see who was refused",
		listRestrictions, addRestriction, removeRestriction, checkRestriction,
		listing("refused TENANT", "List the addresses that were refused last", 1, "refusals",
			[]column{{"ADDRESS", "address"}, {"REASON", "reason"}, {"MODE", "mode"}, {"USER", "user"}, {"COUNT", "count"}, {"FIRST", "first"}, {"LAST", "last"}},
			func(args []string) call { return get("v1", "tenants", args[0], "refusals") }),
	)
}

// readRestrictions returns a tenant's rules, nil for everybody, and its revision.
func (r *remote) readRestrictions(cmd *cobra.Command, tenant string) (*[]json.RawMessage, string, error) {
	answer, err := r.ask(cmd, get("v1", "tenants", tenant))
	if err != nil {
		return nil, "", err
	}
	var record tenantRecord
	err = json.Unmarshal(answer, &record)
	return record.Document.AllowList, record.Revision, err
}

// rule is an entry of an allow_list as the table shows it.
func rule(entry json.RawMessage) (map[string]any, error) {
	v, err := decode(entry)
	if text, ok := v.(string); ok {
		v = map[string]any{"cidr": text}
	}
	object, ok := v.(map[string]any)
	if err == nil && !ok {
		err = errors.New("the answer has a rule that is none")
	}
	return object, err
}

// expired reports whether a rule allows nobody any more, by this computer's clock.
func expired(rule map[string]any) bool {
	text, _ := rule["expires"].(string)
	end, err := time.Parse(time.RFC3339, text)
	return err == nil && !time.Now().Before(end)
}

// without returns the entries but for those that go, in a list that is never nil: that would be everybody.
func without(entries *[]json.RawMessage, goes func(rule map[string]any) bool) ([]json.RawMessage, error) {
	now := []json.RawMessage{}
	if entries == nil {
		return now, nil
	}
	for _, entry := range *entries {
		object, err := rule(entry)
		if err != nil {
			return nil, err
		}
		if !goes(object) {
			now = append(now, entry)
		}
	}
	return now, nil
}

// names reports whether a rule is for one of some networks.
func names(cidrs []string, rule map[string]any) bool {
	cidr, _ := rule["cidr"].(string)
	return cidr != "" && slices.ContainsFunc(cidrs, func(s string) bool { return canonical(s) == canonical(cidr) })
}

func listRestrictions(r *remote) *cobra.Command {
	return &cobra.Command{Use: "list TENANT", Short: "List the rules of who may connect", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, _, err := r.readRestrictions(cmd, args[0])
			if err != nil {
				return err
			}
			if r.json {
				return indented(cmd.OutOrStdout(), entries)
			}
			if entries == nil {
				cmd.Println("there are none: everybody may connect")
				return nil
			}
			var rows []any
			for _, entry := range *entries {
				row, err := rule(entry)
				if err != nil {
					return err
				}
				if expired(row) {
					row["expires"] = row["expires"].(string) + " (expired)"
				}
				rows = append(rows, row)
			}
			return table(cmd.OutOrStdout(), rows, []column{{"RULE", "cidr|endpoint|flycast"}, {"EXPIRES", "expires"}, {"COMMENT", "comment"}})
		}}
}

// changeRestrictions edits the list as it is, again if somebody else was faster.
func (r *remote) changeRestrictions(cmd *cobra.Command, tenant string, confirm bool, done string, edit func(*[]json.RawMessage) ([]json.RawMessage, error)) error {
	const tries = 5
	for try := 1; ; try++ {
		entries, revision, err := r.readRestrictions(cmd, tenant)
		if err != nil {
			return err
		}
		now, err := edit(entries)
		if err != nil {
			return err
		}
		c := call{method: http.MethodPatch, path: []string{"v1", "tenants", tenant}, body: map[string]any{"allow_list": now}, match: revision}
		if confirm {
			c.query = url.Values{"confirm": {"true"}}
		}
		if err = r.change(cmd, c, done); !isStatus(err, http.StatusPreconditionFailed) || try == tries {
			return err
		}
	}
}

func addRestriction(r *remote) *cobra.Command {
	var comment string
	var lasts time.Duration
	var confirm bool
	cmd := &cobra.Command{Use: "add TENANT CIDR...", Short: "Let a network connect, beside those that may", Args: cobra.MinimumNArgs(2),
		Long: "Lets networks connect. With the first rule of a tenant everybody else is refused from then on, and who is connected from elsewhere is\nended; " +
			"if that is everybody, it is asked for --confirm. A rule for the same network that has expired goes."}
	cmd.Flags().StringVar(&comment, "comment", "", "why, for people")
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long the rule lasts, such as 8h; 0: until it is removed")
	cmd.Flags().BoolVar(&confirm, "confirm", false, "even if all sessions that are open now are ended by it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		end, err := endOf(lasts)
		if err != nil {
			return err
		}
		return r.changeRestrictions(cmd, args[0], confirm, "added", func(entries *[]json.RawMessage) ([]json.RawMessage, error) {
			now, err := without(entries, func(rule map[string]any) bool { return names(args[1:], rule) && expired(rule) })
			if err != nil {
				return nil, err
			}
			for _, cidr := range args[1:] {
				entry := map[string]any{"cidr": cidr}
				if comment != "" {
					entry["comment"] = comment
				}
				if end != "" {
					entry["expires"] = end
				}
				var text []byte
				if len(entry) == 1 {
					text, err = json.Marshal(cidr)
				} else {
					text, err = json.Marshal(entry)
				}
				if err != nil {
					return nil, err
				}
				now = append(now, text)
			}
			return now, nil
		})
	}
	return cmd
}

func removeRestriction(r *remote) *cobra.Command {
	var confirm bool
	cmd := &cobra.Command{Use: "remove TENANT CIDR...", Short: "Take rules out; without any left nobody may connect", Args: cobra.MinimumNArgs(2)}
	cmd.Flags().BoolVar(&confirm, "confirm", false, "even if all sessions that are open now are ended by it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return r.changeRestrictions(cmd, args[0], confirm, "removed", func(entries *[]json.RawMessage) ([]json.RawMessage, error) {
			left := slices.Clone(args[1:])
			now, err := without(entries, func(rule map[string]any) bool {
				left = slices.DeleteFunc(left, func(cidr string) bool { return names([]string{cidr}, rule) })
				return names(args[1:], rule)
			})
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("there is no rule %s", cell(left[0]))
			}
			return now, err
		})
	}
	return cmd
}

// canonical is a network as the API writes it: an address is the network of it alone.
func canonical(cidr string) string {
	if a, err := netip.ParseAddr(cidr); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()).String()
	}
	if p, err := netip.ParsePrefix(cidr); err == nil {
		return p.String()
	}
	return cidr
}

func checkRestriction(r *remote) *cobra.Command {
	return &cobra.Command{Use: "check TENANT ADDRESS", Short: "Say whether an address may connect, and which rule decides", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := r.ask(cmd, call{method: http.MethodPost, path: []string{"v1", "tenants", args[0], "restrictions", "check"}, body: map[string]any{"address": args[1]}})
			if err != nil {
				return err
			}
			return r.print(cmd, answer, func() error {
				v, err := decode(answer)
				if err != nil {
					return err
				}
				return table(cmd.OutOrStdout(), []any{v}, []column{{"ALLOWED", "allowed"}, {"MODE", "mode"}, {"RULE", "rule.cidr|rule.endpoint|rule.flycast|rule"}, {"WHY", "text|reason"}})
			})
		}}
}
