// Denials: why a connection gets no session, and what follows for the client, the metrics and the log.

package proxy

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// denial is a cause for which a connection gets no session.
type denial uint8

const (
	denyUntrusted denial = iota
	denyHeader
	denyHandshakes
	denyProtocol
	denyStartup
	denyNoUser
	denyNoTenant
	denyNotRead
	denyTwoTenants
	denyRegion
	denyNoNode
	denyTLS
	denyAddress
	denyNoCertificate
	denyCertificateLong
	denyCertificateExpired
	denyCertificateUntrusted
	denyCertificateUse
	denyCertificateOfAnother
	denyCertificateOfNobody
	denyClients
	denyTenantClients
	denyUserClients
	denyDatabaseClients
	denyReplicas
	denyConsoles
	denyThrottled
	denyBanned
	denyRate
	denyUnknownTenant
	denyUnknownUser
	denyPassword
	denySASL
	denyDisabled
	denyDatabase
	denyStartOnly
	denySetting
	denyPhysical
	denyConsoleReplication
	numDenials
)

// reason is a denial's label in the metrics, out of a closed set.
type reason uint8

const (
	uncounted reason = iota // a failed login, which has a metric of its own, or one that has succeeded
	reasonAddress
	reasonTLS
	reasonCertificate
	reasonLimit
	reasonThrottle
	reasonBan
	reasonHeader
	reasonStartup
	reasonTenant
	reasonRegion
	numReasons
)

// String is the label's value.
func (r reason) String() string {
	return [numReasons]string{"", "address", "tls", "certificate", "limit", "throttle", "ban", "proxy_header", "startup", "tenant", "region"}[r]
}

// denialRow is what follows from a denial. Without a code the client is told
// what its message was wrong in, or nothing.
type denialRow struct {
	reason reason
	cause  string // in the log
	code   string
	text   string // with a verb for each argument of tell, or the hint has them
	hint   string
}

const (
	sayPassword = `password authentication failed for user "%s"`
	sayNoCert   = "connection requires a valid client certificate"
	sayCert     = `certificate authentication failed for user "%s"`
	whichCert   = "It must be signed by the tenant's client_ca, be valid now, and be good for clients."
	howToName   = `Name the tenant in the user ("user.tenant"), in options ("reference=tenant") or by the host name.`
)

// denials is the one table of them. It is never changed.
var denials = [numDenials]denialRow{
	denyUntrusted:  {reasonHeader, "untrusted_sender", "", "", ""},
	denyHeader:     {reasonHeader, "proxy_header", "", "", ""},
	denyHandshakes: {reasonLimit, "handshakes", "", "", ""},
	denyProtocol:   {reasonStartup, "not_the_protocol", "", "", ""},
	denyStartup:    {reasonStartup, "startup_message", "", "", ""}, // in the words of whoever read it
	denyNoUser:     {reasonStartup, "no_user", "28000", "no PostgreSQL user name specified in startup packet", ""},
	denyNoTenant:   {reasonTenant, "no_tenant_named", "08004", "the connection names no tenant", howToName},
	denyNotRead:    {reasonTenant, "tenants_not_read_yet", "57P03", "the pooler is starting up", "Not all tenants are read yet. Try again in a moment."},
	denyTwoTenants: {reasonTenant, "two_tenants_named", "08004", "the connection names two different tenants", howToName},
	denyRegion:     {reasonRegion, "region", "08004", "this tenant is not served in this region", "Connect to %s."},
	denyNoNode:     {reasonRegion, "no_node_in_region", "57P03", "no node that may serve this tenant can be reached", "Try again in a moment."},
	denyTLS:        {reasonTLS, "tls_required", "28000", "this tenant requires TLS", "Connect with sslmode=require or stronger."},
	denyAddress:    {reasonAddress, "address_not_allowed", "28000", "address %s is not allowed to connect to %q", ""},

	// Only the log tells what is wrong with a certificate. The words are Postgres's.
	denyNoCertificate:        {reasonCertificate, "certificate_missing", "28000", sayNoCert, whichCert},
	denyCertificateLong:      {reasonCertificate, "certificate_chain_too_long", "28000", sayNoCert, whichCert},
	denyCertificateExpired:   {reasonCertificate, "certificate_expired_or_not_valid_yet", "28000", sayNoCert, whichCert},
	denyCertificateUntrusted: {reasonCertificate, "certificate_not_trusted", "28000", sayNoCert, whichCert},
	denyCertificateUse:       {reasonCertificate, "certificate_not_for_clients", "28000", sayNoCert, whichCert},
	denyCertificateOfAnother: {reasonCertificate, "certificate_of_another_user", "28000", sayCert, ""},
	denyCertificateOfNobody:  {uncounted, "certificate_of_nobody", "28000", sayCert, ""},

	denyClients:         {reasonLimit, "limits.clients", "53300", "too many clients already", ""},
	denyTenantClients:   {reasonLimit, "pool.max_clients", "53300", "too many clients for this tenant already", ""},
	denyUserClients:     {reasonLimit, "max_clients", "53300", `too many clients for user "%s" already`, "The user's max_clients, or its role's CONNECTION LIMIT, is reached."},
	denyDatabaseClients: {reasonLimit, "pool.max_database_clients", "53300", `too many clients for database "%s" already`, "The tenant's max_database_clients is reached."},
	denyReplicas:        {reasonLimit, "replication_connections", "53300", "too many replication connections for this tenant already", ""},
	denyConsoles:        {reasonLimit, "console_sessions", "53300", "too many sessions of the admin console already", ""},
	denyThrottled:       {reasonThrottle, "throttled", "53400", "too many failed logins", "Try again in %d seconds."},
	denyBanned:          {reasonBan, "banned", "53400", "this address is banned", "Try again in %d seconds."},
	denyRate:            {reasonThrottle, "connection_rate", "53400", "too many new connections", "Try again in %d seconds."},

	// One text: only the log tells which it was.
	denyUnknownTenant: {reasonTenant, "unknown_tenant", "28P01", sayPassword, ""},
	denyUnknownUser:   {uncounted, "unknown_user", "28P01", sayPassword, ""},
	denyPassword:      {uncounted, "wrong_password", "28P01", sayPassword, ""},
	denySASL:          {uncounted, "sasl_message", "", "", ""}, // in the words of whoever read it

	// After the password.
	denyDisabled:           {uncounted, "disabled", "55000", "the database is disabled", "Try again when it is enabled again."},
	denyDatabase:           {uncounted, "unknown_database", "3D000", `database "%s" does not exist`, ""},
	denyStartOnly:          {uncounted, "start_only_parameter", "55P02", `parameter "%s" cannot be set after connection start`, "A pooled connection has started already."},
	denySetting:            {uncounted, "unknown_parameter", "42704", `unrecognized configuration parameter "%s"`, ""},
	denyPhysical:           {uncounted, "physical_replication", "28000", "physical replication is not allowed for this tenant", "It reads all databases, and the tenant allows only some."},
	denyConsoleReplication: {reasonStartup, "console_replication", "0A000", "the admin console has nothing to replicate", ""},
}

