// Fuzz targets: hostile messages end in an *Error or a challenge, and never in a login.

package scram

import (
	"errors"
	"strings"
	"testing"

	xdg "github.com/xdg-go/scram"
)

func FuzzServerFirst(f *testing.F) {
	for _, plus := range []bool{false, true} {
		for _, initial := range []string{"n,,n=,r=abc", "y,,n=,r=", "p=tls-server-end-point,,n=,r=abc", "n,a=x,n=,r=abc", "n,,m=x,n=,r=abc", "n,,n=a=2Cb,r=abc,x=y"} {
			f.Add(plus, plus, []byte(initial))
		}
	}
	v := Mock([]byte("fuzz"), "acme", "app", 4096)
	f.Fuzz(func(t *testing.T, offered, plus bool, initial []byte) {
		cb, mechanism := ChannelBinding{}, Mechanism
		if offered {
			cb = testBinding
		}
		if plus {
			mechanism = MechanismPlus
		}
		s := mustServer(t, v, true, cb)
		challenge, err := s.First(mechanism, initial)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Kind == BadProof || challenge != nil {
				t.Fatalf("%#v", err)
			}
			return
		}
		if plus != strings.HasPrefix(string(initial), "p=tls-server-end-point,,") || plus && !offered {
			t.Fatalf("%s accepted with %q", mechanism, initial)
		}
		// What is remembered, put together again, is what was sent.
		if s.first.gs2+s.first.bare != string(initial) || !strings.HasSuffix(string(challenge), ",i=4096") {
			t.Fatalf("%q became %+v", initial, s.first)
		}
	})
}

func FuzzServerFinal(f *testing.F) {
	const nonce = "abcSERVER"
	k := knower{password: "pencil", bare: "n=,r=abc", gs2: "n,,"}
	v := mustVerifier(f, "pencil", 1, []byte("salty"))
	right, _ := k.final(f, "r="+nonce+",s="+b64(v.Salt)+",i=1", v)
	f.Add([]byte(right))
	f.Add([]byte(strings.Replace(right, ",p=", ",x=y,p=", 1)))
	f.Add([]byte("c=biws,r=" + nonce + ",p=" + b64(make([]byte, 32))))
	f.Add([]byte("c=eSws,r=" + nonce + ",m=,p="))
	f.Fuzz(func(t *testing.T, message []byte) {
		s := mustServer(t, v, true, ChannelBinding{})
		s.library = s.library.WithNonceGenerator(xdg.NonceGeneratorFcn(func() string { return "SERVER" }))
		if _, err := s.First(Mechanism, []byte(k.first())); err != nil {
			t.Fatal(err)
		}
		_, key, err := s.Final(message)
		if string(message) == right {
			if err != nil || !key.Matches(v) {
				t.Fatalf("the right message: %v", err)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || key != (ClientKey{}) {
			t.Fatalf("%q: %v", message, err)
		}
	})
}
