// Tests of the client's side: the RFC's vector, conversations with our own server side, and servers that misbehave.

package scram

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// rfcClient is the client of RFC 7677 section 3, whose nonce and user name are fixed.
func rfcClient(c Credentials) *Client {
	cl := NewClient(c, ChannelBinding{}, false, ClientOptions{})
	cl.nonce = "rOprNGfwEbeRWgbNEkqO"
	cl.bare = "n=user,r=" + cl.nonce
	return cl
}

const (
	rfcChallenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfcFinal     = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcSignature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func TestClientSpeaksTheRFCsExample(t *testing.T) {
	cl := rfcClient(Credentials{Password: "pencil"})
	if got, want := string(cl.First()), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"; got != want {
		t.Errorf("First = %q, want %q", got, want)
	}
	final, err := cl.Final([]byte(rfcChallenge))
	if err != nil || string(final) != rfcFinal {
		t.Fatalf("Final = %q, %v, want %q", final, err, rfcFinal)
	}
	if err := cl.Verify([]byte(rfcSignature)); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

// keyOf logs in by password on our server side, to get the key that the proof gives away.
func keyOf(t interface{ Fatal(...any) }, password string, v Verifier) ClientKey {
	key, err := converse(Credentials{Password: password}, v, ChannelBinding{}, false)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// converse runs a whole conversation of a Client with a Server.
func converse(c Credentials, v Verifier, cb ChannelBinding, plus bool) (ClientKey, error) {
	s, err := NewServer(v, true, cb)
	if err != nil {
		return ClientKey{}, err
	}
	cl := NewClient(c, cb, plus, ClientOptions{})
	challenge, err := s.First(cl.Mechanism(), cl.First())
	if err != nil {
		return ClientKey{}, fmt.Errorf("server, first: %w", err)
	}
	final, err := cl.Final(challenge)
	if err != nil {
		return ClientKey{}, err
	}
	reply, key, err := s.Final(final)
	if err != nil {
		return ClientKey{}, fmt.Errorf("server, final: %w", err)
	}
	return key, cl.Verify(reply)
}

func TestClientLogsInWithPasswordThenWithTheKeyThatItGaveAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		password := rapid.OneOf(rapid.StringN(1, 20, 80), rapid.SampledFrom([]string{"ümläut", "\u00a0x\u200bx", "🐘", "a\u00adb"})).
			Filter(func(s string) bool { return !strings.ContainsRune(s, 0) }).Draw(t, "password")
		salt := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "salt")
		v, err := NewVerifier(password, rapid.IntRange(1, 50).Draw(t, "iterations"), salt)
		if err != nil {
			t.Fatal(err)
		}
		var cb ChannelBinding
		plus := rapid.Bool().Draw(t, "plus")
		if plus {
			cb = ChannelBinding{Type: EndpointType, Data: rapid.SliceOfN(rapid.Byte(), 32, 64).Draw(t, "binding")}
		}

		key, err := converse(Credentials{Password: password}, v, cb, plus)
		if err != nil {
			t.Fatalf("by password: %v", err)
		}
		again, err := converse(Credentials{Key: &key, Verifier: v}, v, cb, plus)
		if err != nil || again != key {
			t.Fatalf("by key: %v", err)
		}
	})
}

func TestClientBindsTheChannelWheneverItCan(t *testing.T) {
	cb := ChannelBinding{Type: EndpointType, Data: []byte("hash")}
	for _, tc := range []struct {
		name      string
		cb        ChannelBinding
		offered   bool
		mechanism string
		gs2       string
	}{
		{"plaintext", ChannelBinding{}, false, Mechanism, "n,,"},
		{"plaintext, offered all the same", ChannelBinding{}, true, Mechanism, "n,,"},
		{"bindable, not offered", cb, false, Mechanism, "y,,"},
		{"bindable and offered", cb, true, MechanismPlus, "p=tls-server-end-point,,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cl := NewClient(Credentials{Password: "x"}, tc.cb, tc.offered, ClientOptions{})
			if cl.Mechanism() != tc.mechanism || !strings.HasPrefix(string(cl.First()), tc.gs2+"n=,r=") {
				t.Errorf("got %s and %q, want %s and %q", cl.Mechanism(), cl.First(), tc.mechanism, tc.gs2)
			}
		})
	}
}

