// Cancel asks a server to stop what one of its processes is doing.

package backend

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// CancelTimeout bounds a Cancel whose context would allow for more.
const CancelTimeout = 10 * time.Second

// Cancel dials the target, with TLS as it says, sends a CancelRequest for the
// process pid, and waits until the server closes: Postgres does so after it has
// sent the signals. Whether there was anything to cancel is not told. A reset
// tells nothing: it may have overtaken the request, which is still on its way
// then. The target's user and credentials are not used.
func Cancel(ctx context.Context, t Target, pid uint32, secret []byte) error {
	if err := t.checkServer(); err != nil {
		return err
	}
	if len(secret) == 0 {
		return ErrNoCancelKey
	}
	ctx, cancel := context.WithTimeout(ctx, CancelTimeout)
	defer cancel()
	w, err := open(ctx, &t)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.cancel(pid, secret); err != nil {
		return w.failed("cancel", err)
	}
	return nil
}

func (w *wire) cancel(pid uint32, secret []byte) error {
	if err := w.send((&pgproto3.CancelRequest{ProcessID: pid, SecretKey: secret}).Encode(nil)); err != nil {
		return err
	}
	switch _, err := w.r.ReadByte(); {
	case err == nil:
		return violation("an answer to a CancelRequest")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // without a word inside TLS, too
		return nil
	default:
		return err
	}
}
