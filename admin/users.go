// The users of a tenant: listed, read, and changed one at a time. Their secrets go in and never come out.

package admin

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// userBody is what is written of a user: its document, and its secrets beside it.
type userBody struct {
	document.User
	Verifier       *string `json:"verifier"`
	Password       *string `json:"password"`
	ServerPassword *string `json:"server_password"`
}

// userView is a user as answers have it.
type userView struct {
	Name              string          `json:"name"`
	Document          json.RawMessage `json:"document"`
	VerifierSet       bool            `json:"verifier_set"`
	PasswordSet       bool            `json:"password_set"`
	ServerPasswordSet bool            `json:"server_password_set"`
}

// userAnswer is a user with the revision of the tenant, which is the user's as well.
type userAnswer struct {
	userView
	Revision string `json:"revision"`
}

type userChange struct {
	userAnswer
	Applied *applied `json:"applied"`
}

// viewUser is what the caller may see of a user: its tenant's owner does not see as whom it logs in to the server.
func viewUser(c *caller, u *tenants.User) userView {
	d := document.OfUser(u)
	if c.isTenants() {
		d.Upstream = document.User{}.Upstream
	}
	return userView{u.Name, document.Encode(d), !u.Verifier.IsZero(), !u.Password.IsZero(), !u.ServerPassword.IsZero()}
}

// userList is a page of users.
type userList struct {
	Users    []userView `json:"users"`
	Next     *string    `json:"next"`
	Revision string     `json:"revision"`
}

func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) {
	list, rec, err := s.userPage(r)
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	w.Header().Set("ETag", etag(rec.Revision))
	reply(w, http.StatusOK, list)
}

func (s *Server) userPage(r *http.Request) (list userList, rec tenants.Record, err error) {
	after, limit, err := pageOf(r)
	if err != nil {
		return list, rec, err
	}
	if rec, err = s.record(r); err != nil {
		return list, rec, err
	}
	names := slices.Sorted(maps.Keys(rec.Tenant.Users))
	from, found := slices.BinarySearch(names, after)
	if found {
		from++
	}
	names = names[from:]
	if len(names) > limit {
		names = names[:limit]
		list.Next = &names[limit-1]
	}
	list.Revision, list.Users = revision(rec), []userView{}
	for _, name := range names {
		list.Users = append(list.Users, viewUser(callerOf(r), rec.Tenant.Users[name]))
	}
	return list, rec, nil
}

func (s *Server) getUser(w http.ResponseWriter, r *http.Request) {
	rec, err := s.project(r)
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), err)
		return
	}
	u, ok := rec.Tenant.User(r.PathValue("name"))
	if !ok {
		s.refuse(w, r, rec.Tenant.ID, tenants.ErrNoSuchUser)
		return
	}
	w.Header().Set("ETag", etag(rec.Revision))
	reply(w, http.StatusOK, userAnswer{viewUser(callerOf(r), u), revision(rec)})
}

func (s *Server) putUser(w http.ResponseWriter, r *http.Request) {
	name, text := r.PathValue("name"), []byte(nil)
	err := waitQuery(r)
	if err == nil {
		text, err = readBody(r)
	}
	body := userBody{}
	if err == nil {
		err = strictText(text, &body, reader{})
	}
	s.changeUser(w, r, err, func(old *tenants.User) (*tenants.User, error) {
		return body.over(old, name, text)
	})
}

func (s *Server) patchUser(w http.ResponseWriter, r *http.Request) {
	var patch json.RawMessage
	body := userBody{}
	err := waitQuery(r)
	if err == nil {
		patch, err = strictPatch(r, &body, nil)
	}
	if err == nil && callerOf(r).isTenants() {
		err = ownersUserPatch(patch)
	}
	s.changeUser(w, r, err, func(old *tenants.User) (*tenants.User, error) {
		if old == nil {
			return nil, tenants.ErrNoSuchUser
		}
		whole := body
		whole.User = document.User{}
		err := strictText(merged(document.Encode(document.OfUser(old)), withoutSecrets(patch)), &whole.User, reader{})
		if err != nil {
			return nil, err
		}
		return whole.over(old, old.Name, patch)
	})
}

func (s *Server) deleteUser(w http.ResponseWriter, r *http.Request) {
	err := waitQuery(r)
	if err == nil {
		err = saysNothingMore(r)
	}
	s.changeUser(w, r, err, func(old *tenants.User) (*tenants.User, error) {
		if old == nil {
			return nil, tenants.ErrNoSuchUser
		}
		return nil, nil
	})
}

