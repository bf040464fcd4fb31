// A Verifier is what is stored of a password: enough to judge a login, not enough to make one.

package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// KeySize is the length in bytes of StoredKey, ServerKey and ClientKey.
	KeySize = sha256.Size
	// SaltSize is the length in bytes of the salts made here, the same as Postgres's.
	SaltSize = 16
	// DefaultIterations is Postgres's default PBKDF2 iteration count.
	DefaultIterations = 4096
	// MaxIterations bounds the PBKDF2 work that a verifier or a peer may ask for.
	MaxIterations = 1_000_000
	// MaxSaltSize bounds the length in bytes of a salt.
	MaxSaltSize = 1024

	verifierPrefix = "SCRAM-SHA-256$"
)

// ErrVerifier is wrapped by every error that says why something is not a usable verifier.
var ErrVerifier = errors.New("not a usable SCRAM-SHA-256 verifier")

// Verifier is a SCRAM-SHA-256 verifier in the form in which Postgres keeps it in pg_authid.rolpassword:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>     (the last three in padded base64)
//
// It is a secret: with it one can impersonate the server, and guess passwords offline. So every usual way of printing
// it (fmt, log/slog, JSON, text) yields a fixed placeholder; its fields and Encode are what gets it out.
type Verifier struct {
	Iterations int    // PBKDF2 iterations, 1 to MaxIterations
	Salt       []byte // 1 to MaxSaltSize bytes
	StoredKey  []byte // SHA-256 of the client key, KeySize bytes
	ServerKey  []byte // the key that signs the server's last message, KeySize bytes
}

// ParseVerifier reads the form that Encode writes. It is strict: what it accepts, Encode gives back byte for byte.
// Errors wrap ErrVerifier and repeat nothing of s.
func ParseVerifier(s string) (Verifier, error) {
	// The longest valid verifier is bounded by the longest salt; refuse to work on more.
	if len(s) > len(verifierPrefix)+base64.StdEncoding.EncodedLen(MaxSaltSize)+128 {
		return Verifier{}, fmt.Errorf("%w: too long", ErrVerifier)
	}
	rest, ok := strings.CutPrefix(s, verifierPrefix)
	if !ok {
		return Verifier{}, fmt.Errorf("%w: it does not begin with %q", ErrVerifier, verifierPrefix)
	}
	params, keys, ok := strings.Cut(rest, "$")
	if !ok {
		return Verifier{}, fmt.Errorf("%w: the keys are missing", ErrVerifier)
	}
	count, salt64, ok := strings.Cut(params, ":")
	if !ok {
		return Verifier{}, fmt.Errorf("%w: the salt is missing", ErrVerifier)
	}
	stored64, server64, ok := strings.Cut(keys, ":")
	if !ok {
		return Verifier{}, fmt.Errorf("%w: the server key is missing", ErrVerifier)
	}

	var v Verifier
	var err error
	// strconv's and base64's own errors quote their input, hence the fixed texts.
	if v.Iterations, err = strconv.Atoi(count); err != nil {
		return Verifier{}, fmt.Errorf("%w: the iteration count is not a number", ErrVerifier)
	}
	for _, f := range []struct {
		name, text string
		into       *[]byte
	}{{"salt", salt64, &v.Salt}, {"stored key", stored64, &v.StoredKey}, {"server key", server64, &v.ServerKey}} {
		if *f.into, err = base64.StdEncoding.Strict().DecodeString(f.text); err != nil {
			return Verifier{}, fmt.Errorf("%w: the %s is not base64", ErrVerifier, f.name)
		}
	}
	if err := v.validate(); err != nil {
		return Verifier{}, err
	}
	// Catches what the decoders above forgive: line breaks in base64, signs and leading zeros in the number.
	if v.Encode() != s {
		return Verifier{}, fmt.Errorf("%w: not in canonical form", ErrVerifier)
	}
	return v, nil
}

// NewVerifier derives the verifier of a password as Postgres would. iterations must be 1 to MaxIterations. A nil salt
// means SaltSize random bytes. An empty password is an error, because Postgres takes that as "no password".
// The cost is iterations HMACs, so keep it off shared threads.
func NewVerifier(password string, iterations int, salt []byte) (Verifier, error) {
	if password == "" || strings.ContainsRune(password, 0) {
		return Verifier{}, fmt.Errorf("%w: a password must not be empty or contain a zero byte", ErrVerifier)
	}
	if salt == nil {
		salt = make([]byte, SaltSize)
		rand.Read(salt) // never fails: crypto/rand ends the program instead
	}
	// Judge the parameters before the costly part.
	v := Verifier{Iterations: iterations, Salt: append([]byte(nil), salt...), StoredKey: make([]byte, KeySize), ServerKey: make([]byte, KeySize)}
	if err := v.validate(); err != nil {
		return Verifier{}, err
	}
	salted, err := v.salted(password)
	if err != nil {
		return Verifier{}, err
	}
	defer clear(salted)
	clientKey := hmacSHA256(salted, "Client Key")
	defer clear(clientKey)
	stored := sha256.Sum256(clientKey)
	v.StoredKey = stored[:]
	v.ServerKey = hmacSHA256(salted, "Server Key")
	return v, nil
}

