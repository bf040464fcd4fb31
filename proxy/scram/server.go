// Server is our side of a client's login.

package scram

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"

	xdg "github.com/xdg-go/scram"
)

const (
	// Mechanism and MechanismPlus are the SASL mechanism names (RFC 7677).
	Mechanism     = "SCRAM-SHA-256"
	MechanismPlus = "SCRAM-SHA-256-PLUS"

	// MaxMessage is the length in bytes of the longest SASL message that is looked at, Postgres's own bound.
	MaxMessage = 1024
)

// stage is how far a conversation has come. It only moves forward, and every error ends it.
type stage uint8

const (
	awaitFirst stage = iota
	awaitFinal
	ended
)

// Server is one conversation with one client. It is not for concurrent use. It does no I/O and keeps no reference to
// the messages it is given. It holds a verifier, so it prints as a placeholder.
type Server struct {
	verifier Verifier
	genuine  bool // false: no proof is good enough
	binding  ChannelBinding
	library  *xdg.Server

	stage stage
	// Set by First.
	conversation *xdg.ServerConversation
	first        clientFirst
	challenge    string
}

// NewServer begins a conversation with a client that claims to be v's user. With genuine == false, v is a Mock: the
// conversation runs the same, and whatever the proof, ends with BadProof. cb is the binding of the TLS connection to
// this client, zero in plaintext. An error means that v or cb is unusable, never that the client is at fault.
func NewServer(v Verifier, genuine bool, cb ChannelBinding) (*Server, error) {
	if err := v.validate(); err != nil {
		return nil, err
	}
	if cb.Type != "" && (cb.Type != EndpointType || len(cb.Data) == 0) {
		return nil, fmt.Errorf("scram: channel binding of type %q with %d bytes is not usable", cb.Type, len(cb.Data))
	}
	// The library's default nonce is 24 bytes of crypto/rand.
	library, err := xdg.SHA256.NewServer(func(string) (xdg.StoredCredentials, error) {
		return xdg.StoredCredentials{
			KeyFactors: xdg.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
			StoredKey:  v.StoredKey,
			ServerKey:  v.ServerKey,
		}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("scram: %w", err)
	}
	return &Server{verifier: v, genuine: genuine, binding: cb, library: library}, nil
}

// Mechanisms lists what to offer, best first.
func (s *Server) Mechanisms() []string {
	if s.binding.available() {
		return []string{MechanismPlus, Mechanism}
	}
	return []string{Mechanism}
}

// First takes the client's choice of mechanism and its first message (a nil initial: the client sent none, length -1)
// and returns the challenge to answer with. The error is an *Error if the client is at fault, and ends the conversation.
func (s *Server) First(mechanism string, initial []byte) (challenge []byte, err error) {
	at := s.stage
	s.stage = ended
	if at != awaitFirst {
		return nil, malformed("The client began a second conversation.")
	}
	plus := mechanism == MechanismPlus && s.binding.available()
	if mechanism != Mechanism && !plus {
		return nil, &Error{Kind: Malformed, Message: "client selected an invalid SASL authentication mechanism"}
	}
	if initial == nil {
		return nil, malformed("The client's first message is missing.")
	}
	first, err := parseFirst(initial, plus, s.binding.available())
	if err != nil {
		return nil, err
	}
	conversation := s.library.NewConversation()
	if s.binding.available() {
		conversation = s.library.NewConversationWithChannelBinding(xdg.ChannelBinding{
			Type: xdg.ChannelBindingType(s.binding.Type),
			Data: s.binding.Data,
		})
	}
	// The library's errors quote the client's bytes, so they are not passed on, here and in Final.
	reply, err := conversation.Step(string(initial))
	if err != nil {
		return nil, malformed("The user name is not validly encoded.")
	}
	s.conversation, s.first, s.challenge, s.stage = conversation, first, reply, awaitFinal
	return []byte(reply), nil
}

// Final takes the client's last message. If the proof in it is right, it returns the message that proves to the client
// that we know its verifier, and the key that the proof gave away, which Matches the verifier. The error is an *Error if
// the client is at fault. The conversation is over either way.
func (s *Server) Final(message []byte) (reply []byte, key ClientKey, err error) {
	at := s.stage
	s.stage = ended
	if at != awaitFinal {
		return nil, ClientKey{}, malformed("The message is out of order.")
	}
	final, err := parseFinal(message, s.first, s.binding, s.challenge)
	if err != nil {
		return nil, ClientKey{}, err
	}
	key = recoverKey(s.verifier, s.first.bare+","+s.challenge+","+final.withoutProof, final.proof)
	answer, stepErr := s.conversation.Step(string(message))
	if !s.genuine || (stepErr != nil && !key.Matches(s.verifier)) {
		return nil, ClientKey{}, &Error{Kind: BadProof, Message: "password authentication failed"}
	}
	if stepErr != nil || !s.conversation.Valid() || !key.Matches(s.verifier) {
		// The library and this package disagree about a message: a defect here, and no reason to let anybody in.
		return nil, ClientKey{}, errors.New("scram: BUG: two judgements of one proof differ")
	}
	return []byte(answer), key, nil
}

// recoverKey undoes the client's last step: ClientProof = ClientKey XOR HMAC(StoredKey, AuthMessage) (RFC 5802 section
// 3). The result is noise if the proof is wrong.
func recoverKey(v Verifier, authMessage string, proof []byte) (key ClientKey) {
	m := hmac.New(sha256.New, v.StoredKey)
	m.Write([]byte(authMessage))
	subtle.XORBytes(key[:], proof, m.Sum(nil))
	return key
}

// cbind is what c= must hold: the client's GS2 header and, if it binds the channel, the binding (RFC 5802 section 7).
func (f clientFirst) cbind(cb ChannelBinding) string {
	data := []byte(f.gs2)
	if f.bound {
		data = append(data, cb.Data...)
	}
	return base64.StdEncoding.EncodeToString(data)
}
