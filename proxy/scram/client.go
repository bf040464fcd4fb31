// Client logs in to a server by SCRAM-SHA-256, with a password or with the ClientKey that a client's proof gave away.

package scram

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

// maxNonceExtra bounds what a server may append to our nonce. Postgres appends 24 bytes.
const maxNonceExtra = 1024

// What can go wrong between a Client and its server. All are final: the same attempt would fail again.
var (
	// ErrVerifierMismatch means that the server keeps another salt or iteration count for the role than the verifier
	// that the ClientKey belongs to, so the key cannot log in there. The role has another password on that server, the
	// same password with another salt, or does not exist.
	ErrVerifierMismatch = errors.New("scram: the server's verifier is not the one that the client was judged by")
	// ErrServerMessage means that the server sent something that is no SCRAM message, or is beyond the limits.
	ErrServerMessage = errors.New("scram: unacceptable message from the server")
	// ErrServerSignature means that the server did not prove to know the verifier: it may be an impostor.
	ErrServerSignature = errors.New("scram: the server did not prove that it knows the verifier")
	// ErrRejected means that the server refused our proof by a SCRAM error (Postgres sends an ErrorResponse instead).
	ErrRejected = errors.New("scram: the server rejected the proof")
)

// Credentials are what a Client logs in with: a Password, or a Key together with the Verifier it belongs to. Where Key
// is set the password is not looked at. They are a secret, and print as a placeholder.
type Credentials struct {
	Password string
	Key      *ClientKey
	Verifier Verifier
}

const redactedCredentials = "[SCRAM credentials, redacted]"

// String returns a placeholder.
func (c Credentials) String() string { return redactedCredentials }

// GoString returns a placeholder.
func (c Credentials) GoString() string { return redactedCredentials }

// Format writes a placeholder, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedCredentials) }

// LogValue returns a placeholder.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(redactedCredentials) }

// MarshalText returns a placeholder; there is no way back.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(redactedCredentials), nil }

// ClientOptions limit what a server can make a Client do.
type ClientOptions struct {
	// MaxIterations is the highest PBKDF2 iteration count to accept; 0, and anything above it, means MaxIterations.
	MaxIterations int
}

// Client is the client's side of one SCRAM conversation (RFC 5802, RFC 7677) against a server that may be hostile:
// First, Final and Verify are called once each, in this order. It is not safe for concurrent use.
type Client struct {
	creds         Credentials
	maxIterations int

	mechanism string
	gs2       string // the gs2 header of client-first: whether and how the channel is bound
	binding   []byte // the channel's data, only where the gs2 header says p=
	nonce     string
	bare      string // client-first-message-bare

	signature []byte // the server signature to expect, set by Final
}

// NewClient starts a conversation. cb is what the channel offers to be bound to, empty in plaintext or where the
// certificate has no binding; plusOffered says whether the server listed SCRAM-SHA-256-PLUS.
func NewClient(c Credentials, cb ChannelBinding, plusOffered bool, opts ClientOptions) *Client {
	limit := opts.MaxIterations
	if limit <= 0 || limit > MaxIterations {
		limit = MaxIterations
	}
	// 18 bytes are what Postgres and libpq use; rand.Read never fails.
	var raw [18]byte
	rand.Read(raw[:])
	cl := &Client{creds: c, maxIterations: limit, mechanism: Mechanism, nonce: base64.StdEncoding.EncodeToString(raw[:])}
	// The role is the startup message's; Postgres ignores a name here, so like libpq we send none.
	cl.bare = "n=,r=" + cl.nonce
	switch {
	case !cb.available():
		cl.gs2 = "n,,"
	case plusOffered:
		cl.mechanism = MechanismPlus
		cl.gs2 = "p=" + cb.Type + ",,"
		cl.binding = cb.Data
	default:
		// We could have bound the channel. A server that did offer it sees here that someone removed its offer.
		cl.gs2 = "y,,"
	}
	return cl
}

// Mechanism returns the name of the SASL mechanism to ask for.
func (c *Client) Mechanism() string { return c.mechanism }

// First returns the client-first-message.
func (c *Client) First() []byte { return []byte(c.gs2 + c.bare) }

