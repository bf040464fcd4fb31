// postern cluster: the nodes that follow one store.

package ctl

import (
	"net/http"

	"github.com/spf13/cobra"
)

func clusterCommand() *cobra.Command {
	return group("cluster", "See and forget the nodes that follow one store", clusterStatus,
		simple("forget NODE", "Wait no longer for a node that went without a goodbye", "forgotten", 1, func(args []string) call {
			return call{method: http.MethodDelete, path: []string{"v1", "cluster", "nodes", args[0]}}
		}))
}

func clusterStatus(r *remote) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "List the nodes", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		answer, err := r.ask(cmd, get("v1", "cluster"))
		if err != nil {
			return err
		}
		return r.printList(cmd, answer, "nodes", []column{{"NODE", "name"}, {"SEEN", "seen"}, {"LIVE", "live"}, {"VERSION", "applied"}})
	}}
}
