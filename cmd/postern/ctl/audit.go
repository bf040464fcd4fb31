// postern audit: who has changed what, and who was refused.

package ctl

import (
	"net/url"
	"strconv"

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
		return r.printPage(cmd, c, "entries", []column{{"NUMBER", "number"}, {"AT", "at"}, {"WHO", "by.name"}, {"FROM", "by.address"}, {"ACTION", "action"}, {"TENANT", "tenant"}, {"OUTCOME", "outcome"}, {"CHANGED", "changes.path"}})
	}
	return cmd
}
