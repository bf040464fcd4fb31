// A wall clock that jumps (row C27): an hour on, an hour back. What lasts is measured by a clock that does not jump.

package chaos

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// clockVariable names the file with the jump, in seconds, as 8 bytes.
const clockVariable = "POSTERN_TEST_CLOCK"

// jumping is what is put into Go's time package. Timers ask for the time where a goroutine's system calls are not allowed, so
// the file is open from the start and read without the scheduler's knowledge.
const jumping = `
var wallFile = func() int {
	path, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return -1
	}
	file, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return file
}()

func wallJump() (seconds int64) {
	var b [8]byte
	if n, _, _ := syscall.RawSyscall6(syscall.SYS_PREAD64, uintptr(wallFile), uintptr(unsafe.Pointer(&b)), uintptr(len(b)), 0, 0, 0); int(n) != len(b) {
		return 0
	}
	for i := range b {
		seconds = seconds<<8 | int64(b[i])
	}
	return seconds
}
`

// jumpingGate builds postern with a time.Now whose wall clock can be made to jump. The monotonic reading stays as it is.
func jumpingGate(t *testing.T, dir string) (program string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const now, imports = "\tsec, nsec, mono := runtimeNow()\n", "import (\n"
	text := string(source)
	if strings.Count(text, now) != 1 || strings.Count(text, imports) != 1 {
		t.Fatalf("%s is not what this test knows: %q should be there once", path, now)
	}
	text = strings.Replace(text, now, now+"\tsec += wallJump()\n", 1)
	text = strings.Replace(text, imports, imports+"\t\"syscall\"\n\t\"unsafe\"\n", 1) + jumping
	program = filepath.Join(dir, "postern")
	replaced, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: replaced}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{replaced: text, overlay: string(list)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", program, "github.com/postern/postern/cmd/postern")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// TestClockJumps: no time-out comes early or late, nobody is let in again too soon or kept out for longer, and clients notice
// nothing.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	dir := harness.Dir(t)
	clock := filepath.Join(dir, "clock")
	jump := func(d time.Duration) { // in place, in one piece
		t.Helper()
		file, err := os.OpenFile(clock, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(binary.BigEndian.AppendUint64(nil, uint64(int64(d/time.Second)))); err != nil {
			t.Fatal(err)
		}
	}
	jump(0)
	const half = "30m"
	w := newWorld(t, worldConf{Program: jumpingGate(t, dir), Env: []string{clockVariable + "=" + clock}, Config: harness.Map{"timeouts": harness.Map{
		"query": half, "transaction": half, "idle_transaction": half, "client_idle": half, "server_idle": half, "server_lifetime": half, "drain": "5s"}}})
	direct := w.direct()
	l := newLedger(t, direct, w.connect)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.work(ctx, poolSize)
	idle, open := w.client("idle"), w.client("open")
	run(t, idle, "select 1")
	run(t, open, "begin")

	// Ten wrong passwords from an address of their own.
	stranger := func(password string) error {
		conf, err := pgx.ParseConfig(strings.Replace(w.dsn("stranger"), harness.AppPassword, password, 1))
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(w.Addr(t, harness.Transaction+harness.Proxied))
		conf.Port = at.Port()
		conf.DialFunc = harness.ProxyDialer{Header: harness.V2(netip.MustParseAddrPort("203.0.113.9:1000"), at)}.DialContext
		conn, err := pgx.ConnectConfig(t.Context(), conf)
		if err == nil {
			goodbye(conn)
		}
		return err
	}
	for range 10 {
		if err := stranger("wrong"); state(err) != "28P01" {
			t.Fatalf("a wrong password: %v", err)
		}
	}
	for _, at := range []time.Duration{time.Hour, 0, -time.Hour} {
		jump(at)
		harness.Eventually(t, harness.Patience, "transactions", l.since(time.Now()))
		err := stranger(harness.AppPassword)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "53400" {
			t.Fatalf("at %v a stranger who is blocked: %v", at, err)
		}
		seconds, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(e.Hint))
		if err != nil || seconds < 1 || seconds > 120 {
			t.Errorf("at %v the hint is %q", at, e.Hint)
		}
		run(t, open, "select 1")
		run(t, idle, "select 1")
	}
	run(t, open, "commit")
	stop()
	wait()
	l.check(t, direct)
	if !w.Log().Contains(`"time":"` + time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15")) {
		t.Error("the clock has not jumped: no line of the log is an hour old")
	}
	closeAll(idle, open)
	w.nobodyLeft()
}

func closeAll(conns ...*pgx.Conn) {
	for _, conn := range conns {
		goodbye(conn)
	}
}
