// What clients are told, by its cause: SQLSTATE, text, hint. Denials have denial.go; what is wrong in a message or a
// command of the console is said where it is read, by packages pgwire, scram and console.

package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

func fatal(code, message, hint string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.Fatal, Code: code, Message: message, Hint: hint}
}

func notice(message string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: message}
}

// The errors that depend on nothing. They are values, and never changed.
var (
	errDraining    = fatal("57P01", "terminating connection because the pooler is shutting down", "Connect again.")
	errRevoked     = fatal("57P01", "terminating connection because access was revoked", "")
	errServerLost  = fatal("08006", "server connection lost", "The outcome of what was running is unknown.")
	errRestLost    = fatal("08006", "server connection lost", "Nothing was running. Connect again.")
	errWait        = fatal("53300", "timed out waiting for a server connection", "All server connections that may be open are in use.")
	errWalsender   = fatal("28000", "the database does not allow replication connections for this user", "See pg_hba.conf and the role's REPLICATION attribute.")
	errWalsenders  = fatal("53300", "the database has too many connections or replication connections already", "See max_connections and max_wal_senders.")
	errNoShare     = fatal("57P03", "no server connection may be opened from here at the moment", "Other nodes of the pooler have all that may be open, or this one cannot find out. Try again in a moment.")
	errUnavailable = fatal("57P03", "the database is not accepting connections", "Try again in a moment.")
	errPending     = fatal("53200", "too much memory is taken by messages that are not complete or wait for a server", "Try again in a moment, with shorter statements or fewer at a time.")
	errUnencrypted = fatal("08P01", "received unencrypted data after SSL request",
		"This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
	errUnencryptedGSS = fatal("08P01", "received unencrypted data after GSSAPI encryption request",
		"This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
	errUnusable       = fatal("57P03", "the database is not accepting connections", "The pooler's log says what is wrong.")
	errServerFull     = fatal("53300", "the database has too many connections already", "Try again in a moment.")
	errVerifier       = fatal("08006", "the database refused the pooler's login", "The verifier differs: copy it from pg_authid.")
	errServerPassword = fatal("08006", "the database refused the pooler's login", "The password differs: see the user's password_file.")
	errLoginDenied    = fatal("28000", "the database does not let this user log in", "See the role's LOGIN attribute and pg_hba.conf.")
	errStaleLogin     = fatal("08006", "the password of this user has changed since the session began", "Connect again.")

	errWakeSlow           = fatal("57P03", "the database did not wake up in time", "Try again in a moment.")
	errCapacity           = fatal("57P03", "there is no room to start the database at the moment", "Try again in a few minutes.")
	errUnshared           = fatal("57P03", "the database is not accepting connections", "This node of the pooler does not use the database, and cannot ask the others about it now: try again, perhaps at another one.")
	errTooOften           = fatal("57P03", "the database has been started too often", "Try again in a few minutes.")
	errTransactionTimeout = fatal("25P04", "terminating connection due to transaction timeout", "")
	errIdleTransaction    = fatal("25P03", "terminating connection due to idle-in-transaction timeout", "")
	errClientIdle         = fatal("57P05", "terminating connection due to idle-session timeout", "")
	errPaused             = fatal("57P03", "the database is paused", "Try again when it was resumed.")

	errCancelled = &pgwire.Error{Severity: pgwire.Err, Code: "57014", Message: "canceling statement due to user request"}
	errStatement = &pgwire.Error{Severity: pgwire.Err, Code: "0A000",
		Message: "transaction blocks are not allowed in statement pooling mode"}
	errState = &pgwire.Error{Severity: pgwire.Err, Code: "0A000",
		Message: "session state of this kind is not allowed in this pool mode",
		Hint:    "Use a form that ends with the transaction, such as SET LOCAL, or connect to a session mode port."}
	errTooLong = &pgwire.Error{Severity: pgwire.Err, Code: "54000",
		Message: fmt.Sprintf("statement is longer than the %d MiB that can be kept in this pool mode", maxStatement>>20)}
	// As a server says it, down to what drivers know it by.
	errChanged = &pgwire.Error{Severity: pgwire.Err, Code: "0A000", Message: "cached plan must not change result type",
		File: "plancache.c", Routine: "RevalidateCachedQuery"}
	noticeWaiting    = notice("all server connections are in use: waiting for one")
	noticeDown       = notice("the database cannot be reached: trying again")
	noticeConnecting = notice("connecting to the database takes its time: waiting for it")
	noticeWaking     = notice("the database is starting: waiting for it")
	noticePaused     = notice("the database is paused: waiting for it")
)

// consoleError is what a command of the admin console fails with.
func consoleError(code, message, hint string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.Err, Code: code, Message: message, Hint: hint}
}

// What ends sessions of the admin console, or is told of its commands to others.
var (
	errConsoleLong = fatal("54000", fmt.Sprintf("message is longer than the %d KiB that the admin console takes", console.MaxMessage>>10), "")
	errKilled      = fatal("57P01", "terminating connection due to administrator command", "")
)

// refusals are the errors that stand in for a server's, by link.Entry.Refusal.
type refusals [4]*pgwire.Error

const (
	refuseMany = iota
	refuseLong
	refuseState
	refuseChanged
)

func newRefusals(most link.Limits) refusals {
	return refusals{refuseMany: errManyNamed(most.OrDefault()), refuseLong: errTooLong, refuseState: errState, refuseChanged: errChanged}
}

func errManyNamed(most link.Limits) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.Err, Code: "54000",
		Message: "too many prepared statements",
		Detail:  fmt.Sprintf("A session may have %d prepared statements, of %d MiB together.", most.Named, most.NamedBytes>>20),
		Hint:    "Close those that are not used any more."}
}

