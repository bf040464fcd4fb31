// Parameters that are not like the others, by name, and what Postgres makes of an application's name.

package params

import (
	"strings"

	"github.com/postern/postern/proxy/sqltext"
)

// Parameters that are dealt with by name.
const (
	ApplicationName = "application_name"
	InHotStandby    = "in_hot_standby"
	Deferrable      = "default_transaction_deferrable"

	// ClientAddress holds the client's address with client_address: guc. It is
	// not for clients to set.
	ClientAddress = "postern.client_address"

	role                 = "role"
	sessionAuthorization = "session_authorization"
)

// hidden reports whether pg_settings may not show a parameter: the two that say
// who the session is, and those with a dot in their names.
func hidden(name string) bool {
	return name == role || name == sessionAuthorization || strings.IndexByte(name, '.') >= 0
}

// passing reports whether a parameter is a transaction's own, which ends with
// it. Outside of one it can be set to no effect, and from version 16 on not reset.
func passing(name string) bool {
	switch name {
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable":
		return true
	}
	return false
}

// AsNotSet reports whether a parameter that a server shows as set, in lower case,
// is as good as not set: it ends with its transaction, or says that the session
// is who logged in.
func AsNotSet(name, value, login string) bool {
	return passing(name) || name == role && value == "none" || name == sessionAuthorization && value == login
}

// Fixed lists what a server reports that no session can set: facts about the
// server and the login. Everything else it reports is a setting.
func Fixed(name string) bool {
	switch strings.ToLower(name) {
	case "server_version", "server_encoding", "integer_datetimes", "is_superuser", sessionAuthorization, InHotStandby:
		return true
	}
	return false
}

// CleanName is how Postgres reports an application name (before version 16,
// which writes escapes instead of question marks).
func CleanName(s string) string {
	if len(s) > sqltext.MaxName {
		s = s[:sqltext.MaxName]
	}
	b := []byte(s)
	for i, c := range b {
		if c < 32 || c > 126 {
			b[i] = '?'
		}
	}
	return string(b)
}