// over makes the user that a body says, with the secrets of old where text does not name them. A new secret for clients takes the
// place of the other kind, unless that is named, too; null takes a secret away.
func (b userBody) over(old *tenants.User, name string, text []byte) (*tenants.User, error) {
	u := b.Make(name)
	if old != nil {
		u.Verifier, u.Password, u.ServerPassword = old.Verifier, old.Password, old.ServerPassword
	}
	var named map[string]json.RawMessage
	_ = json.Unmarshal(text, &named) // which was read before
	var wrong invalid
	set := func(field string, secret *tenants.Secret, to *string, instead *tenants.Secret, other string) {
		if _, ok := named[field]; !ok {
			return
		}
		*secret = tenants.Secret{}
		if to == nil {
			return
		}
		if *to == "" {
			wrong = append(wrong, fieldError{"/" + field, "must not be empty"})
		}
		*secret = tenants.NewSecret(*to)
		if _, both := named[other]; !both && instead != nil {
			*instead = tenants.Secret{}
		}
	}
	set("verifier", &u.Verifier, b.Verifier, &u.Password, "password")
	set("password", &u.Password, b.Password, &u.Verifier, "verifier")
	set("server_password", &u.ServerPassword, b.ServerPassword, nil, "")
	if len(wrong) > 0 {
		return nil, wrong
	}
	return u, nil
}

// withoutSecrets is the part of a patch that is about a user's document.
func withoutSecrets(patch json.RawMessage) json.RawMessage {
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(patch, &keys) // which was read before
	for _, s := range document.Secrets() {
		delete(keys, s.Field)
	}
	return document.Encode(keys)
}

// changeUser commits a change of the user that the path names, unless the request was wrong, and answers with the user.
func (s *Server) changeUser(w http.ResponseWriter, r *http.Request, wrong error, change func(old *tenants.User) (*tenants.User, error)) {
	name, made := r.PathValue("name"), false
	rec, when, err := tenants.Record{}, condition{}, wrong
	if err == nil {
		when, err = conditionOf(r)
	}
	if err == nil { // a revision is the tenant's, which has the user in it; whether there is one is asked of the user
		rec, _, err = s.commitIf(r, condition{match: max(when.match, 0)}, existing(func(old *tenants.Tenant) (*tenants.Tenant, error) {
			before := old.Users[name]
			made = before == nil
			switch {
			case when.match == tenants.MatchNone && !made:
				return nil, tenants.ErrTaken
			case when.mustExist && made:
				return nil, tenants.ErrNoSuchUser
			}
			u, err := change(before)
			if err != nil {
				return nil, err
			}
			now := *old
			now.Users = copyUsers(old)
			delete(now.Users, name)
			if u != nil {
				now.Users[name] = u
			}
			now.Complete()
			return &now, nil
		}))
	}
	if err != nil {
		s.refuse(w, r, r.PathValue("id"), ofUser(name, err))
		return
	}
	w.Header().Set("ETag", etag(rec.Revision))
	u, is := rec.Tenant.User(name)
	switch {
	case !is:
		reply(w, http.StatusOK, userGone{name, revision(rec), s.applied(r, rec.Version, appliedWait)})
		return
	case made:
		reply(w, http.StatusCreated, userChange{userAnswer{viewUser(callerOf(r), u), revision(rec)}, s.applied(r, rec.Version, appliedWait)})
	default:
		reply(w, http.StatusOK, userChange{userAnswer{viewUser(callerOf(r), u), revision(rec)}, s.applied(r, rec.Version, appliedWait)})
	}
}

// userGone is the answer when a user was removed.
type userGone struct {
	Name     string   `json:"name"`
	Revision string   `json:"revision"` // of the tenant
	Applied  *applied `json:"applied"`
}

// ofUser makes problems of a tenant's user problems of the user's body.
func ofUser(name string, err error) error {
	var problems tenants.Problems
	if !errors.As(err, &problems) {
		return err
	}
	out := slices.Clone(problems)
	for i, p := range out {
		path, is := strings.CutPrefix(p.Path, tenants.UserPath(name))
		path = strings.TrimPrefix(path, ".")
		switch {
		case !is:
		case path == "upstream.password": // as stores call it
			out[i].Path = "server_password"
		default:
			out[i].Path = path
		}
	}
	return out
}
