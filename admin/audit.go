// The audit log, as operators read it.

package admin

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/postern/postern/tenants"
)

// entryView is a row of the audit log as answers have it.
type entryView struct {
	Number  int64        `json:"number"`
	At      *string      `json:"at"`
	By      actorView    `json:"by"`
	Action  string       `json:"action"`
	Tenant  *string      `json:"tenant"`
	Outcome string       `json:"outcome"`
	Version *int64       `json:"version"`
	Changes []changeLine `json:"changes"`
	Chain   string       `json:"chain"`
	Applied []inForce    `json:"applied"` // null: nothing changed, or it is not known any more
}

type inForce struct {
	Node string  `json:"node"`
	At   *string `json:"at"`
}

type actorView struct {
	Name    string  `json:"name"`
	Token   *string `json:"token"`
	Address *string `json:"address"`
	Request *string `json:"request"`
}

// changeLine is one value that is not what it was. Secrets have neither Old nor New.
type changeLine struct {
	Path   string          `json:"path"`
	Old    json.RawMessage `json:"old,omitempty"`
	New    json.RawMessage `json:"new,omitempty"`
	Secret bool            `json:"secret"`
}

func viewEntry(e tenants.Entry) entryView {
	v := entryView{Number: e.Number, At: instant(e.At), Action: e.Action, Tenant: present(e.Tenant), Outcome: e.Outcome, Version: present(e.Version),
		Changes: []changeLine{}, Chain: e.Chain, By: actorView{Name: e.By.Name, Token: present(e.By.Token), Request: present(e.By.Request)}}
	if e.By.Address.IsValid() {
		v.By.Address = new(e.By.Address.String())
	}
	if e.Applied != nil {
		v.Applied = []inForce{}
	}
	for _, a := range e.Applied {
		v.Applied = append(v.Applied, inForce{Node: a.Node, At: instant(a.At)})
	}
	for _, d := range e.Changes {
		line := changeLine{Path: d.Path, Secret: d.Secret}
		if !d.Secret {
			line.Old, line.New = asJSON(d.Old), asJSON(d.New)
		}
		v.Changes = append(v.Changes, line)
	}
	return v
}

// asJSON is a value as it is, or as a text if it is none.
func asJSON(text string) json.RawMessage {
	if text == "" || json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	quoted, _ := json.Marshal(text) // a text always encodes
	return quoted
}

type entryList struct {
	Entries []entryView `json:"entries"`
	Next    *int64      `json:"next"` // ?before= of the next page
}

func (s *Server) auditPage(r *http.Request) (list entryList, err error) {
	q, err := query(r, "tenant", "limit", "before")
	if err != nil {
		return list, err
	}
	limit, err := limitOf(q)
	if err != nil {
		return list, err
	}
	var before int64
	if q.Has("before") {
		if before, err = strconv.ParseInt(q.Get("before"), 10, 64); err != nil || before < 1 {
			return list, bad("before must be a number of the log, as next has it")
		}
	}
	tenant := q.Get("tenant")
	if q.Has("tenant") && !tenants.ValidID(tenant) {
		return list, bad("tenant must be a tenant's id")
	}
	if err := s.hasStore(); err != nil {
		return list, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	all, err := s.opts.Registry.Audit(ctx, tenant, before, limit+1)
	if err != nil {
		return list, err
	}
	all, list.Next = cut(all, limit, func(e tenants.Entry) int64 { return e.Number })
	list.Entries = []entryView{}
	for _, e := range all {
		list.Entries = append(list.Entries, viewEntry(e))
	}
	return list, nil
}
