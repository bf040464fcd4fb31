// A SCRAM-SHA-256 client that can be told to get each part wrong (RFC 5802, RFC 7677).

package hostile

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const (
	scramPlain = "SCRAM-SHA-256"
	scramPlus  = "SCRAM-SHA-256-PLUS"
)

// scramClient is one login. The zero value with a password is an honest one.
type scramClient struct {
	password string
	gs2      string // "": "n,,"
	binding  []byte // channel binding data, with a gs2 of "p=..."
	nonce    string // "": random
	cbind    string // c= of the final message as it goes over the wire; "": what is right

	bare string
}

func (s *scramClient) header() string {
	if s.gs2 == "" {
		return "n,,"
	}
	return s.gs2
}

// first is the client's first message.
func (s *scramClient) first() []byte {
	if s.nonce == "" {
		s.nonce = rand.Text()
	}
	s.bare = "n=,r=" + s.nonce
	return []byte(s.header() + s.bare)
}

// attribute returns a challenge's attribute, such as s= for the salt.
func attribute(challenge []byte, name string) string {
	for f := range strings.SplitSeq(string(challenge), ",") {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	return ""
}

// final is the client's answer to the challenge.
func (s *scramClient) final(t testing.TB, challenge []byte) []byte {
	t.Helper()
	c := s.cbind
	if c == "" {
		c = base64.StdEncoding.EncodeToString(append([]byte(s.header()), s.binding...))
	}
	without := "c=" + c + ",r=" + attribute(challenge, "r")
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(s.proof(t, challenge, without)))
}

func (s *scramClient) proof(t testing.TB, challenge []byte, without string) []byte {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString(attribute(challenge, "s"))
	if err != nil {
		t.Fatalf("salt in %q: %v", challenge, err)
	}
	rounds, err := strconv.Atoi(attribute(challenge, "i"))
	if err != nil {
		t.Fatalf("iterations in %q: %v", challenge, err)
	}
	salted, err := pbkdf2.Key(sha256.New, s.password, salt, rounds, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	proof := make([]byte, sha256.Size)
	subtle.XORBytes(proof, clientKey, mac(stored[:], fmt.Sprintf("%s,%s,%s", s.bare, challenge, without)))
	return proof
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// initial builds a SASLInitialResponse.
func initial(mechanism string, first []byte) []byte {
	return message('p', join([]byte(mechanism), []byte{0}, be32(uint32(len(first))), first))
}

// begin sends the first message and returns the challenge.
func (p *peer) begin(s *scramClient) (challenge []byte) {
	p.t.Helper()
	if offered := p.auth(10); !bytes.Contains(offered, []byte(scramPlain+"\x00")) {
		p.t.Fatalf("mechanisms %q", offered)
	}
	mechanism := scramPlain
	if strings.HasPrefix(s.gs2, "p=") {
		mechanism = scramPlus
	}
	p.send(initial(mechanism, s.first()))
	return p.auth(11)
}

// prove goes through the whole exchange to AuthenticationOk.
func (p *peer) prove(s *scramClient) {
	p.t.Helper()
	p.send(message('p', s.final(p.t, p.begin(s))))
	p.auth(12)
	p.auth(0)
}

// wrongPassword is a whole exchange that ends in 28P01. The text names the role.
func (p *peer) wrongPassword(role string) {
	p.t.Helper()
	s := &scramClient{password: canaryWrong}
	p.send(message('p', s.final(p.t, p.begin(s))))
	if got, want := p.fatal("28P01")['M'], fmt.Sprintf("password authentication failed for user %q", role); got != want {
		p.t.Errorf("message %q, want %q", got, want)
	}
}
