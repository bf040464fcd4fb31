// postern ban: addresses that have to wait before they may try a password again.

package ctl

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func banCommand() *cobra.Command {
	return group("ban", "See, make and lift bans of addresses at a tenant",
		listing("list TENANT", "List the addresses that are banned now", 1, "bans",
			[]column{{"ADDRESS", "address"}, {"SECONDS LEFT", "seconds_left"}, {"FAILURES", "failures"}, {"MADE BY HAND", "manual"}},
			func(args []string) call { return get("v1", "tenants", args[0], "bans") }),
		addBan,
		simple("lift TENANT ADDRESS", "End the ban of an address", "lifted", 2, func(args []string) call {
			return call{method: http.MethodDelete, path: []string{"v1", "tenants", args[0], "bans"}, body: map[string]any{"address": args[1]}}
		}),
	)
}

func addBan(r *remote) *cobra.Command {
	var lasts time.Duration
	cmd := &cobra.Command{Use: "add TENANT ADDRESS", Short: "Ban an address or a network for a time", Args: cobra.ExactArgs(2)}
	cmd.Flags().DurationVar(&lasts, "for", time.Hour, "how long")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := map[string]any{"address": args[1], "seconds": int(lasts.Seconds())}
		return r.change(cmd, call{method: http.MethodPost, path: []string{"v1", "tenants", args[0], "bans"}, body: body}, "banned")
	}
	return cmd
}