func errViolation(message string) *pgwire.Error { return fatal("08P01", message, "") }

// lostWith is what a client is told whose server is gone.
func lostWith(l *link.Link) *pgwire.Error {
	if l.Free() {
		return errRestLost
	}
	return errServerLost
}

// errDial is what a client is told whose server could not be logged in to:
// the server's own refusal where it is the client's affair, and nothing about
// machines and addresses otherwise. To try again is advised only where that can
// help without anybody's doing.
func errDial(err error) *pgwire.Error {
	var server *backend.ServerError
	code := ""
	if errors.As(err, &server) && len(server.Response.Code) == 5 {
		code = server.Response.Code
	}
	switch {
	case errors.Is(err, errNoCredentials):
		return errStaleLogin
	case errors.Is(err, errNotGranted):
		return errNoShare
	case errors.Is(err, backend.ErrPassword):
		return errServerPassword
	case errors.Is(err, backend.ErrVerifierMismatch), code == "28P01":
		return errVerifier
	case strings.HasPrefix(code, "28"):
		return errLoginDenied // in our own words: pg_hba.conf's name our address, and the role may be another than the client's
	case code != "" && server.Proven:
		return inItsWords(server.Response)
	case code == "53300":
		return errServerFull // whose words these are was not proven, but the code says enough
	case backend.Retryable(err):
		return errUnavailable
	}
	return errUnusable
}

// inItsWords passes on what a server said that has proven itself.
func inItsWords(r *pgwire.Error) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.Fatal, Code: r.Code, Message: clipText(r.Message), Detail: clipText(r.Detail), Hint: clipText(r.Hint)}
}

// errReplicaDial is errDial for a replication session, which is the tenant's
// own affair from end to end: that the role may not replicate is told as the
// server told it. What it said before it has proved itself counts by its code
// only, and pg_hba.conf's refusal names our address.
func errReplicaDial(err error) *pgwire.Error {
	var server *backend.ServerError
	if errors.As(err, &server) {
		r := server.Response
		switch {
		case server.Proven && len(r.Code) == 5:
			return inItsWords(r)
		case r.Code == "28000":
			return errWalsender
		case r.Code == "53300":
			return errWalsenders
		}
	}
	return errDial(err)
}

// errMachine is what a client is told whose machine cannot be had, and why, as
// far as that is the client's affair.
func errMachine(err error) *pgwire.Error {
	switch {
	case errors.Is(err, machines.ErrSlow):
		return errWakeSlow
	case errors.Is(err, machines.ErrBudget):
		return errTooOften
	case errors.Is(err, machines.ErrUnguarded):
		return errUnshared
	}
	switch machines.KindOf(err) {
	case machines.Capacity:
		return errCapacity
	case machines.Auth, machines.Gone:
		return errUnusable
	}
	return errUnavailable
}

// clip makes a name that a stranger chose fit to be shown: Postgres cuts at 63
// bytes, and what is not printable, or would end a quotation, is escaped. A log
// reader's terminal obeys more than JSON escapes, such as DEL, C1 and overrides
// of the text's direction.
func clip(s string) string {
	q := strconv.Quote(s[:min(len(s), sqltext.MaxName)])
	return q[1 : len(q)-1]
}

func clipText(s string) string { return s[:min(len(s), 1000)] }
