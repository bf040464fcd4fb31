// The server's side: RFC 7677's example, the catalogue of first messages, and properties of good and bad passwords.

package scram

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	xdg "github.com/xdg-go/scram"
	"pgregory.net/rapid"
)

var testBinding = ChannelBinding{Type: EndpointType, Data: bytes.Repeat([]byte{7}, 32)}

// knower computes proofs from a password by the book, on its own: it shares no code with the package.
type knower struct {
	password string
	bare     string
	gs2      string
	binding  []byte
}

func (k knower) first() string { return k.gs2 + k.bare }

func (k knower) keys(t interface{ Fatal(...any) }, salt []byte, iterations int) (client, server []byte) {
	salted, err := pbkdf2.Key(sha256.New, k.password, salt, iterations, 32)
	if err != nil {
		t.Fatal(err)
	}
	return mac(salted, "Client Key"), mac(salted, "Server Key")
}

// final answers a challenge, and says what the server must answer to that.
func (k knower) final(t interface{ Fatal(...any) }, challenge string, v Verifier) (message, answer string) {
	nonce, _, _ := strings.Cut(challenge, ",")
	without := "c=" + b64(append([]byte(k.gs2), k.binding...)) + "," + nonce
	auth := k.bare + "," + challenge + "," + without
	client, server := k.keys(t, v.Salt, v.Iterations)
	stored := sha256.Sum256(client)
	proof := mac(stored[:], auth)
	for i := range proof {
		proof[i] ^= client[i]
	}
	return without + ",p=" + b64(proof), "v=" + b64(mac(server, auth))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func mustVerifier(t interface{ Fatal(...any) }, password string, iterations int, salt []byte) Verifier {
	v, err := NewVerifier(password, iterations, salt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustServer(t interface{ Fatal(...any) }, v Verifier, genuine bool, cb ChannelBinding) *Server {
	s, err := NewServer(v, genuine, cb)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantError checks that err is an *Error of a kind that repeats nothing of what was sent.
func wantError(t *testing.T, err error, kind Kind, sent string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind || e.Message == "" {
		t.Fatalf("%T %v, want kind %s", err, err, kind.SQLSTATE())
	}
	if len(sent) > 12 && strings.Contains(err.Error(), sent) {
		t.Errorf("the error repeats what was sent: %v", err)
	}
}

// RFC 7677 section 3.
func TestServerSpeaksTheRFCsExample(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	s := mustServer(t, mustVerifier(t, "pencil", 4096, salt), true, ChannelBinding{})
	s.library = s.library.WithNonceGenerator(xdg.NonceGeneratorFcn(func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }))
	challenge, err := s.First(Mechanism, []byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"; string(challenge) != want {
		t.Fatalf("challenge %q, want %q", challenge, want)
	}
	reply, key, err := s.Final([]byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if err != nil {
		t.Fatal(err)
	}
	if want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="; string(reply) != want || !key.Matches(s.verifier) {
		t.Fatalf("reply %q, want %q", reply, want)
	}
}

func TestMechanisms(t *testing.T) {
	v := Mock(nil, "", "", 1)
	if got := strings.Join(mustServer(t, v, true, ChannelBinding{}).Mechanisms(), " "); got != "SCRAM-SHA-256" {
		t.Errorf("in plaintext: %s", got)
	}
	if got := strings.Join(mustServer(t, v, true, testBinding).Mechanisms(), " "); got != "SCRAM-SHA-256-PLUS SCRAM-SHA-256" {
		t.Errorf("with a binding: %s", got)
	}
	for name, try := range map[string]func() (*Server, error){
		"no verifier":      func() (*Server, error) { return NewServer(Verifier{}, true, ChannelBinding{}) },
		"binding no data":  func() (*Server, error) { return NewServer(v, true, ChannelBinding{Type: EndpointType}) },
		"binding of other": func() (*Server, error) { return NewServer(v, true, ChannelBinding{"tls-unique", []byte{1}}) },
	} {
		if s, err := try(); err == nil || s != nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// The outcomes agree with PostgreSQL 15's to the same bytes, but for the stricter ones that are marked.
func TestServerFirst(t *testing.T) {
	const fine Kind = 0
	for _, c := range []struct {
		name      string
		binding   bool // over TLS with a certificate that can be bound
		mechanism string
		initial   string
		kind      Kind
	}{
		{"libpq", false, Mechanism, "n,,n=,r=abc", fine},
		{"libpq over TLS", true, MechanismPlus, "p=tls-server-end-point,,n=,r=abc", fine},
		{"channel_binding=disable over TLS", true, Mechanism, "n,,n=,r=abc", fine},
		{"y in plaintext", false, Mechanism, "y,,n=,r=abc", fine},
		{"another user name", false, Mechanism, "n,,n=bob=2C=3Dx,r=abc", fine},
		{"extensions behind", false, Mechanism, "n,,n=,r=abc,x=y,z=", fine},
		{"all printable nonce", false, Mechanism, "n,,n=,r=!\"#$%&'()*+-./09:;<=>?@AZ[\\]^_`az{|}~", fine},
		{"A03 mechanism", false, "FOO", "n,,n=,r=abc", Malformed},
		{"A03 no mechanism", false, "", "n,,n=,r=abc", Malformed},
		{"A03 lower case", false, "scram-sha-256", "n,,n=,r=abc", Malformed},
		{"A04 PLUS in plaintext", false, MechanismPlus, "p=tls-server-end-point,,n=,r=abc", Malformed},
		{"A04 PLUS in plaintext, n", false, MechanismPlus, "n,,n=,r=abc", Malformed},
		{"A09 garbage", false, Mechanism, "garbage", Malformed},
		{"A09 one byte", false, Mechanism, "n", Malformed},
		{"A09 flag n twice", false, Mechanism, "nn,,n=,r=abc", Malformed},
		{"A09 no flag", false, Mechanism, ",,n=,r=abc", Malformed},
		{"A09 commas", false, Mechanism, ",,,,,,", Malformed},
		{"A09 empty", false, Mechanism, "", Malformed},
		{"A09 no user name", false, Mechanism, "n,,r=abc", Malformed},
		{"A09 no nonce", false, Mechanism, "n,,n=", Malformed},
		{"A09 order", false, Mechanism, "n,,r=abc,n=", Malformed},
		{"A09 something between", false, Mechanism, "n,,n=,x=y,r=abc", Malformed},
		{"A09 bare attribute", false, Mechanism, "n,,n=,r=abc,x", Malformed},
		{"A09 trailing comma (stricter)", false, Mechanism, "n,,n=,r=abc,", Malformed},
		{"A09 user name's escapes (stricter)", false, Mechanism, "n,,n=a=b,r=abc", Malformed},
		{"A09 junk for an authzid", false, Mechanism, "n,b,n=,r=abc", Malformed},
		{"A09 NUL", false, Mechanism, "n,,n=,r=abc\x00", Malformed},
		{"A09 NUL in the user name", false, Mechanism, "n,,n=a\x00b,r=abc", Malformed},
		{"A10 tls-unique in plaintext", false, Mechanism, "p=tls-unique,,n=,r=abc", Malformed},
		{"A10 p without PLUS", true, Mechanism, "p=tls-server-end-point,,n=,r=abc", Malformed},
		{"A10 n with PLUS", true, MechanismPlus, "n,,n=,r=abc", Malformed},
		{"A10 y with PLUS", true, MechanismPlus, "y,,n=,r=abc", Malformed},
		{"A10 tls-unique", true, MechanismPlus, "p=tls-unique,,n=,r=abc", Malformed},
		{"A10 tls-exporter", true, MechanismPlus, "p=tls-exporter,,n=,r=abc", Malformed},
		{"A10 p of nothing", true, MechanismPlus, "p=,,n=,r=abc", Malformed},
		{"A10 p alone", true, MechanismPlus, "p,,n=,r=abc", Malformed},
		{"A10 downgrade", true, Mechanism, "y,,n=,r=abc", Downgraded},
		{"A11 authzid", false, Mechanism, "n,a=bob,n=,r=abc", Unsupported},
		{"A11 authzid, bad", false, Mechanism, "n,ab,n=,r=abc", Unsupported},
		{"A12 mandatory extension", false, Mechanism, "n,,m=x,n=,r=abc", Unsupported},
		{"A12 the same behind (stricter)", false, Mechanism, "n,,n=,r=abc,m=x", Unsupported},
		{"A13 control character in the nonce", false, Mechanism, "n,,n=,r=a\x01", Malformed},
		{"A13 space in the nonce", false, Mechanism, "n,,n=,r=a b", Malformed},
		{"A13 DEL in the nonce", false, Mechanism, "n,,n=,r=a\x7f", Malformed},
		{"A13 8-bit nonce", false, Mechanism, "n,,n=,r=a\xe9", Malformed},
		{"A14 empty nonce", false, Mechanism, "n,,n=,r=", fine},
		{"A15 longest", false, Mechanism, "n,,n=,r=" + strings.Repeat("x", MaxMessage-8), fine},
		{"A15 too long", false, Mechanism, "n,,n=,r=" + strings.Repeat("x", MaxMessage-7), Malformed},
		{"A21 a password", false, Mechanism, "correct horse battery staple", Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var cb ChannelBinding
			if c.binding {
				cb = testBinding
			}
			v := mustVerifier(t, "pencil", 4096, []byte("salty"))
			s := mustServer(t, v, true, cb)
			challenge, err := s.First(c.mechanism, []byte(c.initial))
			if c.kind != fine {
				wantError(t, err, c.kind, c.initial)
				if challenge != nil {
					t.Errorf("a challenge %q beside the error", challenge)
				}
				// The conversation is over.
				_, err = s.First(Mechanism, []byte("n,,n=,r=abc"))
				wantError(t, err, Malformed, "")
				_, _, err = s.Final([]byte("c=biws,r=abc,p=" + b64(make([]byte, 32))))
				wantError(t, err, Malformed, "")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			nonce := strings.Split(c.initial, ",")[3]
			got, ok := strings.CutPrefix(string(challenge), nonce)
			if !ok || !strings.HasSuffix(got, ",s=c2FsdHk=,i=4096") || len(got)-len(",s=c2FsdHk=,i=4096") < 24 {
				t.Errorf("challenge %q", challenge)
			}
		})
	}
	t.Run("A05 no initial response", func(t *testing.T) {
		_, err := mustServer(t, Mock(nil, "", "", 1), true, ChannelBinding{}).First(Mechanism, nil)
		wantError(t, err, Malformed, "")
	})
}

// Where Postgres has a message of its own for a mistake, ours is the same.
func TestServerFirstSpeaksLikePostgres(t *testing.T) {
	for _, c := range []struct{ mechanism, initial, message string }{
		{"FOO", "n,,n=,r=abc", "client selected an invalid SASL authentication mechanism"},
		{MechanismPlus, "p=tls-server-end-point,,n=,r=abc", "client selected an invalid SASL authentication mechanism"},
		{Mechanism, "", "malformed SCRAM message"},
		{Mechanism, "n,a=bob,n=,r=abc", "client uses authorization identity, but it is not supported"},
		{Mechanism, "n,,m=x,n=,r=abc", "client requires an unsupported SCRAM extension"},
		{Mechanism, "n,,n=,r=a\x01", "non-printable characters in SCRAM nonce"},
	} {
		_, err := mustServer(t, Mock(nil, "", "", 1), true, ChannelBinding{}).First(c.mechanism, []byte(c.initial))
		var e *Error
		if !errors.As(err, &e) || e.Message != c.message {
			t.Errorf("%s %q: %v, want %q", c.mechanism, c.initial, err, c.message)
		}
	}
}

func TestServerPasswords(t *testing.T) {
	ascii := rapid.StringMatching(`[ -~]{1,40}`) // the knower knows no SASLprep
	rapid.Check(t, func(t *rapid.T) {
		password, tried := ascii.Draw(t, "password"), ascii.Draw(t, "tried")
		v := mustVerifier(t, password, rapid.IntRange(1, 300).Draw(t, "iterations"), rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "salt"))
		k := knower{password: password, bare: "n=,r=" + rapid.StringMatching(`[!-+\--~]{0,40}`).Draw(t, "nonce"), gs2: "n,,"}
		cb, mechanism := ChannelBinding{}, Mechanism
		if rapid.Bool().Draw(t, "plus") {
			cb, mechanism = ChannelBinding{EndpointType, rapid.SliceOfN(rapid.Byte(), 32, 64).Draw(t, "binding")}, MechanismPlus
			k.gs2, k.binding = "p=tls-server-end-point,,", cb.Data
		}
		converse := func(k knower) (reply []byte, key ClientKey, answer string, err error) {
			s := mustServer(t, v, true, cb)
			challenge, err := s.First(mechanism, []byte(k.first()))
			if err != nil {
				t.Fatal(err)
			}
			final, answer := k.final(t, string(challenge), v)
			reply, key, err = s.Final([]byte(final))
			return reply, key, answer, err
		}
		reply, key, answer, err := converse(k)
		if err != nil || string(reply) != answer {
			t.Fatalf("the right password: %q, want %q, %v", reply, answer, err)
		}
		if client, _ := k.keys(t, v.Salt, v.Iterations); !bytes.Equal(client, key[:]) || !key.Matches(v) {
			t.Fatal("the recovered key is not the client's")
		}
		if tried != password {
			k.password = tried
			_, key, _, err := converse(k)
			var e *Error
			if !errors.As(err, &e) || e.Kind != BadProof || key != (ClientKey{}) {
				t.Fatalf("a wrong password: %v", err)
			}
		}
	})
}
