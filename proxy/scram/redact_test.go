// No usual way of printing shows a secret.

package scram

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsPrintAsPlaceholders(t *testing.T) {
	v := Mock([]byte("s"), "acme", "app", 4096)
	key := ClientKey(bytes.Repeat([]byte{0xd3}, KeySize))
	server := mustServer(t, v, true, ChannelBinding{})
	if _, err := server.First(Mechanism, []byte("n,,n=,r=abc")); err != nil {
		t.Fatal(err)
	}

	var printed strings.Builder
	nested := struct {
		V  Verifier
		P  *Verifier
		K  ClientKey
		KP *ClientKey
		M  map[string]Verifier
		L  []ClientKey
		S  *Server
	}{v, &v, key, &key, map[string]Verifier{"v": v}, []ClientKey{key}, server}
	values := []any{v, &v, key, &key, server, nested, &nested}
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%U", "%c", "%b"} {
			fmt.Fprintf(&printed, verb+"\n", value)
		}
		fmt.Fprintln(&printed, value)
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		printed.Write(append(text, '\n'))
		slog.New(slog.NewJSONHandler(&printed, nil)).Info("x", "value", value)
		slog.New(slog.NewTextHandler(&printed, nil)).Info("x", "value", value)
	}
	fmt.Fprintln(&printed, v.String(), v.GoString(), key.String(), key.GoString())

	all := printed.String()
	for name, secret := range map[string][]byte{"stored key": v.StoredKey, "server key": v.ServerKey, "client key": key[:]} {
		decimal := strings.Trim(fmt.Sprint(secret), "[]")
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), decimal,
			base64.StdEncoding.EncodeToString(secret)[:20], decimal[:20], strings.ReplaceAll(decimal, " ", ",")[:20],
			strings.Trim(fmt.Sprintf("%#v", secret[:6]), "[]byte{}"), strings.Trim(fmt.Sprintf("%o", secret[:6]), "[]"), strings.Trim(fmt.Sprintf("%b", secret[:6]), "[]"),
		} {
			if strings.Contains(all, form) {
				t.Errorf("the %s is printed as %q", name, form)
			}
		}
	}
	for _, placeholder := range []string{redactedVerifier, redactedKey, redactedServer} {
		if !strings.Contains(all, placeholder) {
			t.Errorf("%q is never printed", placeholder)
		}
	}
}

func TestClientKey(t *testing.T) {
	v := mustVerifier(t, "pencil", 10, []byte("salty"))
	client, _ := knower{password: "pencil"}.keys(t, v.Salt, v.Iterations)
	key := ClientKey(client)
	if !key.Matches(v) || key.Matches(Verifier{}) || key.Matches(mustVerifier(t, "pen", 10, []byte("salty"))) {
		t.Error("the key matches what it should not, or not what it should")
	}
	key.Zero()
	if key != (ClientKey{}) || key.Matches(v) {
		t.Error("the key survives Zero")
	}
}
