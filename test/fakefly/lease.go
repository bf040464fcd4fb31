// Leases of machines: who has one is the only one whose changes are done, and only with its nonce.

package fakefly

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	nonceHeader = "Fly-Machine-Lease-Nonce"
	leaseMax    = 3600 // seconds
)

// lease of a machine. Guarded by Server.mu.
type lease struct {
	nonce, description string
	until              time.Time
}

type leaseRequest struct {
	Description string `json:"description"`
	TTL         int    `json:"ttl"`
}

func readLease(q request) (l leaseRequest, _ answer) {
	d := json.NewDecoder(bytes.NewReader(q.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil || l.TTL < 1 || l.TTL > leaseMax {
		return l, errorAnswer(http.StatusBadRequest, "invalid lease: %v", err)
	}
	return l, answer{}
}

// leased refuses what changes the machine without its lease, if it has one. A nonce of no lease that lasts is refused, too, although it is
// not documented what becomes of it.
func (m *Machine) leased(q request) answer {
	lasts := time.Now().Before(m.held.until)
	switch {
	case lasts && q.nonce != m.held.nonce:
		return errorAnswer(http.StatusConflict, "aborted: machine ID %s lease currently held by %s, expires at %s", m.id, "fake@tokens.fly.io", m.held.until.UTC().Format(time.RFC3339))
	case !lasts && q.action == Release:
		return errorAnswer(http.StatusNotFound, "lease not found")
	case !lasts && q.nonce != "":
		return errorAnswer(http.StatusConflict, "aborted: invalid lease nonce")
	}
	return answer{}
}

// lease is POST lease. With the nonce of the one that lasts it is prolonged.
func (m *Machine) lease(q request) answer {
	l, bad := readLease(q)
	if bad.status != 0 {
		return bad
	}
	if q.nonce == "" {
		m.leases++
		m.held = lease{nonce: fmt.Sprintf("%s-%d", m.id, m.leases), description: l.Description}
	}
	m.held.until = time.Now().Add(time.Duration(l.TTL) * time.Second)
	return answer{status: http.StatusCreated, body: fmt.Sprintf(`{"status":"success","data":{"nonce":%q,"expires_at":%d,"owner":"fake@tokens.fly.io","description":%q,"version":"01"}}`,
		m.held.nonce, m.held.until.Unix(), m.held.description)}
}

func (m *Machine) release() answer {
	m.held = lease{}
	return answer{status: http.StatusOK, body: `{"ok":true}`}
}

// EndLease ends the lease, if there is one, as if its time were over.
func (m *Machine) EndLease() { m.set(func() { m.held.until = time.Time{} }) }

// Leases is how many leases were taken, and what the last one says, "" if it has ended.
func (m *Machine) Leases() (n int, description string) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if time.Now().Before(m.held.until) {
		description = m.held.description
	}
	return m.leases, description
}
