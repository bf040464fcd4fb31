// Machines for tests, and what is asked of them.

package local

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines"
)

// patience bounds what must happen soon, on a busy computer too.
const patience = time.Minute

// journal is a log that tests can read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// machine makes one, in a folder of its own if o names none, and closes it in the end.
func machine(t *testing.T, o MachineOptions) *Machine {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(folder(t), "machine")
	}
	o.Disposable = true
	m := NewMachine(o)
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func wake(t *testing.T, m *Machine) machines.Status {
	t.Helper()
	s, err := m.Wake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Power != machines.Running || s != state(t, m) {
		t.Fatalf("Wake: %v, then State: %v", s, state(t, m))
	}
	return s
}

func suspend(t *testing.T, m *Machine) {
	t.Helper()
	if err := m.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPower(t, m, machines.Asleep)
}

func state(t *testing.T, m *Machine) machines.Status {
	t.Helper()
	s, err := m.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantPower(t *testing.T, m *Machine, want machines.Power) {
	t.Helper()
	if got := state(t, m).Power; got != want {
		t.Fatalf("the machine is %v, not %v", got, want)
	}
}

// eventually waits for something that comes by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// logIn connects as a client would.
func logIn(t *testing.T, m *Machine, role, password, database string) (*pgx.Conn, error) {
	t.Helper()
	at, err := m.Endpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database = at.Host, at.Port, role, password, database
	cfg.ConnectTimeout = patience
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

// ask returns one text from the server, as the superuser.
func ask(t *testing.T, m *Machine, database, query string, args ...any) (text string) {
	t.Helper()
	conn, err := m.Cluster().Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

func storedSecret(t *testing.T, m *Machine, role string) string {
	t.Helper()
	return ask(t, m, "postgres", "select coalesce(rolpassword, '') from pg_authid where rolname = $1", role)
}

// verifier is what PostgreSQL stores of a password. See RFC 5802, section 3.
func verifier(t *testing.T, password string) string {
	t.Helper()
	salt := []byte("0123456789abcdef")
	salted, err := pbkdf2.Key(sha256.New, password, salt, 4096, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	keyed := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(keyed("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return "SCRAM-SHA-256$4096:" + b64(salt) + "$" + b64(stored[:]) + ":" + b64(keyed("Server Key"))
}
