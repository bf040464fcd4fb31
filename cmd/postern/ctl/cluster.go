// postern cluster: the nodes that follow one store.

package ctl

import (
	"net/http"

	"github.com/spf13/cobra"
)

func clusterCommand() *cobra.Command {
	return group("cluster", "See and forget the nodes that follow one store", clusterStatus,
		simple("forget NODE", "Wait no longer for a node that went without a goodbye", "forgotten", 1, func(args []string) call {
			return call{method: http.MethodDelete, path: []string{"v1", "cluster", args[0]}}
		}))
}

func clusterStatus(r *remote) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "List the nodes", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return r.printList(cmd, get("v1", "cluster"), "nodes", []column{{"NODE", "name"}, {"REGION", "region"}, {"ADDRESS", "address"}, {"MEMBER", "member.state"},
			{"SEEN", "seen"}, {"SILENT", "silent"}, {"LEAVING", "leaving"}, {"IN FORCE", "applied"}, {"NOT IN FORCE", "refused"}, {"KEYS", "keys"}})
	}}
}
