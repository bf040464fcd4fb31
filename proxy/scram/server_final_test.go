// The server's side: the catalogue of last messages, replays and mocks.

package scram

import (
	"strings"
	"testing"
)

func TestServerFinal(t *testing.T) {
	type mutation = func(good string) string
	replace := func(old, new string) mutation {
		return func(s string) string {
			if !strings.Contains(s, old) {
				panic("the mutation does not apply")
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	proofAs := func(proof string) mutation {
		return func(s string) string { return s[:strings.LastIndex(s, ",p=")] + ",p=" + proof }
	}
	is := func(message string) mutation { return func(string) string { return message } }
	zeros := b64(make([]byte, 32))
	for _, c := range []struct {
		name    string
		binding bool
		change  mutation
		kind    Kind
	}{
		{"B01 a first message again", false, is("n,,n=,r=abc"), Malformed},
		{"B02 wrong proof", false, proofAs(zeros), BadProof},
		{"B02 wrong proof, bound", true, proofAs(zeros), BadProof},
		{"B03 nonce longer", false, replace(",p=", "x,p="), Malformed},
		{"B03 nonce ours only", false, replace("r=abc", "r="), Malformed},
		{"B03 nonce theirs only", false, func(s string) string { return "c=biws,r=abc,p=" + zeros }, Malformed},
		{"B03 no nonce", false, is("c=biws,p=" + zeros), Malformed},
		{"B04 y for n", false, replace("c=biws", "c=eSws"), Malformed},
		{"B04 binding where there is none", false, replace("c=biws", "c="+b64(append([]byte("p=tls-server-end-point,,"), testBinding.Data...))), Malformed},
		{"B04 n for p", true, func(s string) string { return "c=biws" + s[strings.Index(s, ",r="):] }, Downgraded},
		{"B04 another certificate", true, func(s string) string {
			return "c=" + b64(append([]byte("p=tls-server-end-point,,"), make([]byte, 32)...)) + s[strings.Index(s, ",r="):]
		}, Downgraded},
		{"B04 c not base64", false, replace("c=biws", "c=!"), Malformed},
		{"B04 c with a line end", false, replace("c=biws", "c=bi\nws"), Malformed},
		{"B05 proof not base64", false, proofAs(strings.Repeat("!", 44)), Malformed},
		{"B05 proof with line ends", false, proofAs(zeros[:20] + "\r\n" + zeros[20:]), Malformed},
		{"B05 proof with stray bits (stricter)", false, proofAs(zeros[:42] + "B="), Malformed},
		{"B06 proof of 31 bytes", false, proofAs(b64(make([]byte, 31))), Malformed},
		{"B06 proof of 33 bytes", false, proofAs(b64(make([]byte, 33))), Malformed},
		{"B06 empty proof", false, proofAs(""), Malformed},
		{"B06 no proof", false, func(s string) string { return s[:strings.LastIndex(s, ",p=")] }, Malformed},
		{"B07 empty", false, is(""), Malformed},
		{"B08 NUL behind", false, func(s string) string { return s + "\x00" }, Malformed},
		{"something behind the proof", false, func(s string) string { return s + ",x=y" }, Malformed},
		{"two proofs", false, func(s string) string { return s + ",p=" + zeros }, Malformed},
		{"mandatory extension (stricter)", false, replace(",p=", ",m=x,p="), Unsupported},
		{"unsigned extension", false, replace(",p=", ",x=y,p="), BadProof},
		{"A15 too long", false, func(s string) string { return s + strings.Repeat("A", MaxMessage) }, Malformed},
		{"A21 a password", false, is("correct horse battery staple"), Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mustVerifier(t, "pencil", 10, []byte("salty"))
			k, cb, mechanism := knower{password: "pencil", bare: "n=,r=abc", gs2: "n,,"}, ChannelBinding{}, Mechanism
			if c.binding {
				k.gs2, k.binding, cb, mechanism = "p=tls-server-end-point,,", testBinding.Data, testBinding, MechanismPlus
			}
			s := mustServer(t, v, true, cb)
			challenge, err := s.First(mechanism, []byte(k.first()))
			if err != nil {
				t.Fatal(err)
			}
			good, _ := k.final(t, string(challenge), v)
			bad := c.change(good)
			reply, key, err := s.Final([]byte(bad))
			wantError(t, err, c.kind, bad)
			if reply != nil || key != (ClientKey{}) {
				t.Error("a reply or a key beside the error")
			}
			_, _, err = s.Final([]byte(good))
			wantError(t, err, Malformed, "") // there is no second try

			// The same message unchanged is accepted: the mutation alone was to blame.
			s = mustServer(t, v, true, cb)
			if challenge, err = s.First(mechanism, []byte(k.first())); err != nil {
				t.Fatal(err)
			}
			good, answer := k.final(t, string(challenge), v)
			if reply, key, err = s.Final([]byte(good)); err != nil || string(reply) != answer || !key.Matches(v) {
				t.Fatalf("reply %q, want %q, error %v", reply, answer, err)
			}
		})
	}
}

// A32: what one conversation accepts, the next does not.
func TestServerRefusesReplay(t *testing.T) {
	v := mustVerifier(t, "pencil", 10, []byte("salty"))
	k := knower{password: "pencil", bare: "n=,r=abc", gs2: "n,,"}
	var finals []string
	for range 2 {
		s := mustServer(t, v, true, ChannelBinding{})
		challenge, err := s.First(Mechanism, []byte(k.first()))
		if err != nil {
			t.Fatal(err)
		}
		if len(finals) > 0 {
			_, _, err = s.Final([]byte(finals[0]))
			wantError(t, err, Malformed, finals[0])
			return
		}
		final, _ := k.final(t, string(challenge), v)
		finals = append(finals, final)
	}
}

// B11, B12: a mock and a wrong password look the same, and a mock does not even take the right one.
func TestServerMockNeverPasses(t *testing.T) {
	v := mustVerifier(t, "pencil", 10, []byte("salty"))
	outcome := func(genuine bool, password string) error {
		k := knower{password: password, bare: "n=,r=abc", gs2: "n,,"}
		s := mustServer(t, v, genuine, ChannelBinding{})
		challenge, err := s.First(Mechanism, []byte(k.first()))
		if err != nil {
			t.Fatal(err)
		}
		final, _ := k.final(t, string(challenge), v)
		reply, key, err := s.Final([]byte(final))
		if err != nil && (reply != nil || key != (ClientKey{})) {
			t.Error("a reply or a key beside the error")
		}
		return err
	}
	if err := outcome(true, "pencil"); err != nil {
		t.Fatal(err)
	}
	wrong := outcome(true, "pen")
	wantError(t, wrong, BadProof, "")
	for _, password := range []string{"pencil", "pen"} {
		mock := outcome(false, password)
		wantError(t, mock, BadProof, "")
		if mock.Error() != wrong.Error() {
			t.Errorf("%q for a mock, %q for a wrong password", mock, wrong)
		}
	}
}
