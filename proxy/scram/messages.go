// Reading the client's two messages as strictly as Postgres does (grammar: RFC 5802 section 7).

package scram

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// clientFirst is what later steps need of the client's first message.
type clientFirst struct {
	gs2   string // the GS2 header with its last comma: "n,,", "y,," or "p=tls-server-end-point,,"
	bound bool   // the flag is p
	bare  string // client-first-message-bare
}

// clientFinal is what the server needs of the client's last message.
type clientFinal struct {
	withoutProof string // client-final-message-without-proof
	proof        []byte // KeySize bytes
}

// checkMessage refuses what no SCRAM message can be.
func checkMessage(message []byte) *Error {
	switch {
	case len(message) == 0:
		return malformed("The message is empty.")
	case len(message) > MaxMessage:
		return malformed("The message is too long.")
	case bytes.IndexByte(message, 0) >= 0:
		return malformed("The message contains a zero byte.")
	}
	return nil
}

// parseFirst reads the client's first message. plus: the client chose the -PLUS mechanism; offered: it could have.
func parseFirst(message []byte, plus, offered bool) (clientFirst, error) {
	if err := checkMessage(message); err != nil {
		return clientFirst{}, err
	}
	flag, rest, _ := strings.Cut(string(message), ",")
	authzid, bare, ok := strings.Cut(rest, ",")
	if !ok {
		return clientFirst{}, malformed("The message is incomplete.")
	}
	switch {
	case flag == "n" || flag == "y":
		if plus {
			return clientFirst{}, malformed("The client selected " + MechanismPlus + " but sent no channel binding.")
		}
		// A client says y when it could bind the channel and was not offered to. If it was, somebody cut the offer.
		if flag == "y" && offered {
			return clientFirst{}, &Error{
				Kind:    Downgraded,
				Message: "SCRAM channel binding negotiation error",
				Detail:  "Channel binding was offered, but the client did not see the offer.",
			}
		}
	case strings.HasPrefix(flag, "p="):
		if !plus {
			return clientFirst{}, malformed("The client selected " + Mechanism + " but sent a channel binding.")
		}
		if flag != "p="+EndpointType {
			return clientFirst{}, &Error{Kind: Malformed, Message: "unsupported SCRAM channel-binding type"}
		}
	default:
		return clientFirst{}, malformed("The channel-binding flag is unknown.")
	}
	if strings.HasPrefix(authzid, "a") {
		return clientFirst{}, &Error{Kind: Unsupported, Message: "client uses authorization identity, but it is not supported"}
	}
	if authzid != "" {
		return clientFirst{}, malformed("An attribute is not expected where it is.")
	}
	if err := checkFirstBare(bare); err != nil {
		return clientFirst{}, err
	}
	return clientFirst{gs2: flag + ",,", bound: plus, bare: bare}, nil
}

// checkFirstBare checks "n=user,r=nonce" and the optional extensions behind it, which are ignored. An empty nonce
// passes, as in Postgres: it weakens that client alone, and ours is long.
func checkFirstBare(bare string) *Error {
	fields := strings.Split(bare, ",")
	for _, field := range fields {
		if err := checkAttribute(field); err != nil {
			return err
		}
	}
	if fields[0][0] != 'n' {
		return malformed("The user name is not where it should be.")
	}
	if len(fields) < 2 || fields[1][0] != 'r' {
		return malformed("The nonce is not where it should be.")
	}
	for _, c := range []byte(fields[1][2:]) {
		if c < 0x21 || c > 0x7e {
			return &Error{Kind: Malformed, Message: "non-printable characters in SCRAM nonce"}
		}
	}
	return nil
}

// parseFinal reads the client's last message and checks all of it but the proof.
func parseFinal(message []byte, first clientFirst, cb ChannelBinding, challenge string) (clientFinal, error) {
	if err := checkMessage(message); err != nil {
		return clientFinal{}, err
	}
	text := string(message)
	fields := strings.Split(text, ",")
	for _, field := range fields {
		if err := checkAttribute(field); err != nil {
			return clientFinal{}, err
		}
	}
	last := len(fields) - 1
	if last < 2 || fields[0][0] != 'c' || fields[1][0] != 'r' || fields[last][0] != 'p' {
		return clientFinal{}, malformed("The message is incomplete or not in order.")
	}
	for _, extension := range fields[2:last] {
		if extension[0] == 'p' {
			return clientFinal{}, malformed("Something follows the proof.")
		}
	}
	// Strict decoding leaves a proof one spelling, and the length check excludes the line breaks it would skip.
	proof, err := base64.StdEncoding.Strict().DecodeString(fields[last][2:])
	if err != nil || len(proof) != KeySize || len(fields[last]) != 2+base64.StdEncoding.EncodedLen(KeySize) {
		return clientFinal{}, malformed("The proof is not 32 bytes in base64.")
	}
	if fields[0][2:] != first.cbind(cb) {
		if first.bound { // the client sees another certificate than ours, so somebody is between us
			return clientFinal{}, &Error{Kind: Downgraded, Message: "SCRAM channel binding check failed"}
		}
		return clientFinal{}, &Error{Kind: Malformed, Message: "unexpected SCRAM channel-binding attribute in client-final-message"}
	}
	nonce, _, _ := strings.Cut(challenge, ",")
	if fields[1] != nonce {
		return clientFinal{}, &Error{Kind: Malformed, Message: "invalid SCRAM response", Detail: "Nonce does not match."}
	}
	return clientFinal{withoutProof: text[:len(text)-len(fields[last])-1], proof: proof}, nil
}

// checkAttribute checks that a field is a letter, "=" and a value, and not the mandatory extension m=, which RFC 5802
// section 5.1 tells a server to refuse wherever it appears.
func checkAttribute(field string) *Error {
	if len(field) < 2 || field[1] != '=' || !isLetter(field[0]) {
		return malformed("An attribute is not a letter, an equals sign and a value.")
	}
	if field[0] == 'm' {
		return &Error{Kind: Unsupported, Message: "client requires an unsupported SCRAM extension"}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