// Final answers the server-first-message with the client-final-message, which carries the proof. With a password it
// costs as many HMACs as the server asks for (within the limit), so it belongs into a bounded worker; with a key it is
// cheap. Errors wrap ErrServerMessage or ErrVerifierMismatch and repeat nothing that the server sent.
func (c *Client) Final(serverFirst []byte) ([]byte, error) {
	if c.signature != nil {
		return nil, fmt.Errorf("%w: a second challenge", ErrServerMessage)
	}
	ch, err := c.parseChallenge(string(serverFirst))
	if err != nil {
		return nil, err
	}
	keys, err := c.keys(ch)
	if err != nil {
		return nil, err
	}

	final := "c=" + base64.StdEncoding.EncodeToString(append([]byte(c.gs2), c.binding...)) + ",r=" + ch.nonce
	auth := c.bare + "," + string(serverFirst) + "," + final
	proof := hmacSHA256(keys.StoredKey, auth)
	subtle.XORBytes(proof, proof, keys.client[:])
	keys.client.Zero()
	c.signature = hmacSHA256(keys.ServerKey, auth)
	c.creds = Credentials{} // no longer needed, so no longer kept
	return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// Verify checks the server-final-message: only a server that knows the verifier can have signed the conversation.
func (c *Client) Verify(serverFinal []byte) error {
	if c.signature == nil {
		return fmt.Errorf("%w: a signature before the challenge", ErrServerMessage)
	}
	attr, _, _ := strings.Cut(string(serverFinal), ",")
	switch value, isSignature := strings.CutPrefix(attr, "v="); {
	case isSignature:
		got, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil || !hmac.Equal(got, c.signature) {
			return ErrServerSignature
		}
		return nil
	case strings.HasPrefix(attr, "e="):
		return ErrRejected
	default:
		return fmt.Errorf("%w: neither a signature nor an error", ErrServerMessage)
	}
}

// challenge is a server-first-message that passed the limits.
type challenge struct {
	nonce      string
	salt       []byte
	iterations int
}

// parseChallenge reads "r=<nonce>,s=<salt>,i=<count>[,extensions]". Extensions are ignored, as RFC 5802 section 5.1
// wants; the mandatory one ("m=") stands first and so fails.
func (c *Client) parseChallenge(s string) (challenge, error) {
	bad := func(what string) (challenge, error) { return challenge{}, fmt.Errorf("%w: %s", ErrServerMessage, what) }
	parts := strings.SplitN(s, ",", 4)
	if len(parts) < 3 {
		return bad("attributes are missing")
	}
	nonce, okNonce := strings.CutPrefix(parts[0], "r=")
	salt64, okSalt := strings.CutPrefix(parts[1], "s=")
	count, okCount := strings.CutPrefix(parts[2], "i=")
	if !okNonce || !okSalt || !okCount {
		return bad("the attributes are not r, s and i")
	}

	// A nonce that does not extend ours is a replay of someone else's conversation.
	extra, ours := strings.CutPrefix(nonce, c.nonce)
	if !ours || extra == "" {
		return bad("the nonce does not extend ours")
	}
	if len(extra) > maxNonceExtra {
		return bad("the nonce is too long")
	}
	if strings.ContainsFunc(extra, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return bad("the nonce has bytes that are not printable")
	}

	if len(salt64) > base64.StdEncoding.EncodedLen(MaxSaltSize) {
		return bad("the salt is too long")
	}
	salt, err := base64.StdEncoding.Strict().DecodeString(salt64)
	if err != nil || len(salt) == 0 || len(salt) > MaxSaltSize {
		return bad("the salt is not base64 of 1 to 1024 bytes")
	}

	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || strconv.Itoa(n) != count {
		return bad("the iteration count is not a positive number")
	}
	if n > c.maxIterations {
		return bad("the iteration count is above the limit of " + strconv.Itoa(c.maxIterations))
	}
	return challenge{nonce: nonce, salt: salt, iterations: n}, nil
}

// loginKeys are the three keys of a conversation, the client's own included.
type loginKeys struct {
	client               ClientKey
	StoredKey, ServerKey []byte
}

// keys takes the keys from the credentials, or derives them from the password.
func (c *Client) keys(ch challenge) (loginKeys, error) {
	if c.creds.Key == nil {
		salted, err := pbkdf2.Key(sha256.New, saslPrep(c.creds.Password), ch.salt, ch.iterations, KeySize)
		if err != nil {
			return loginKeys{}, fmt.Errorf("scram: deriving the key: %w", err)
		}
		defer clear(salted)
		k := loginKeys{client: ClientKey(hmacSHA256(salted, "Client Key")), ServerKey: hmacSHA256(salted, "Server Key")}
		stored := sha256.Sum256(k.client[:])
		k.StoredKey = stored[:]
		return k, nil
	}

	v := c.creds.Verifier
	switch {
	case !c.creds.Key.Matches(v):
		return loginKeys{}, fmt.Errorf("%w: the client key belongs to another verifier", ErrVerifierMismatch)
	case ch.iterations != v.Iterations:
		return loginKeys{}, fmt.Errorf("%w: the iteration count differs", ErrVerifierMismatch)
	case !bytes.Equal(ch.salt, v.Salt):
		return loginKeys{}, fmt.Errorf("%w: the salt differs", ErrVerifierMismatch)
	}
	return loginKeys{client: *c.creds.Key, StoredKey: v.StoredKey, ServerKey: v.ServerKey}, nil
}

const redactedClient = "[SCRAM client conversation, redacted]"

// Format writes a placeholder: the conversation holds its credentials.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedClient) }

// LogValue returns a placeholder.
func (c *Client) LogValue() slog.Value { return slog.StringValue(redactedClient) }
