// The commands, and what they have in common: where the API is, who asks, and how answers are printed.

package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// UsageError is a wrong use of the command line.
type UsageError = usageError

type usageError struct{ error }

// Unwrap implements errors.Unwrap.
func (e usageError) Unwrap() error { return e.error }

const defaultAPI = "http://127.0.0.1:9187"

// remote is how a command reaches the API, from its flags.
type remote struct {
	api, tokenFile string
	json           bool
}

// Commands returns the commands that ask the admin API. password reads one, at a prompt if there is a terminal; verify is the audit
// command that asks the store.
func Commands(password func(*cobra.Command) (string, error), verify *cobra.Command) []*cobra.Command {
	return []*cobra.Command{tenantCommand(), userCommand(password), restrictionCommand(), banCommand(), tokenCommand(), sessionCommand(), auditCommand(verify), clusterCommand()}
}

// group makes a command of commands, with the flags that all of them have.
func group(use, short string, subs ...func(*remote) *cobra.Command) *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	flags := cmd.PersistentFlags()
	flags.StringVar(&r.api, "api", defaultAPI, "where the admin API is; POSTERN_API says it, too")
	flags.StringVar(&r.tokenFile, "token-file", "", "a file with the bearer token, also from POSTERN_TOKEN_FILE; without one the token is in POSTERN_TOKEN")
	flags.BoolVar(&r.json, "json", false, "print the API's answer, for programs")
	for _, sub := range subs {
		c := sub(r)
		c.ValidArgsFunction = r.complete
		cmd.AddCommand(c)
	}
	return cmd
}

// ask makes a call.
func (r *remote) ask(cmd *cobra.Command, c call) (json.RawMessage, error) {
	client, err := newClient(r.api, r.tokenFile)
	if err != nil {
		return nil, err
	}
	return client.do(cmd.Context(), c)
}

// print shows an answer: as it is, or in the way for people.
func (r *remote) print(cmd *cobra.Command, answer json.RawMessage, people func() error) error {
	if !r.json {
		return people()
	}
	if answer == nil {
		answer = json.RawMessage("{}")
	}
	v, err := decode(answer)
	if err != nil {
		return err
	}
	return indented(cmd.OutOrStdout(), v)
}

// printList shows all pages of a list, which answers have under key.
func (r *remote) printList(cmd *cobra.Command, c call, key string, columns []column) error {
	rows, err := r.pages(cmd, c, key)
	if err != nil {
		return err
	}
	return r.printRows(cmd, rows, key, columns)
}

// pages asks for all pages of a list.
func (r *remote) pages(cmd *cobra.Command, c call, key string) ([]any, error) {
	rows := []any{}
	for c.query = maps.Clone(c.query); ; {
		page, v, err := r.page(cmd, c, key)
		if err != nil {
			return nil, err
		}
		rows = append(rows, page...)
		warnMissing(cmd, v)
		next, _ := at(v, "next").(string)
		if next == "" {
			return rows, nil
		}
		if c.query == nil {
			c.query = url.Values{}
		}
		c.query.Set("after", next)
	}
}

// warnMissing names the nodes that an answer says nothing of, and says where it is an old one, as far as it tells that.
func warnMissing(cmd *cobra.Command, answer any) {
	if nodes, _ := at(answer, "missing").([]any); len(nodes) > 0 {
		cmd.PrintErrln("nodes that have not answered: " + cell(nodes))
	}
	if away, _ := at(answer, "store_away").(bool); away {
		cmd.PrintErrln("the store is away: nodes are listed as the one that was asked has read them there last; MEMBER alone is of now")
	}
}

// page asks for one page of a list, and returns all of the answer, too.
func (r *remote) page(cmd *cobra.Command, c call, key string) (rows []any, answer any, err error) {
	text, err := r.ask(cmd, c)
	if err != nil {
		return nil, nil, err
	}
	v, err := decode(text)
	if err != nil {
		return nil, nil, err
	}
	rows, ok := at(v, key).([]any)
	if !ok {
		return nil, nil, fmt.Errorf("the answer has no list of %s", key)
	}
	return rows, v, nil
}