// tell is what the client is told; nil: nothing, or what tell does not know.
func (d denial) tell(args ...any) *pgwire.Error {
	row := &denials[d]
	if row.code == "" {
		return nil
	}
	text, hint := row.text, row.hint
	if strings.Contains(text, "%") {
		text = fmt.Sprintf(text, args...)
	} else if strings.Contains(hint, "%") {
		hint = fmt.Sprintf(hint, args...)
	}
	return fatal(row.code, text, hint)
}

// denied is the error of a connection that gets no session.
type denied struct {
	why  denial
	told *pgwire.Error // nil: it is closed without a word
}

// deny is a denial as the table has it.
func deny(why denial, args ...any) *denied { return &denied{why, why.tell(args...)} }

// denyFor is a denial that says how long to wait.
func denyFor(why denial, wait time.Duration) *denied {
	return deny(why, int((wait+time.Second-1)/time.Second))
}

// Error implements error, for the log.
func (d *denied) Error() string { return denials[d.why].cause }

// Unwrap is what the client is told.
func (d *denied) Unwrap() error {
	if d.told == nil {
		return nil
	}
	return d.told
}

// count counts a denial, and for the tenant that was named if there is one: a
// stranger's name makes no series.
func (g *Gate) count(why denial, tenant string) {
	r := denials[why].reason
	if r == uncounted {
		return
	}
	g.metrics.refused[r].Inc()
	if _, known := g.opts.Directory.Tenant(tenant); known {
		g.denials.of(tenant).refused[r].Add(1)
	}
}

// tenantDenials counts by reason, for tenants. Its zero value is empty. Safe for
// concurrent use.
type tenantDenials struct {
	mu   sync.Mutex
	byID map[string]*denialCounts
}

// denialCounts are a tenant's.
type denialCounts struct {
	refused  [numReasons]atomic.Uint64
	observed atomic.Uint64 // that would have been refused if the restrictions were enforced
}

func (d *tenantDenials) of(tenant string) *denialCounts {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byID == nil {
		d.byID = make(map[string]*denialCounts)
	}
	n := d.byID[tenant]
	if n == nil {
		n = new(denialCounts)
		d.byID[tenant] = n
	}
	return n
}

// drop lets go of a tenant.
func (d *tenantDenials) drop(tenant string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byID, tenant)
}

// keep lets go of tenants that are not there: one may be counted while it is removed.
func (d *tenantDenials) keep(all *tenants.Directory) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.byID {
		if _, ok := all.Tenant(id); !ok {
			delete(d.byID, id)
		}
	}
}
