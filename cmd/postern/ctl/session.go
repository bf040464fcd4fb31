// postern session: who is connected to a tenant.

package ctl

import (
	"errors"
	"net/http"

	"github.com/spf13/cobra"
)

func sessionCommand() *cobra.Command {
	return group("session", "See and end the sessions of a tenant",
		listing("list TENANT", "List the sessions that are open, on all nodes", 1, "sessions",
			[]column{{"ID", "id"}, {"NODE", "node"}, {"USER", "user"}, {"DATABASE", "database"}, {"ADDRESS", "client_address"}, {"MODE", "mode"}, {"STATE", "state"}, {"APPLICATION", "application_name"}, {"SINCE", "since"}, {"LAST ACTIVITY", "last_activity"}},
			func(args []string) call { return get("v1", "tenants", args[0], "sessions") }),
		endSession)
}

func endSession(r *remote) *cobra.Command {
	all := false
	cmd := &cobra.Command{Use: "end TENANT [ID]", Short: "End one session, or all of a tenant's", Args: cobra.RangeArgs(1, 2)}
	cmd.Flags().BoolVar(&all, "all", false, "all sessions of the tenant")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) == 2) {
			return usageError{errors.New("name one session, or say --all")}
		}
		path := []string{"v1", "tenants", args[0], "sessions"}
		return r.change(cmd, call{method: http.MethodDelete, path: append(path, args[1:]...)}, "ended")
	}
	return cmd
}
