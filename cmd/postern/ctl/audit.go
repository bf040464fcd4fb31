// postern audit: who has changed what, and who was refused.

package ctl

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func auditCommand(verify *cobra.Command) *cobra.Command {
	return group("audit", "Read the log of changes", listAudit, func(*remote) *cobra.Command { return verify })
}

func listAudit(r *remote) *cobra.Command {
	var tenant string
	var limit int
	var before int64
	cmd := &cobra.Command{Use: "list", Short: "List what was changed, the latest first", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only of one tenant")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many")
	cmd.Flags().Int64Var(&before, "before", 0, "only those with smaller numbers")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := get("v1", "audit")
		c.query = url.Values{"limit": {strconv.Itoa(limit)}}
		if tenant != "" {
			c.query.Set("tenant", tenant)
		}
		if before > 0 {
			c.query.Set("before", strconv.FormatInt(before, 10))
		}
		rows, _, err := r.page(cmd, c, "entries")
		if err != nil {
			return err
		}
		if !r.json {
			shorten(rows)
		}
		return r.printRows(cmd, rows, "entries", []column{{"NUMBER", "number"}, {"AT", "at"}, {"WHO", "by.name"}, {"FROM", "by.address"}, {"ACTION", "action"}, {"TENANT", "tenant"}, {"OUTCOME", "outcome"}, {"IN FORCE", "nodes"}, {"CHANGED", "paths"}})
	}
	return cmd
}

// shorten makes rows fit a table: of many paths and nodes it has the first, and of a long outcome the beginning.
func shorten(rows []any) {
	const items, letters = 3, 60
	for _, row := range rows {
		row, ok := row.(map[string]any)
		if !ok {
			continue
		}
		for name, path := range map[string]string{"paths": "changes.path", "nodes": "applied.node"} {
			all, ok := at(row, path).([]any)
			if n := len(all) - items; n > 1 {
				all = append(slices.Clone(all[:items]), fmt.Sprintf("and %d more", n))
			}
			if ok {
				row[name] = all
			}
		}
		if outcome, ok := row["outcome"].(string); ok && utf8.RuneCountInString(outcome) > letters {
			row["outcome"] = string([]rune(outcome)[:letters]) + "…"
		}
	}
}
