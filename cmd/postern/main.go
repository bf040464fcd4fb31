// Command postern is the guarded gate in front of many people's Postgres. See the README.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern/postern/cmd/postern/ctl"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong use of the command line
)

// usageError is a wrong use of the command line.
type usageError struct{ error }

func main() {
	err := newRoot().ExecuteContext(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern:", err)
	}
	os.Exit(exitCode(err))
}

// exitCode is what the process ends with after err. Cobra has no type for some
// wrong uses, only their text.
func exitCode(err error) int {
	var usage usageError
	var asked ctl.UsageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &asked), strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"):
		return exitUsage
	default:
		return exitFailed
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "postern",
		Short:         "The guarded gate in front of many people's Postgres",
		Long:          "Postern is a PostgreSQL proxy and pooler for many tenants. It runs behind a TCP load balancer, learns from\nPROXY protocol who is calling, judges the address and the password, and lends a pooled server connection.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return flagsFromEnv(cmd.Flags())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(wrongUse)
	root.AddCommand(newServe(), newCheckConfig(), newDemo(), newVerifier(), newStore(), newVersion())
	root.AddCommand(ctl.Commands(readPassword, newAuditVerify())...)
	usageOfArgs([]*cobra.Command{root})
	return root
}

// wrongUse is an error about how a command was called, with where to read how it is.
func wrongUse(cmd *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
}

// usageOfArgs makes wrong arguments wrong uses.
func usageOfArgs(all []*cobra.Command) {
	for _, c := range all {
		if args := c.Args; args != nil {
			c.Args = func(cmd *cobra.Command, a []string) error {
				if err := args(cmd, a); err != nil {
					return wrongUse(cmd, err)
				}
				return nil
			}
		}
		usageOfArgs(c.Commands())
	}
}

// flagsFromEnv gives flags that were not set the value of POSTERN_<FLAG>.
func flagsFromEnv(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "POSTERN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !f.Changed && err == nil {
			if e := flags.Set(f.Name, v); e != nil {
				err = usageError{fmt.Errorf("%s: %w", name, e)}
			}
		}
	})
	return err
}

// configFlag adds --config, which must be given here or in the environment.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", "", "the configuration file")
}

func needConfig(path string) error {
	if path == "" {
		return usageError{errors.New("--config is required")}
	}
	return nil
}
