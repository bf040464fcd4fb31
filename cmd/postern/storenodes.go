// The store command's part for operators of many nodes: who follows the store, who is to be forgotten, and another key for all.

package main

import (
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
)

func newStoreRotateKey() *cobra.Command {
	cmd := &cobra.Command{Use: "rotate-key", Short: "Seal all secrets of the store with a new key, and say when the old one can go", Args: cobra.NoArgs,
		Long: "Makes a new key in the key file, waits until every node has it, puts it first, seals all secrets with it, and waits until\n" +
			"nothing needs the old one. Nodes read their key file again when it changes: copying it there is left to you. It can be\n" +
			"interrupted, and goes on when it is started again."}
	path := configFlag(cmd)
	var o postgres.RotateOptions
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only print what there is to do")
	cmd.Flags().StringVar(&o.To, "to", "", "the id of a key that the key file has already, instead of a new one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		conf, to, err := storeConn(*path)
		if err != nil {
			return err
		}
		o.Conn = to.Conn
		o.KeyFile, o.Out = conf.Tenants.Postgres.KeyFile, cmd.OutOrStdout()
		return postgres.RotateKey(cmd.Context(), o)
	}
	return cmd
}

func newStoreNodes() *cobra.Command {
	cmd := &cobra.Command{Use: "nodes", Short: "List the processes that follow the store", Args: cobra.NoArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withRegistry(*path, func(r *postgres.Registry) error {
			nodes, err := r.Nodes(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATE\tSTARTED\tSEEN\tAPPLIED\tKEYS\tREFUSED")
			for _, n := range nodes {
				state := "alive"
				if n.Silent {
					state = "silent"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", n.Name, state, n.Started.UTC().Format(time.RFC3339), n.Seen.UTC().Format(time.RFC3339), n.Applied,
					strings.Join(n.Keys, ","), strings.Join(n.Refused, ","))
			}
			return w.Flush()
		})
	}
	return cmd
}

func newStoreForgetNode() *cobra.Command {
	cmd := &cobra.Command{Use: "forget-node NAME", Short: "Say that a node will not come back, so that nobody waits for it", Args: cobra.ExactArgs(1)}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withRegistry(*path, func(r *postgres.Registry) error {
			return r.ForgetNode(cmd.Context(), tenants.Actor{Name: "cli"}, args[0])
		})
	}
	return cmd
}

// withRegistry asks the store that a configuration names.
func withRegistry(path string, do func(*postgres.Registry) error) error {
	conf, err := storeConfig(path)
	if err != nil {
		return err
	}
	o, err := postgresOptions(conf)
	if err != nil {
		return err
	}
	o.Log = slog.New(slog.DiscardHandler)
	r, err := postgres.NewRegistry(o)
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}
