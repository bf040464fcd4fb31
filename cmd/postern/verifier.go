// The verifier command: a password becomes what Postern and Postgres store of it.

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	rolelist "github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/proxy/scram"
)

func newVerifier() *cobra.Command {
	user, authQuery := "", false
	cmd := &cobra.Command{Use: "verifier", Short: "Make a SCRAM verifier of a password (on standard input or at a prompt)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if authQuery {
				if !cmd.Flags().Changed("user") {
					user = rolelist.Asker
				}
				_, err := io.WriteString(cmd.OutOrStdout(), rolelist.Setup(user))
				return err
			}
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			v, err := scram.NewVerifier(password, scram.DefaultIterations, nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, v.Encode())
			_, err = fmt.Fprintf(out, "ALTER ROLE %s PASSWORD '%s';\n", quoteIdent(user), v.Encode())
			return err
		}}
	cmd.Flags().StringVar(&user, "user", "app", "the role that the ALTER ROLE line names")
	cmd.Flags().BoolVar(&authQuery, "auth-query-sql", false, "print the SQL that lets a tenant's auth_query user list roles, instead (--user: "+rolelist.Asker+")")
	return cmd
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func readPassword(cmd *cobra.Command) (string, error) {
	var line string
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), "Password: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", err
		}
		line = string(b)
	} else {
		s, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", err
		}
		line = strings.TrimRight(s, "\r\n")
	}
	if line == "" {
		return "", errors.New("the password is empty")
	}
	return line, nil
}