func (r *remote) printRows(cmd *cobra.Command, rows []any, key string, columns []column) error {
	if r.json {
		return indented(cmd.OutOrStdout(), map[string]any{key: append([]any{}, rows...)})
	}
	return table(cmd.OutOrStdout(), rows, columns)
}

// change makes a call that changes something, and says what was done and where it is in force.
func (r *remote) change(cmd *cobra.Command, c call, done string) error {
	answer, err := r.ask(cmd, c)
	if err != nil {
		return err
	}
	return r.print(cmd, answer, func() error {
		v, err := decode(answer)
		if answer == nil {
			v, err = nil, nil
		}
		if err != nil {
			return err
		}
		cmd.Println(done + inForce(v))
		warnMissing(cmd, v)
		return nil
	})
}

// inForce says in words where a change is in force, if an answer tells that.
func inForce(answer any) string {
	switch everywhere := at(answer, "applied.everywhere"); {
	case everywhere == true:
		return ": in force everywhere"
	case everywhere == false:
		return ", and not in force yet on " + cell(at(answer, "applied.missing"))
	}
	return ""
}

// simple is a command that makes one call about what its arguments name, and says that it is done.
func simple(use, short, done string, args int, make func(args []string) call) func(*remote) *cobra.Command {
	return func(r *remote) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args),
			RunE: func(cmd *cobra.Command, args []string) error { return r.change(cmd, make(args), done) }}
	}
}

// listing is a command that shows a list about what its arguments name.
func listing(use, short string, args int, key string, columns []column, make func(args []string) call) func(*remote) *cobra.Command {
	return func(r *remote) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args),
			RunE: func(cmd *cobra.Command, args []string) error {
				return r.printList(cmd, make(args), key, columns)
			}}
	}
}

// showing is a command that shows one thing as JSON, which is what people edit.
func showing(use, short string, args int, make func(args []string) call) func(*remote) *cobra.Command {
	return func(r *remote) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args),
			RunE: func(cmd *cobra.Command, args []string) error {
				answer, err := r.ask(cmd, make(args))
				if err != nil {
					return err
				}
				v, err := decode(answer)
				if err != nil {
					return err
				}
				return indented(cmd.OutOrStdout(), v)
			}}
	}
}

// get is a call that reads.
func get(path ...string) call { return call{method: http.MethodGet, path: path} }

// complete completes a command's arguments by what its usage calls them: files, and tenants with their ids.
func (r *remote) complete(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	switch words := strings.Fields(cmd.Use)[1:]; {
	case len(args) < len(words) && words[len(args)] == "FILE":
		return nil, cobra.ShellCompDirectiveDefault
	case len(args) > 0 || len(words) == 0 || words[0] != "TENANT":
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	query := url.Values{"limit": {"100"}}
	if len(begun) > 1 { // the page begins behind it: one letter less, so that what is whole is found, too
		query.Set("after", begun[:len(begun)-1])
	}
	rows, _, err := r.page(cmd, call{method: http.MethodGet, path: []string{"v1", "tenants"}, query: query}, "tenants")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, row := range rows {
		if id, ok := at(row, "id").(string); ok && len(id) >= len(begun) && id[:len(begun)] == begun {
			ids = append(ids, id)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// endOf is when something ends that lasts so long from now; "" if it never does, which only 0 says.
func endOf(lasts time.Duration) (string, error) {
	switch {
	case lasts == 0:
		return "", nil
	case lasts < time.Second:
		return "", usageError{errors.New("--for must be 1s at least; without it there is no end")}
	}
	return time.Now().Add(lasts).UTC().Format(time.RFC3339), nil
}

var errConfirm = usageError{errors.New("this cannot be undone: say --yes")}
