// The store command: makes the store of tenants, fills it from a tenants file, and shows what it has. Of its nodes and its key: storenodes.go.

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/files"
	"github.com/postern/postern/tenants/postgres"
)

func newStore() *cobra.Command {
	cmd := &cobra.Command{Use: "store", Short: "Manage the store of tenants in a database", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newStoreInit(), newStoreImport(), newStoreExport(), newStoreRotateKey(), newStoreNodes(), newStoreForgetNode())
	for _, sub := range cmd.Commands() {
		run := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) error { return postgres.Explain(run(cmd, args)) }
	}
	return cmd
}

// storeConfig loads a configuration that has its tenants in a database.
func storeConfig(path string) (*configs.Config, error) {
	if err := needConfig(path); err != nil {
		return nil, err
	}
	conf, err := configs.Load(path)
	if err == nil && !conf.Tenants.InPostgres() {
		err = errors.New("the configuration has no tenants.postgres")
	}
	return conf, err
}

// storeConn is storeConfig, and how the database is reached: of the options, Conn alone.
func storeConn(path string) (conf *configs.Config, o postgres.Options, err error) {
	if conf, err = storeConfig(path); err == nil {
		o.Conn, err = postgres.ReadDSN(conf.Tenants.Postgres.DSNFile)
	}
	return conf, o, err
}

func newStoreInit() *cobra.Command {
	cmd := &cobra.Command{Use: "init", Short: "Make the store's tables, or bring them to this version; make the key file if there is none", Args: cobra.NoArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		conf, to, err := storeConn(*path)
		if err != nil {
			return err
		}
		made, err := postgres.MakeKeyFile(conf.Tenants.Postgres.KeyFile)
		if err != nil {
			return err
		}
		if made {
			fmt.Fprintf(cmd.OutOrStdout(), "made %s: keep a copy of it where the database is not\n", conf.Tenants.Postgres.KeyFile)
		}
		if _, err := postgres.ReadKeys(conf.Tenants.Postgres.KeyFile); err != nil {
			return err
		}
		version, err := postgres.Init(cmd.Context(), to.Conn)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "the store is there, its tables have version %d\n", version)
		return err
	}
	return cmd
}

func newStoreImport() *cobra.Command {
	cmd := &cobra.Command{Use: "import TENANTS.YAML", Short: "Bring the store to what a tenants file says", Args: cobra.ExactArgs(1),
		Long: "Brings the store to what a tenants file says, in one transaction, and prints what is different. Tenants that are not in\n" +
			"the file stay, unless --prune is given."}
	path := configFlag(cmd)
	var o postgres.ImportOptions
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only print what is different")
	cmd.Flags().BoolVar(&o.Prune, "prune", false, "remove the tenants that are not in the file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, err := storeConfig(*path)
		if err != nil {
			return err
		}
		from, err := postgresOptions(conf)
		if err != nil {
			return err
		}
		s, err := loadTenants(conf, args[0], files.NewLane())
		if err != nil {
			return err
		}
		if err := errors.Join(conf.CheckExposure(s.AnyAllowList()), conf.CheckProviders(s.Providers())); err != nil {
			return err
		}
		n, err := postgres.Import(cmd.Context(), from.Conn, from.Keys, s.Tenants, o, cmd.OutOrStdout())
		if err != nil {
			return err
		}
		done := "changed"
		if o.DryRun {
			done = "would be changed"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d of %d tenants in %s: %s\n", n, len(s.Tenants), args[0], done)
		return err
	}
	return cmd
}

func newStoreExport() *cobra.Command {
	cmd := &cobra.Command{Use: "export", Short: "Print what the store has as YAML, without secrets", Args: cobra.NoArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, from, err := storeConn(*path)
		if err != nil {
			return err
		}
		return postgres.Export(cmd.Context(), from.Conn, cmd.OutOrStdout())
	}
	return cmd
}
