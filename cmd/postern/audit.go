// The audit command's part that asks the store itself: whether its log is what was written.

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern/postern/tenants/postgres"
)

func newAuditVerify() *cobra.Command {
	cmd := &cobra.Command{Use: "verify", Short: "Check that no row of the log in the store was changed or taken out", Args: cobra.NoArgs,
		Long: "Reads the whole log from the database, without the admin API, and computes its chain. Keep the number and the chain that are\n" +
			"printed elsewhere: a log whose end was taken away, or that was written anew, shows in them alone."}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withRegistry(*path, func(r *postgres.Registry) error {
			last, err := r.VerifyAudit(cmd.Context())
			if err != nil {
				return postgres.Explain(err)
			}
			if last.Number == 0 {
				cmd.Println("the log is empty")
				return nil
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d rows are as they were written, the last one at %s\nchain %s\n", last.Number, last.At.UTC().Format(time.RFC3339), last.Chain)
			return err
		})
	}
	return cmd
}
