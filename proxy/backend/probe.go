// Whether a server takes logins, without logging in.

package backend

import (
	"context"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/proxy/pgwire"
)

// Answers returns nil if the target's server takes logins, and an error if it
// does not yet: it is unreachable, closes early, or says that it is starting.
// It goes as far as the server's first answer to a startup message and proves
// nothing about who answered. What waiting does not cure (a certificate of
// somebody else, a refusal) is an answer: a login will say what is wrong. ctx
// bounds all of it.
func Answers(ctx context.Context, t Target) error {
	err := answers(ctx, &t)
	if Retryable(err) {
		return err
	}
	return nil
}

func answers(ctx context.Context, t *Target) error {
	if err := t.checkServer(); err != nil {
		return err
	}
	w, err := open(ctx, t)
	if err != nil {
		return err
	}
	defer w.close()
	startup := pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": t.User}}
	if err := w.send(startup.Encode(nil)); err != nil {
		return w.failed("probe", err)
	}
	typ, body, err := w.next()
	if err != nil {
		return w.failed("probe", err)
	}
	if typ == pgwire.ErrorResponse {
		return &ServerError{Response: pgwire.ParseError(body)}
	}
	return nil
}
