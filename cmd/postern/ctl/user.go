// postern user: the users of a tenant, and their passwords.

package ctl

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern/postern/proxy/scram"
)

func userPath(args []string) []string { return []string{"v1", "tenants", args[0], "users", args[1]} }

func userCommand(password func(*cobra.Command) (string, error)) *cobra.Command {
	return group("user", "Manage the users of a tenant",
		listing("list TENANT", "List users", 1, "users",
			[]column{{"USER", "name"}, {"VERIFIER", "verifier_set"}, {"PASSWORD", "password_set"}, {"SERVER PASSWORD", "server_password_set"}, {"POOL", "document.pool_size"}, {"SERVER ROLE", "document.upstream.user"}},
			func(args []string) call { return get("v1", "tenants", args[0], "users") }),
		showing("show TENANT USER", "Show a user, without secrets", 2, func(args []string) call { return get(userPath(args)...) }),
		putUser, setPassword(password), deleteUser,
	)
}

func putUser(r *remote) *cobra.Command {
	return &cobra.Command{Use: "put TENANT USER FILE", Short: "Make a user what a file says (YAML or JSON; - is standard input); secrets that it does not name stay",
		Args: cobra.ExactArgs(3),
		Long: "Makes a user what a file says, YAML or JSON (- is standard input): pool_size, max_clients, max_servers, timeouts, upstream: {user, auth}, and\n" +
			"the secrets verifier or password, and server_password. A new user needs a verifier (postern verifier makes one) or a password.",
		Example: "  echo 'verifier: \"SCRAM-SHA-256$4096:…\"' | postern user put acme app -",
		RunE: func(cmd *cobra.Command, args []string) error {
			document, err := readDocument(cmd, args[2])
			if err != nil {
				return err
			}
			return r.change(cmd, call{method: http.MethodPut, path: userPath(args), body: document}, "stored")
		}}
}

// setPassword sends a verifier: the password itself stays here.
func setPassword(password func(*cobra.Command) (string, error)) func(*remote) *cobra.Command {
	return func(r *remote) *cobra.Command {
		return &cobra.Command{Use: "password TENANT USER", Short: "Give a user a new password, read at a prompt or from standard input", Args: cobra.ExactArgs(2),
			Long: "Reads a password, makes a SCRAM verifier of it, and sends that alone. The role in Postgres needs the same verifier, unless the user\n" +
				"has a server password or a certificate of its own: the ALTER ROLE that gives it to the role is printed. Run it at once, as a superuser.",
			RunE: func(cmd *cobra.Command, args []string) error {
				text, err := password(cmd)
				if err != nil {
					return err
				}
				v, err := scram.NewVerifier(text, scram.DefaultIterations, nil)
				if err != nil {
					return err
				}
				body := map[string]any{"verifier": v.Encode()} // which takes the place of a password
				answer, err := r.ask(cmd, call{method: http.MethodPatch, path: userPath(args), body: body})
				if isStatus(err, http.StatusNotFound) {
					return fmt.Errorf("%w: postern user put makes one", err)
				}
				if err != nil {
					return err
				}
				return r.print(cmd, answer, func() error {
					user, err := decode(answer)
					if err != nil {
						return err
					}
					cmd.Println("stored" + inForce(user))
					return alterRole(cmd, user, args[1], v.Encode())
				})
			}}
	}
}

// alterRole prints what gives a user's role in Postgres the same verifier, where that is what logs in there.
func alterRole(cmd *cobra.Command, user any, role, verifier string) error {
	if auth, ok := at(user, "document.upstream.auth").(string); at(user, "server_password_set") == true || ok && auth != "scram" {
		return nil
	}
	if other, ok := at(user, "document.upstream.user").(string); ok {
		role = other
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "ALTER ROLE \"%s\" PASSWORD '%s';\n", printable(strings.ReplaceAll(role, `"`, `""`)), verifier)
	return err
}

func deleteUser(r *remote) *cobra.Command {
	yes := false
	cmd := &cobra.Command{Use: "delete TENANT USER", Short: "Remove a user; its sessions end", Args: cobra.ExactArgs(2)}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes {
			return errConfirm
		}
		return r.change(cmd, call{method: http.MethodDelete, path: userPath(args)}, "removed")
	}
	return cmd
}
