// What the package is for, in a few lines that run.

package scram_test

import (
	"fmt"

	"github.com/postern/postern/proxy/scram"
)

// A client proves its password to a gate that knows a verifier only. With the key that the proof gives away the gate logs in to a server that
// holds the same verifier.
func Example() {
	verifier, err := scram.NewVerifier("secret", scram.DefaultIterations, []byte("sixteen bytes 16"))
	if err != nil {
		fmt.Println(err)
		return
	}

	// login plays both sides of a conversation, and returns what the server's side has learned.
	login := func(who scram.Credentials) (scram.ClientKey, error) {
		client := scram.NewClient(who, scram.ChannelBinding{}, false, scram.ClientOptions{})
		server, err := scram.NewServer(verifier, true, scram.ChannelBinding{})
		if err != nil {
			return scram.ClientKey{}, err
		}
		challenge, err := server.First(client.Mechanism(), client.First())
		if err != nil {
			return scram.ClientKey{}, err
		}
		proof, err := client.Final(challenge)
		if err != nil {
			return scram.ClientKey{}, err
		}
		final, key, err := server.Final(proof)
		if err != nil {
			return scram.ClientKey{}, err
		}
		return key, client.Verify(final)
	}

	key, err := login(scram.Credentials{Password: "secret"})
	fmt.Println("the client at the gate:", err)
	_, err = login(scram.Credentials{Key: &key, Verifier: verifier})
	fmt.Println("the gate at the server:", err)
	_, err = login(scram.Credentials{Password: "guess"})
	fmt.Println("a stranger at the gate:", err)
	fmt.Println("in a log:", verifier, key)
	// Output:
	// the client at the gate: <nil>
	// the gate at the server: <nil>
	// a stranger at the gate: password authentication failed
	// in a log: [SCRAM verifier, redacted] [SCRAM client key, redacted]
}
