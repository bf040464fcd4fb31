// The startup message: who, where, what kind of session, and what it is set to.

package backend

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// IsReserved reports whether a name in a startup message says who or where
// rather than what a session is set to. A client that could pass such a name on
// among its settings would choose its own role.
func IsReserved(name string) bool {
	switch name {
	case "user", "database", "replication", "options", "":
		return true
	}
	return strings.HasPrefix(name, "_pq_.")
}

// startupMessage builds the message in protocol 3.0.
func startupMessage(t *Target) ([]byte, error) {
	list := []Parameter{{Name: "user", Value: t.User}}
	if t.Database != "" {
		list = append(list, Parameter{Name: "database", Value: t.Database})
	}
	if t.Replication != "" {
		list = append(list, Parameter{Name: "replication", Value: t.Replication})
	}
	body, err := pgwire.StartupBody(append(list, t.Settings...))
	if err != nil {
		return nil, err
	}
	if len(body)+4 > pgwire.MaxStartup {
		// The server would close without a word, which looks like one that starts.
		return nil, fmt.Errorf("%w: a startup message of %d bytes", ErrTarget, len(body)+4)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint32(b, pgwire.Version30)
	return append(b, body...), nil
}
