// The tokens of the store: made, listed and revoked by operators.

package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/postern/postern/tenants"
)

// The forms of tokens, both of which tokenForm knows.
const (
	formPostern  = "postern"
	formSupabase = "supabase" // the only one that Supabase's command line takes
)

// tokenBody is what is said of a token that is to be made.
type tokenBody struct {
	Name    string        `json:"name"`
	Scope   tenants.Scope `json:"scope"`
	Tenant  string        `json:"tenant"`
	Expires *time.Time    `json:"expires"`
	Form    string        `json:"form"`
}

// tokenView is a token as answers have it: all but itself.
type tokenView struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"`
	Scope   tenants.Scope `json:"scope"`
	Tenant  *string       `json:"tenant"`
	Created *string       `json:"created"`
	Expires *string       `json:"expires"`
	Used    *string       `json:"used"`
}

func viewToken(t tenants.Token) tokenView {
	return tokenView{t.ID, t.Name, t.Scope, present(t.Tenant), instant(t.Created), instant(t.Expires), instant(t.Used)}
}

// tokenMade is the one answer that has a token.
type tokenMade struct {
	tokenView
	Token string `json:"token"`
}

// tokenList is a page of tokens.
type tokenList struct {
	Tokens []tokenView `json:"tokens"`
	Next   *string     `json:"next"` // ?after= of the next page; null: this is the last one
}

func (s *Server) tokenPage(r *http.Request) (list tokenList, err error) {
	after, limit, err := pageOf(r, "tenant")
	if err != nil {
		return list, err
	}
	q := r.URL.Query()
	if q.Has("tenant") && !tenants.ValidID(q.Get("tenant")) {
		return list, bad("tenant must be a tenant's id")
	}
	if err := s.hasStore(); err != nil {
		return list, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	all, err := s.opts.Registry.Tokens(ctx, q.Get("tenant"), after, limit+1)
	if err != nil {
		return list, err
	}
	all, list.Next = cut(all, limit, func(t tenants.Token) string { return t.ID })
	list.Tokens = []tokenView{}
	for _, t := range all {
		list.Tokens = append(list.Tokens, viewToken(t))
	}
	return list, nil
}

func (s *Server) token(r *http.Request) (view tokenView, err error) {
	if _, err := query(r); err != nil {
		return view, err
	}
	if err := s.hasStore(); err != nil {
		return view, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	t, err := s.opts.Registry.Token(ctx, r.PathValue("token"))
	return viewToken(t), err
}

func (s *Server) makeToken(w http.ResponseWriter, r *http.Request) {
	made, err := s.newToken(r)
	s.finish(w, r, made.Tenant, err, http.StatusCreated, made)
}

func (s *Server) newToken(r *http.Request) (made tokenMade, err error) {
	var body tokenBody
	if _, err := query(r); err != nil {
		return made, err
	}
	if err := strict(r, &body); err != nil {
		return made, err
	}
	t := tenants.Token{Name: body.Name, Scope: body.Scope, Tenant: body.Tenant}
	if body.Expires != nil {
		t.Expires = *body.Expires
	}
	wrong := pointers(tenants.ValidateToken(t))
	if body.Expires != nil && !body.Expires.After(time.Now()) {
		wrong = append(wrong, fieldError{"/expires", "must be in the future"})
	}
	if body.Form != "" && body.Form != formPostern && body.Form != formSupabase {
		wrong = append(wrong, fieldError{"/form", "must be one of postern, supabase"})
	}
	if len(wrong) > 0 {
		return made, wrong
	}
	if err := s.hasStore(); err != nil {
		return made, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	c := callerOf(r)
	c.asked = true
	made.Token = freshToken(body.Form)
	t, err = s.opts.Registry.AddToken(ctx, c.Actor, t, sha256.Sum256([]byte(made.Token)))
	if errors.Is(err, tenants.ErrNoSuchTenant) {
		err = invalid{{"/tenant", err.Error()}}
	}
	if err != nil {
		return tokenMade{}, err
	}
	made.tokenView = viewToken(t)
	return made, nil
}

// freshToken makes a token of at least 128 random bits.
func freshToken(form string) string {
	if form == formSupabase {
		var b [20]byte
		_, _ = rand.Read(b[:]) // which never fails
		return "sbp_" + hex.EncodeToString(b[:])
	}
	return "postern_" + rand.Text()
}

func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("token")
	err := s.removal(r, func(ctx context.Context, by tenants.Actor) error { return s.opts.Registry.RevokeToken(ctx, by, "", id) })
	s.finish(w, r, nil, err, http.StatusOK, gone{id})
}

// gone is the answer when something that is no tenant's was removed.
type gone struct {
	ID string `json:"id"`
}

// removal has the store remove what the path names.
func (s *Server) removal(r *http.Request, remove func(context.Context, tenants.Actor) error) error {
	if err := saysNothing(r); err != nil {
		return err
	}
	if err := s.hasStore(); err != nil {
		return err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	c := callerOf(r)
	c.asked = true
	return remove(ctx, c.Actor)
}

// finish logs a change that is no tenant's document's, and answers.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, tenant *string, err error, status int, answer any) {
	var of string
	if tenant != nil {
		of = *tenant
	}
	s.note(r, of, err)
	if err != nil {
		s.refuse(w, r, of, err)
		return
	}
	reply(w, status, answer)
}
