// Authentication: what a server may ask for, and what it has to show for it.

package backend

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// maxInlineIterations bounds PBKDF2 where no worker does (about 0.1 s of CPU).
const maxInlineIterations = 200_000

// authenticate answers the server's one request and returns after
// AuthenticationOk.
func (l *login) authenticate() error {
	for {
		code, body, err := l.request()
		if err != nil {
			return err
		}
		switch {
		case code == pgproto3.AuthTypeOk:
			certified := l.t.Auth == AuthCert && l.shown // both have proved themselves in TLS
			if !l.answered && !certified {
				return fmt.Errorf("%w: it accepted the login without asking for proof", ErrNoProof)
			}
			return nil
		case l.answered:
			return violation("authentication request %d behind a complete exchange", code)
		case code == pgproto3.AuthTypeSASL && l.t.Auth != AuthCert:
			err = l.sasl(body)
		case code == pgproto3.AuthTypeMD5Password && l.t.Auth == AuthMD5:
			err = l.md5(body)
		case code == pgproto3.AuthTypeCleartextPassword && l.t.Auth == AuthPassword && l.t.TLS == TLSVerifyFull:
			err = l.send((&pgproto3.PasswordMessage{Password: l.t.Credentials.Password}).Encode(nil))
		default:
			return violation("authentication request %d, which the target does not allow", code)
		}
		if err != nil {
			return err
		}
		l.answered = true
	}
}

// request reads an authentication message; body includes the code.
func (l *login) request() (code uint32, body []byte, err error) {
	typ, body, err := l.message()
	if err != nil {
		return 0, nil, err
	}
	if typ != pgwire.Authentication || len(body) < 4 {
		return 0, nil, violation("message of type 0x%02x and %d bytes before authentication", typ, len(body))
	}
	return binary.BigEndian.Uint32(body), body, nil
}

// sasl runs a SCRAM conversation to its end: ours and the server's proof.
func (l *login) sasl(body []byte) error {
	var offer pgproto3.AuthenticationSASL
	if err := offer.Decode(body); err != nil {
		return violation("malformed AuthenticationSASL")
	}
	limit := maxInlineIterations
	if l.t.Derive != nil {
		limit = scram.MaxIterations
	}
	plus := slices.Contains(offer.AuthMechanisms, scram.MechanismPlus)
	client := scram.NewClient(l.t.Credentials, l.binding, plus, scram.ClientOptions{MaxIterations: limit})
	if !slices.Contains(offer.AuthMechanisms, client.Mechanism()) {
		return violation("the server does not offer %s", scram.Mechanism)
	}

	if err := l.send((&pgproto3.SASLInitialResponse{AuthMechanism: client.Mechanism(), Data: client.First()}).Encode(nil)); err != nil {
		return err
	}
	challenge, err := l.saslMessage(pgproto3.AuthTypeSASLContinue)
	if err != nil {
		return err
	}
	final, err := l.prove(client, challenge)
	if err != nil {
		return err
	}
	if err := l.send((&pgproto3.SASLResponse{Data: final}).Encode(nil)); err != nil {
		return err
	}
	signature, err := l.saslMessage(pgproto3.AuthTypeSASLFinal)
	if err != nil {
		return err
	}
	if err := client.Verify(signature); err != nil {
		return scramError(err)
	}
	return nil
}

// saslMessage reads the SASL message that the conversation is due for.
func (l *login) saslMessage(want uint32) ([]byte, error) {
	code, body, err := l.request()
	switch {
	case err != nil:
		return nil, err
	case code == pgproto3.AuthTypeOk:
		return nil, fmt.Errorf("%w: it accepted the login in the middle of the exchange", ErrNoProof)
	case code != want:
		return nil, violation("authentication request %d in place of %d", code, want)
	}
	return body[4:], nil
}

// prove computes the client's final message, in the worker where it is costly.
func (l *login) prove(client *scram.Client, challenge []byte) ([]byte, error) {
	var out struct {
		final []byte
		err   error
	}
	if l.t.Derive == nil || l.t.Credentials.Key != nil {
		out.final, out.err = client.Final(challenge)
	} else {
		// The worker may outlive an error of Derive, and l with its buffer does not.
		result := &out
		challenge = bytes.Clone(challenge)
		err := l.t.Derive(l.ctx, func() { result.final, result.err = client.Final(challenge) })
		if err != nil {
			return nil, fmt.Errorf("deriving the key: %w", err)
		}
	}
	if out.err != nil {
		return nil, scramError(out.err)
	}
	return out.final, nil
}

// md5 answers with md5(md5(password + user) + salt), each in hex. Broken as it
// is, it is what old servers have; the target has to ask for it.
func (l *login) md5(body []byte) error {
	var request pgproto3.AuthenticationMD5Password
	if err := request.Decode(body); err != nil {
		return violation("malformed AuthenticationMD5Password")
	}
	hexMD5 := func(s string) string {
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	answer := "md5" + hexMD5(hexMD5(l.t.Credentials.Password+l.t.User)+string(request.Salt[:]))
	return l.send((&pgproto3.PasswordMessage{Password: answer}).Encode(nil))
}
