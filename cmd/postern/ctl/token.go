// postern token: who may ask the admin API, and for what.

package ctl

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	return group("token", "Make, list and revoke tokens of the admin API", listTokens, makeToken,
		simple("revoke ID", "End a token", "revoked", 1, func(args []string) call {
			return call{method: http.MethodDelete, path: []string{"v1", "tokens", args[0]}}
		}))
}

func listTokens(r *remote) *cobra.Command {
	tenant := ""
	cmd := &cobra.Command{Use: "list", Short: "List tokens", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of one tenant")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := get("v1", "tokens")
		c.query = url.Values{"limit": {"1000"}}
		if tenant != "" {
			c.query.Set("tenant", tenant)
		}
		rows, err := r.pages(cmd, c, "tokens")
		if err != nil {
			return err
		}
		slices.SortStableFunc(rows, func(a, b any) int { return strings.Compare(cell(at(a, "created")), cell(at(b, "created"))) })
		return r.printRows(cmd, rows, "tokens", []column{{"ID", "id"}, {"NAME", "name"}, {"SCOPE", "scope"}, {"TENANT", "tenant"}, {"CREATED", "created"}, {"EXPIRES", "expires"}, {"USED", "used"}})
	}
	return cmd
}

func makeToken(r *remote) *cobra.Command {
	var scope, tenant, form string
	var lasts time.Duration
	cmd := &cobra.Command{Use: "make NAME", Short: "Make a token, which is shown this once", Args: cobra.ExactArgs(1)}
	flags := cmd.Flags()
	flags.StringVar(&scope, "scope", "", "operator, metrics, tenant:write or tenant:read")
	flags.StringVar(&tenant, "tenant", "", "of a tenant's scope: which")
	flags.DurationVar(&lasts, "for", 0, "how long it is valid, such as 720h; 0: until it is revoked")
	flags.StringVar(&form, "form", "", "supabase: of the form that Supabase's command line takes")
	_ = cmd.MarkFlagRequired("scope") // there is such a flag
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := map[string]any{"name": args[0], "scope": scope}
		if tenant != "" {
			body["tenant"] = tenant
		}
		if form != "" {
			body["form"] = form
		}
		end, err := endOf(lasts)
		if err != nil {
			return err
		}
		if end != "" {
			body["expires"] = end
		}
		answer, err := r.ask(cmd, call{method: http.MethodPost, path: []string{"v1", "tokens"}, body: body})
		if err != nil {
			return err
		}
		return r.print(cmd, answer, func() error { return printToken(cmd, answer) })
	}
	return cmd
}

// printToken writes the token to standard output, alone, so that it can go to a file, and the rest beside it.
func printToken(cmd *cobra.Command, answer json.RawMessage) error {
	v, err := decode(answer)
	if err != nil {
		return err
	}
	cmd.PrintErrf("token %s is made; it is not shown again:\n", cell(at(v, "id")))
	cmd.Println(cell(at(v, "token")))
	return nil
}
