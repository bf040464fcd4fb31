// Export: what the store has, for people to read, without secrets.

package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// exportHead opens an export.
const exportHead = "# What the store has, without secrets: verifiers, passwords and keys are left out, and certificates stand there themselves.\n"

// Export writes all tenants as YAML, in the order of their ids, with every value and without secrets. Nothing is opened, so that
// no key is needed.
func Export(ctx context.Context, conf *pgx.ConnConfig, out io.Writer) error {
	conn, err := connect(ctx, conf)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	type exportedUser struct {
		Name string `json:"name"`
		document.User
	}
	type exported struct {
		ID string `json:"id"`
		document.Tenant
		Users []exportedUser `json:"users"`
	}
	var all []exported
	var r document.Reader
	if err := snapshot(ctx, conn, func(tx pgx.Tx) error {
		return readRows(ctx, tx, func(in row) error {
			t, err := r.Tenant(in.ID, in.Document)
			if err != nil {
				return fmt.Errorf("tenant %s: %w", in.ID, err)
			}
			t.Complete()
			e := exported{ID: in.ID, Tenant: document.Of(t), Users: []exportedUser{}}
			for _, u := range in.Users {
				var d document.User
				if err := document.Decode(u.Document, &d); err != nil {
					return fmt.Errorf("tenant %s: %s: %w", in.ID, tenants.UserPath(u.Name), err)
				}
				e.Users = append(e.Users, exportedUser{u.Name, d})
			}
			slices.SortFunc(e.Users, func(a, b exportedUser) int { return cmp.Compare(a.Name, b.Name) })
			all = append(all, e)
			return nil
		}, selectAll+` ORDER BY t.id`)
	}); err != nil {
		return err
	}
	return writeYAML(out, map[string]any{"tenants": all})
}

// writeYAML writes what has a form in JSON.
func writeYAML(out io.Writer, v any) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(document.Encode(v), &doc); err != nil { // YAML has JSON in it
		return err
	}
	block(&doc)
	var text bytes.Buffer
	text.WriteString(exportHead)
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&doc), e.Close()); err != nil {
		return err
	}
	_, err := out.Write(text.Bytes())
	return err
}

// block writes nodes as people do: over lines, and without quotes where none are needed.
func block(n *yaml.Node) {
	if len(n.Content) > 0 {
		n.Style = 0
	} else if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		n.Style = 0
		if bytes.ContainsRune([]byte(n.Value), '\n') {
			n.Style = yaml.LiteralStyle
		}
	}
	for _, c := range n.Content {
		block(c)
	}
}