// KeyOf derives the key that is behind v if the password is: ask Matches. Of a wrong password it is noise. A password that
// NewVerifier would refuse is for the caller to refuse: to HMAC, zero bytes at the end are none.
// The cost is v.Iterations HMACs whatever the password, so keep it off shared threads and bound how much of it goes on.
func (v Verifier) KeyOf(password string) (key ClientKey, err error) {
	salted, err := v.salted(password)
	if err != nil {
		return key, err
	}
	defer clear(salted)
	copy(key[:], hmacSHA256(salted, "Client Key"))
	return key, nil
}

// salted is RFC 5802's SaltedPassword.
func (v Verifier) salted(password string) ([]byte, error) {
	salted, err := pbkdf2.Key(sha256.New, saslPrep(password), v.Salt, v.Iterations, KeySize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerifier, err)
	}
	return salted, nil
}

// Mock makes the verifier to judge a user by who does not exist. It depends on its arguments alone, so that repeated
// attempts, restarts and other nodes with the same secret show the same salt, as they would for a real user. Nobody
// knows a password for it; even so, hand it to NewServer with genuine == false. iterations below 1 means
// DefaultIterations. It costs five HMACs.
func Mock(secret []byte, tenant, user string, iterations int) Verifier {
	if iterations < 1 {
		iterations = DefaultIterations
	}
	name := tenant + "\x00" + user
	if iterations != DefaultIterations { // a real user with another count has another salt, too
		name += "\x00" + strconv.Itoa(iterations)
	}
	// The keys come from subkeys: the salt, which is public, then says nothing about them.
	return Verifier{
		Iterations: min(iterations, MaxIterations),
		Salt:       hmacSHA256(secret, name)[:SaltSize],
		StoredKey:  hmacSHA256(hmacSHA256(secret, "mock stored key"), name),
		ServerKey:  hmacSHA256(hmacSHA256(secret, "mock server key"), name),
	}
}

// Encode returns the verifier in Postgres's form. The result is a secret.
func (v Verifier) Encode() string {
	b64 := base64.StdEncoding.EncodeToString
	return verifierPrefix + strconv.Itoa(v.Iterations) + ":" + b64(v.Salt) + "$" + b64(v.StoredKey) + ":" + b64(v.ServerKey)
}

// Equal says whether both are the same verifier, in a time that does not depend on where the keys differ.
func (v Verifier) Equal(o Verifier) bool {
	same := subtle.ConstantTimeCompare(v.Salt, o.Salt) &
		subtle.ConstantTimeCompare(v.StoredKey, o.StoredKey) &
		subtle.ConstantTimeCompare(v.ServerKey, o.ServerKey)
	return same == 1 && v.Iterations == o.Iterations
}

// IsZero says whether v holds nothing.
func (v Verifier) IsZero() bool {
	return v.Iterations == 0 && len(v.Salt) == 0 && len(v.StoredKey) == 0 && len(v.ServerKey) == 0
}

// validate checks the ranges that ParseVerifier and NewVerifier promise.
func (v Verifier) validate() error {
	switch {
	case v.Iterations < 1 || v.Iterations > MaxIterations:
		return fmt.Errorf("%w: the iteration count must be between 1 and %d", ErrVerifier, MaxIterations)
	case len(v.Salt) < 1 || len(v.Salt) > MaxSaltSize:
		return fmt.Errorf("%w: the salt must have 1 to %d bytes", ErrVerifier, MaxSaltSize)
	case len(v.StoredKey) != KeySize:
		return fmt.Errorf("%w: the stored key must have %d bytes", ErrVerifier, KeySize)
	case len(v.ServerKey) != KeySize:
		return fmt.Errorf("%w: the server key must have %d bytes", ErrVerifier, KeySize)
	}
	return nil
}

// hmacSHA256 is HMAC-SHA-256 of a text, the building block of RFC 5802 section 3.
func hmacSHA256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
