// postern tenant: the tenants of the store, and their machines.

package ctl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func tenantCommand() *cobra.Command {
	post := func(what ...string) func(args []string) call {
		return func(args []string) call {
			return call{method: http.MethodPost, path: append([]string{"v1", "tenants", args[0]}, what...)}
		}
	}
	return group("tenant", "Manage tenants",
		listTenants,
		showing("show TENANT", "Show a tenant", 1, func(args []string) call { return get("v1", "tenants", args[0]) }),
		putTenant, patchTenant, deleteTenant,
		simple("pause TENANT", "Let what runs finish, and what comes wait", "paused", 1, post("pause")),
		simple("resume TENANT", "End a pause", "resumed", 1, post("resume")),
		simple("wake TENANT", "Start to wake the tenant's machine", "waking", 1, post("machine", "wake")),
		simple("suspend TENANT", "Start to put the tenant's machine to sleep", "falling asleep", 1, post("machine", "suspend")),
	)
}

func listTenants(r *remote) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List tenants", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c := get("v1", "tenants")
		c.query = url.Values{"limit": {"1000"}}
		return r.printList(cmd, c, "tenants", []column{{"TENANT", "id"}, {"SERVER", "document.upstream.host|document.machine.app|document.machine.name"},
			{"DATABASE", "document.database"}, {"POOL", "document.pool.size"}, {"TLS REQUIRED", "document.require_tls"}, {"CHANGED", "changed"}, {"REVISION", "revision"}})
	}}
}

// conditions are the flags of commands that replace something.
type conditions struct {
	create, confirm bool
	match           string
}

func (c *conditions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.match, "if-revision", "", "only if this is the tenant's revision, as show has it")
	cmd.Flags().BoolVar(&c.confirm, "confirm", false, "even if all sessions that are open now are ended by it")
}

func (c *conditions) apply(to call) call {
	to.match = c.match
	if c.create {
		to.match = "*"
	}
	if c.confirm {
		to.query = url.Values{"confirm": {"true"}}
	}
	return to
}

func putTenant(r *remote) *cobra.Command {
	var when conditions
	cmd := &cobra.Command{Use: "put TENANT FILE", Short: "Make a tenant what a file says (YAML or JSON; - is standard input); its users stay", Args: cobra.ExactArgs(2),
		Long: "Makes a tenant what a file says, YAML or JSON (- is standard input). The keys are those of an entry of a tenants file, less id and users;\n" +
			"in place of a password_file there is the password itself. Users stay; without any nobody can log in: see postern user put.",
		Example: "  echo 'upstream: {host: acme-db.internal}' | postern tenant put acme -"}
	when.flags(cmd)
	cmd.Flags().BoolVar(&when.create, "create", false, "only if there is no such tenant")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		document, err := readDocument(cmd, args[1])
		if err != nil {
			return err
		}
		err = r.change(cmd, when.apply(call{method: http.MethodPut, path: []string{"v1", "tenants", args[0]}, body: document}), "stored")
		if when.create && isStatus(err, http.StatusPreconditionFailed) {
			return fmt.Errorf("there is a tenant %s already (%d)", cell(args[0]), http.StatusPreconditionFailed)
		}
		return err
	}
	return cmd
}

func patchTenant(r *remote) *cobra.Command {
	var when conditions
	cmd := &cobra.Command{Use: "patch TENANT FILE", Short: "Change what a file names of a tenant, and nothing else (a JSON merge patch, or the same in YAML)", Args: cobra.ExactArgs(2)}
	when.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		patch, err := readDocument(cmd, args[1])
		if err != nil {
			return err
		}
		return r.change(cmd, when.apply(call{method: http.MethodPatch, path: []string{"v1", "tenants", args[0]}, body: patch}), "stored")
	}
	return cmd
}

func deleteTenant(r *remote) *cobra.Command {
	yes := false
	cmd := &cobra.Command{Use: "delete TENANT", Short: "Remove a tenant with its users; its sessions end", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes {
			return errConfirm
		}
		return r.change(cmd, call{method: http.MethodDelete, path: []string{"v1", "tenants", args[0]}}, "removed")
	}
	return cmd
}

// tenantRecord is what an answer has of a tenant.
type tenantRecord struct {
	Revision string `json:"revision"`
	Document struct {
		AllowList *[]json.RawMessage `json:"allow_list"`
	} `json:"document"`
}
