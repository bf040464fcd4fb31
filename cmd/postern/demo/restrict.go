// The part of the visit that restricts: a tenant's list is changed while it serves, and its owner sees who was refused.

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// visitRestrict takes a network off acme's list: who is inside from there is sent away, who comes is refused, and both the owner and
// the rule say so. In the end the list is what it was.
func (s *scene) visitRestrict(ctx context.Context) (told string, err error) {
	inside, err := enter(ctx, s.uri(s.allowed, "acme"))
	if err != nil {
		return "", err
	}
	defer inside.leave(ctx)
	if _, err := inside.ask(ctx, "select 1"); err != nil {
		return "", err
	}
	file := filepath.Join(filepath.Dir(s.config), "tenants.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	list := "allow_list: " + bothTenants()[0].allowList
	after := strings.Replace(string(before), list, "allow_list: [127.0.0.0/8]", 1)
	if after == string(before) {
		return "", errors.New("acme's list is not in " + file)
	}
	if err := replace(file, []byte(after)); err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, replace(file, before), until(ctx, func() (bool, error) {
			v, err := enter(ctx, s.uri(s.allowed, "acme"))
			if err == nil {
				v.leave(ctx)
			}
			return err == nil, nil
		}))
	}()
	if err := until(ctx, func() (bool, error) { // the change is noticed
		_, err := inside.ask(ctx, "select 1")
		var ended *pgconn.PgError
		if errors.As(err, &ended) && ended.Code != "57P01" {
			return false, err
		}
		return err != nil, nil
	}); err != nil {
		return "", fmt.Errorf("the session that was open: %w", err)
	}
	if _, err := wantRefusal(ctx, s.uri(s.allowed, "acme"), "28000", allowedSource); err != nil {
		return "", err
	}
	seen := ""
	err = until(ctx, func() (bool, error) { // it is on the list behind the answer
		seen, err = s.refusal(ctx, "acme", allowedSource)
		return seen != "", err
	})
	return "its session ended; the owner's list has " + seen, err
}

// refusal is what the API tells the owner of an address; "": it is not on the list.
func (s *scene) refusal(ctx context.Context, tenant, address string) (string, error) {
	status, body, err := s.get(ctx, "/v1/tenants/"+tenant+"/refusals", s.token)
	if err != nil || status != http.StatusOK {
		return "", errors.Join(err, fmt.Errorf("status %d: %s", status, body))
	}
	var list struct {
		Refusals []struct {
			Address, Reason, User string
			Count                 int
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return "", err
	}
	for _, r := range list.Refusals {
		if r.Address == address {
			return fmt.Sprintf("%s, %s, user %s, %d times", r.Address, r.Reason, r.User, r.Count), nil
		}
	}
	return "", nil
}

// replace writes a file beside another one and renames it, so that nobody reads half of it.
func replace(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
