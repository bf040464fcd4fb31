// The tenants of the store: listed, read, and changed as whole documents or by merge patches.

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// maxDocument bounds a tenant's document: one with ten thousand networks, each with a comment.
const maxDocument = 2 << 20

// tenantView is a tenant as answers have it.
type tenantView struct {
	ID       string          `json:"id"`
	Revision string          `json:"revision"` // the ETag without its quotes
	Changed  *string         `json:"changed"`
	Document json.RawMessage `json:"document"`
	Secrets  []string        `json:"secrets_set"` // their paths in the document
}

// appliedView is a tenant, and where it is in force.
type appliedView struct {
	tenantView
	Applied *applied `json:"applied"`
}

// view is what the caller may see of a tenant: its owner does not see where its server is, nor how we get there.
func view(c *caller, rec tenants.Record) tenantView {
	d, secrets := document.Of(rec.Tenant), secretsSet(rec.Tenant)
	if c.isTenants() {
		d.Upstream, d.Machine, secrets = nil, nil, []string{}
	}
	return tenantView{rec.Tenant.ID, revision(rec), instant(rec.Changed), document.Encode(d), secrets}
}

func revision(rec tenants.Record) string { return strconv.FormatInt(rec.Revision, 10) }

// tenantList is a page of tenants.
type tenantList struct {
	Tenants []tenantView `json:"tenants"`
	Next    *string      `json:"next"` // ?after= of the next page; null: this is the last one
}

func (s *Server) tenantPage(r *http.Request) (list tenantList, err error) {
	after, limit, err := pageOf(r)
	if err != nil {
		return list, err
	}
	if after != "" && !tenants.ValidID(after) {
		return list, bad("after must be a tenant's id")
	}
	if err := s.hasStore(); err != nil {
		return list, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	all, err := s.opts.Registry.Tenants(ctx, after, limit+1)
	if err != nil {
		return list, err
	}
	all, list.Next = cut(all, limit, func(rec tenants.Record) string { return rec.Tenant.ID })
	list.Tenants = []tenantView{}
	for _, rec := range all {
		list.Tenants = append(list.Tenants, view(callerOf(r), rec))
	}
	return list, nil
}

func (s *Server) getTenant(w http.ResponseWriter, r *http.Request) {
	rec, err := s.project(r)
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	w.Header().Set("ETag", etag(rec.Revision))
	reply(w, http.StatusOK, appliedView{view(callerOf(r), rec), s.applied(r, rec.Version, 0)})
}

// record reads the tenant that the path names.
func (s *Server) record(r *http.Request) (tenants.Record, error) {
	id, err := s.stored(r)
	if err != nil {
		return tenants.Record{}, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	return s.opts.Registry.Tenant(ctx, id)
}

// decodeTenant makes a tenant of a document.
func decodeTenant(id string, text []byte) (*tenants.Tenant, error) {
	if err := strictText(text, new(document.Tenant), reader{nulls: neverNull()}); err != nil {
		return nil, err
	}
	var r document.Reader
	t, err := r.Tenant(id, text)
	var at tenants.Problem
	switch {
	case errors.As(err, &at):
		return nil, tenants.Problems{at}
	case err != nil:
		return nil, invalid{{"", err.Error()}}
	}
	return t, nil
}

// neverNull are the keys for which leaving out is too much to be meant by null.
func neverNull() map[string]string {
	return map[string]string{"/allow_list": `must not be null: to allow everybody say ["0.0.0.0/0", "::/0"], to allow nobody say []`}
}

// changed has a tenant's document replaced, its users and secrets as they are, but for the secrets that are given.
func changed(old *tenants.Tenant, text []byte, secrets given) (*tenants.Tenant, error) {
	t, err := decodeTenant(old.ID, text)
	if err != nil {
		return nil, err
	}
	t.Users = copyUsers(old)
	document.KeepSecrets(t, old)
	if err := secrets.put(t); err != nil {
		return nil, err
	}
	t.Complete()
	return t, nil
}

// copyUsers copies, so that what is completed is not what somebody else reads.
func copyUsers(t *tenants.Tenant) map[string]*tenants.User {
	users := maps.Clone(t.Users)
	for name, u := range users {
		users[name] = new(*u)
	}
	return users
}

func (s *Server) putTenant(w http.ResponseWriter, r *http.Request) {
	var text []byte
	var secrets given
	err := waitQuery(r, "confirm")
	if id := r.PathValue("id"); err == nil && !tenants.ValidID(id) {
		err = invalid{{"", fmt.Sprintf("%.64q is no tenant id: it must match %s", id, tenants.IDPattern)}}
	}
	if err == nil {
		text, secrets, err = readTenant(r, false)
	}
	if err == nil {
		_, err = decodeTenant(r.PathValue("id"), text) // before a transaction waits for it
	}
	put := func(old *tenants.Tenant) (*tenants.Tenant, error) {
		if old == nil {
			old = tenants.New(r.PathValue("id"))
		}
		return changed(old, text, secrets)
	}
	if err == nil {
		err = s.warn(r, put)
	}
	s.changeTenant(w, r, err, put, true)
}

func (s *Server) patchTenant(w http.ResponseWriter, r *http.Request) {
	var patch []byte
	var secrets given
	err := waitQuery(r, "confirm")
	if err == nil {
		patch, secrets, err = readTenant(r, true)
	}
	if err == nil && callerOf(r).isTenants() {
		err = ownersPatch(patch)
	}
	apply := existing(func(old *tenants.Tenant) (*tenants.Tenant, error) {
		return changed(old, merged(document.Encode(document.Of(old)), patch), secrets)
	})
	if err == nil {
		err = s.warn(r, apply)
	}
	s.changeTenant(w, r, err, apply, false)
}

// readTenant reads a tenant's document, or a patch of one, and the secrets that stand in it.
func readTenant(r *http.Request, patch bool) ([]byte, given, error) {
	text, err := readBody(r)
	if err != nil {
		return nil, nil, err
	}
	if err := wellFormed(text); err != nil {
		return nil, nil, err
	}
	text, secrets, wrong := takeSecrets(text, patch)
	err = strictText(text, new(document.Tenant), reader{patch: patch, nulls: neverNull(), found: wrong})
	return text, secrets, err
}

func (s *Server) deleteTenant(w http.ResponseWriter, r *http.Request) {
	err := waitQuery(r)
	if err == nil {
		err = saysNothingMore(r)
	}
	s.changeTenant(w, r, err, existing(func(*tenants.Tenant) (*tenants.Tenant, error) { return nil, nil }), true)
}

// changeTenant commits, unless the request was wrong, and answers with the tenant. unread: it may be one that cannot be read.
func (s *Server) changeTenant(w http.ResponseWriter, r *http.Request, wrong error, e edit, unread bool) {
	rec, when, created, err := tenants.Record{}, condition{}, false, wrong
	if err == nil {
		when, err = conditionOf(r)
	}
	if err == nil {
		when.unread = unread
		rec, created, err = s.commitIf(r, when, e)
	}
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	if rec.Tenant == nil {
		reply(w, status, goneView{r.PathValue("id"), s.applied(r, rec.Version, appliedWait)})
		return
	}
	s.noteUnserved(r, rec.Tenant)
	w.Header().Set("ETag", etag(rec.Revision))
	reply(w, status, appliedView{view(callerOf(r), rec), s.applied(r, rec.Version, appliedWait)})
}

// goneView is the answer when a tenant was removed.
type goneView struct {
	ID      string   `json:"id"`
	Applied *applied `json:"applied"`
}
