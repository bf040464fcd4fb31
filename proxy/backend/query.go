// A query of our own on a connection that is ready for one: text in, rows out, within bounds.

package backend

import (
	"bufio"
	"context"
	"io"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/proxy/pgwire"
)

// Query runs one statement and calls each with every row, in text; nil is NULL, and a row is valid until each returns. It reads no
// more than limit bytes; ctx bounds the time. After an error, of each too, the connection is good for nothing but Close.
func (c *Conn) Query(ctx context.Context, text string, limit int64, each func(row [][]byte) error) error {
	w := &wire{ctx: ctx, swap: c.Net, tls: c.TLS}
	w.stop = context.AfterFunc(ctx, func() { _ = c.Net.SetDeadline(past) })
	defer w.stop()
	in := &io.LimitedReader{R: w.stream(), N: limit}
	w.r = bufio.NewReader(in)
	err := w.query(text, each)
	if err == nil {
		return nil
	}
	if in.N <= 0 {
		err = violation("more than %d bytes in answer to a query", limit)
	}
	return w.failed("query", err)
}

func (w *wire) query(text string, each func(row [][]byte) error) error {
	if err := w.send(pgwire.AppendQuery(nil, text), nil); err != nil {
		return err
	}
	var row pgproto3.DataRow
	for {
		typ, body, err := w.next()
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.DataRow:
			if row.Decode(body) != nil {
				return violation("malformed DataRow")
			}
			if err := each(row.Values); err != nil {
				return err
			}
		case pgwire.ErrorResponse:
			return &ServerError{Response: pgwire.ParseError(body), Proven: true, Query: true}
		case pgwire.ReadyForQuery:
			return nil
		case pgwire.RowDescription, pgwire.CommandComplete, pgwire.NoticeResponse, pgwire.ParameterStatus, pgwire.NotificationResponse:
		default:
			return violation("message of type 0x%02x in answer to a query", typ)
		}
	}
}