// Someone in the middle who strips the -PLUS offer, or ends the TLS himself, is found out by the server.
func TestClientAndServerNoticeAManInTheMiddle(t *testing.T) {
	v, err := NewVerifier("pw", 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	cb := ChannelBinding{Type: EndpointType, Data: []byte("the server's certificate")}
	if _, err := converse(Credentials{Password: "pw"}, v, cb, false); err == nil {
		t.Error("a stripped offer went unnoticed")
	}
	s, err := NewServer(v, true, cb)
	if err != nil {
		t.Fatal(err)
	}
	cl := NewClient(Credentials{Password: "pw"}, ChannelBinding{Type: EndpointType, Data: []byte("another certificate")}, true, ClientOptions{})
	challenge, err := s.First(cl.Mechanism(), cl.First())
	if err != nil {
		t.Fatal(err)
	}
	final, err := cl.Final(challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Final(final); err == nil {
		t.Error("another certificate went unnoticed")
	}
}

func TestClientKeyLogsInOnlyWithItsOwnVerifier(t *testing.T) {
	make1 := func(password string, iterations int, salt string) Verifier {
		v, err := NewVerifier(password, iterations, []byte(salt))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := make1("pw", 10, "salt")
	key := keyOf(t, "pw", v)
	for _, tc := range []struct {
		name   string
		server Verifier
		creds  Credentials
	}{
		{"other salt", make1("pw", 10, "tlas"), Credentials{Key: &key, Verifier: v}},
		{"other iterations", make1("pw", 11, "salt"), Credentials{Key: &key, Verifier: v}},
		{"key of another verifier", v, Credentials{Key: &ClientKey{1}, Verifier: v}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := converse(tc.creds, tc.server, ChannelBinding{}, false); !errors.Is(err, ErrVerifierMismatch) {
				t.Errorf("err = %v, want ErrVerifierMismatch", err)
			}
		})
	}
	t.Run("other password", func(t *testing.T) {
		// Only the server can see this one.
		var refused *Error
		_, err := converse(Credentials{Key: &key, Verifier: v}, make1("wp", 10, "salt"), ChannelBinding{}, false)
		if !errors.As(err, &refused) || refused.Kind != BadProof {
			t.Errorf("err = %v, want BadProof", err)
		}
	})
}

func TestClientRefusesHostileChallenges(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	salt := b64([]byte("salt"))
	for _, tc := range []struct{ name, challenge string }{
		{"empty", ""},
		{"no iterations", "r=NONCEx,s=" + salt},
		{"wrong order", "s=" + salt + ",r=NONCEx,i=1"},
		{"mandatory extension", "m=x,r=NONCEx,s=" + salt + ",i=1"},
		{"nonce not ours", "r=x,s=" + salt + ",i=1"},
		{"nonce ours, nothing added", "r=NONCE,s=" + salt + ",i=1"},
		{"nonce of 1 MB", "r=NONCE" + strings.Repeat("x", 1<<20) + ",s=" + salt + ",i=1"},
		{"nonce with a control byte", "r=NONCE\x07,s=" + salt + ",i=1"},
		{"nonce with a high byte", "r=NONCE\xff,s=" + salt + ",i=1"},
		{"no salt", "r=NONCEx,s=,i=1"},
		{"salt not base64", "r=NONCEx,s=!!!!,i=1"},
		{"salt of 1025 bytes", "r=NONCEx,s=" + b64(make([]byte, 1025)) + ",i=1"},
		{"salt of 1 MB", "r=NONCEx,s=" + b64(make([]byte, 1<<20)) + ",i=1"},
		{"iterations 0", "r=NONCEx,s=" + salt + ",i=0"},
		{"iterations -1", "r=NONCEx,s=" + salt + ",i=-1"},
		{"iterations +1", "r=NONCEx,s=" + salt + ",i=+1"},
		{"iterations 01", "r=NONCEx,s=" + salt + ",i=01"},
		{"iterations above our limit", "r=NONCEx,s=" + salt + ",i=5001"},
		{"iterations 100000000", "r=NONCEx,s=" + salt + ",i=100000000"},
		{"iterations beyond int64", "r=NONCEx,s=" + salt + ",i=99999999999999999999"},
		{"iterations not a number", "r=NONCEx,s=" + salt + ",i=x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cl := NewClient(Credentials{Password: "pw"}, ChannelBinding{}, false, ClientOptions{MaxIterations: 5000})
			challenge := strings.Replace(tc.challenge, "NONCE", cl.nonce, 1)
			if final, err := cl.Final([]byte(challenge)); !errors.Is(err, ErrServerMessage) || final != nil {
				t.Errorf("Final = %q, %v, want ErrServerMessage", final, err)
			}
		})
	}
}

func TestClientAcceptsTheLimitsAndIgnoresExtensions(t *testing.T) {
	for _, tail := range []string{"i=5000", "i=1,x=unknown,y"} {
		cl := NewClient(Credentials{Password: "pw"}, ChannelBinding{}, false, ClientOptions{MaxIterations: 5000})
		challenge := "r=" + cl.nonce + strings.Repeat("~", maxNonceExtra) + ",s=" + base64.StdEncoding.EncodeToString(make([]byte, MaxSaltSize)) + "," + tail
		if _, err := cl.Final([]byte(challenge)); err != nil {
			t.Errorf("%s: %v", tail, err)
		}
	}
	if cl := NewClient(Credentials{}, ChannelBinding{}, false, ClientOptions{MaxIterations: 1 << 30}); cl.maxIterations != MaxIterations {
		t.Errorf("the limit can be raised to %d", cl.maxIterations)
	}
}

func TestClientVerifiesTheServer(t *testing.T) {
	for _, tc := range []struct {
		name, final string
		want        error
	}{
		{"right", rfcSignature, nil},
		{"right, with an extension", rfcSignature + ",x=y", nil},
		{"wrong", "v=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), ErrServerSignature},
		{"cut", rfcSignature[:20], ErrServerSignature},
		{"empty signature", "v=", ErrServerSignature},
		{"error", "e=invalid-proof", ErrRejected},
		{"neither", "x=1", ErrServerMessage},
		{"empty", "", ErrServerMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cl := rfcClient(Credentials{Password: "pencil"})
			if _, err := cl.Final([]byte(rfcChallenge)); err != nil {
				t.Fatal(err)
			}
			if err := cl.Verify([]byte(tc.final)); !errors.Is(err, tc.want) {
				t.Errorf("Verify = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestClientKeepsTheOrderOfMessages(t *testing.T) {
	cl := rfcClient(Credentials{Password: "pencil"})
	if err := cl.Verify([]byte("v=")); !errors.Is(err, ErrServerMessage) {
		t.Errorf("a signature before the challenge: %v", err)
	}
	if _, err := cl.Final([]byte(rfcChallenge)); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Final([]byte(rfcChallenge)); !errors.Is(err, ErrServerMessage) {
		t.Errorf("a second challenge: %v", err)
	}
}

func TestCredentialsAndClientPrintAsPlaceholders(t *testing.T) {
	const secret = "hunter2"
	creds := Credentials{Password: secret, Key: &ClientKey{'h', 'u', 'n', 't', 'e', 'r', '2'}}
	holder := struct{ C Credentials }{creds}
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "creds", creds, "pointer", &creds, "nested", holder, "client", NewClient(creds, ChannelBinding{}, false, ClientOptions{}))
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	client := NewClient(creds, ChannelBinding{}, false, ClientOptions{})
	out := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out += fmt.Sprintf(verb+verb+verb+verb, creds, &creds, holder, client)
	}
	if strings.Contains(out, secret) || strings.Contains(out, "68756e746572") || strings.Contains(out, "104 117") {
		t.Errorf("the secret was printed: %s", out)
	}
}

// Whatever a server sends, the client answers only a nonce that extends its own, and takes nothing but a signature for one.
func FuzzClient(f *testing.F) {
	f.Add(rfcChallenge, rfcSignature+"x")
	f.Add("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1,m=x", "e=other-error")
	f.Add("m=x,r=rOprNGfwEbeRWgbNEkqO", "v==")
	f.Fuzz(func(t *testing.T, challenge, signature string) {
		cl := rfcClient(Credentials{Password: "pencil"})
		cl.maxIterations = 5000
		final, err := cl.Final([]byte(challenge))
		if err != nil {
			if !errors.Is(err, ErrServerMessage) || final != nil {
				t.Fatalf("Final = %q, %v", final, err)
			}
			return
		}
		if !strings.HasPrefix(string(final), "c=biws,r="+cl.nonce) {
			t.Fatalf("Final = %q", final)
		}
		if err := cl.Verify([]byte(signature)); err == nil && !strings.HasPrefix(signature, "v=") {
			t.Fatalf("accepted %q", signature)
		}
	})
}
