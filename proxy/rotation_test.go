// A user's password changes while its sessions work: they go on, and servers are replaced once somebody has brought the new one.

package proxy

import (
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// rotate gives the user another password, and returns its verifier and the key that a client brings.
func (b *bench) rotate(password string) (v scram.Verifier, key scram.ClientKey) {
	b.t.Helper()
	v, key, change := b.rotation(password)
	change()
	b.settle()
	return v, key
}

// rotation is rotate, whose change is in force once put has been called and the loop has heard of it.
func (b *bench) rotation(password string) (v scram.Verifier, key scram.ClientKey, change func()) {
	b.t.Helper()
	v, err := scram.NewVerifier(password, scram.DefaultIterations, []byte("sixteen bytes ok"))
	if err != nil {
		b.t.Fatal(err)
	}
	if key, err = v.KeyOf(password); err != nil {
		b.t.Fatal(err)
	}
	conf := *b.conf()
	conf.Users = map[string]*tenants.User{"app": {Name: "app", ServerUser: "app", ServerAuth: tenants.AuthSCRAM, Verifier: tenants.NewSecret(v.Encode())}}
	return v, key, func() { put(b.t, b.gate, &conf) }
}

// TestAPasswordThatIsBroughtAtOnce: who has the new one may come between the directory and the loop.
func TestAPasswordThatIsBroughtAtOnce(t *testing.T) {
	b := newBench(t)
	first, old := b.rotate("first")
	b.tenant.learn("app", first, old)
	server := b.server()
	second, key, change := b.rotation("second")
	b.gate.roles.changing.Lock() // the loop hears of it later
	changed := make(chan struct{})
	go func() { defer close(changed); change() }()
	has := func() bool { u, _ := b.conf().User("app"); return u.Verifier.Reveal() == second.Encode() }
	for deadline := time.Now().Add(time.Minute); !has(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the directory does not get the new one")
		}
	}
	b.tenant.learn("app", second, key)
	b.settle()
	b.gate.roles.changing.Unlock()
	<-changed
	if rest, err := io.ReadAll(server); err != nil || len(rest) > 0 && rest[0] != pgwire.Terminate {
		t.Errorf("the server that has logged in with the old password hears %q, %v", rest, err)
	}
}

func TestAPasswordThatIsRotated(t *testing.T) {
	b := newBench(t)
	first, old := b.rotate("first")
	b.tenant.learn("app", first, old)
	server := b.server()
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	begin, begun := pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
	client, other := b.client(transactionMode), b.client(transactionMode)
	b.asks(client, server, query, query, answer, answer)

	second, key := b.rotate("second")
	b.asks(client, server, query, query, answer, answer)
	// There is room for another server, and nothing to log in with: who waits gets the one that is there.
	b.asks(client, server, begin, begin, begun, begun)
	if _, err := other.Write(query); err != nil {
		t.Fatal(err)
	}
	b.silent(other, "it waits")
	b.asks(client, server, query, query, answer, answer)
	expect(t, server, query, "what it has waited with")
	if _, err := server.Write(answer); err != nil {
		t.Fatal(err)
	}
	expect(t, other, answer, "answer")
	b.tenant.learn("app", first, old) // by a login that began before
	b.asks(client, server, query, query, answer, answer)

	// Somebody brings the new password.
	b.tenant.learn("app", second, key)
	if rest, err := io.ReadAll(server); err != nil || len(rest) > 0 && rest[0] != pgwire.Terminate {
		t.Errorf("the server that has logged in with the old password hears %q, %v", rest, err)
	}
	if _, err := b.tenant.target(b.conf(), b.tenant.machine.view.Endpoint, "app", "app"); err != nil {
		t.Errorf("logging in to the next one: %v", err)
	}
	b.tenant.learn("app", first, old)
	if _, err := b.tenant.target(b.conf(), b.tenant.machine.view.Endpoint, "app", "app"); err != nil {
		t.Errorf("after a login that began long before: %v", err)
	}

	// Without any server, and with nothing to log in with, nobody waits for what does not come.
	b.rotate("third")
	if _, err := client.Write(query); err != nil {
		t.Fatal(err)
	}
	if typ, body := readMessage(t, client); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Message != errStaleLogin.Message {
		t.Errorf("told %c %q", typ, body)
	}
}
