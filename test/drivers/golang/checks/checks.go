// Package checks is what Go's programs share: the target, the checks' order, and their report.
package checks

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"
)

// What several checks say.
const (
	CancelMe  = "select pg_sleep(30)"
	Running   = "select count(*) from pg_stat_activity where datname = current_database() and query = '" + CancelMe + "' and state = 'active'"
	LargeRows = "select g, repeat('x', 5000) from generate_series(1, 1000) g"
	Megabyte  = 1 << 20
	Text      = "naïve ☃ 🐍 ' \" \\ %"
	Notice    = "do $$ begin raise notice 'look out'; end $$"

	Plus  = "select $1::int + 1, pg_backend_pid()"
	Times = "select $1::int * 10, pg_backend_pid()"
)

// EveryByte returns all 256 of them.
func EveryByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// Target is where a program goes, as the test describes it.
type Target struct {
	Mode     string // direct, session or transaction
	Host     string
	Port     int
	User     string
	Password string
	Database string
	TLS      bool
	CA       string // verifies the server
	Stranger string // another authority
}

// ReadTarget reads the target from stdin.
func ReadTarget() (t Target) {
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		panic(err)
	}
	return t
}

// DSN is the target in libpq's syntax, trusting an authority if it is over TLS.
func (t Target) DSN(ca string) string {
	dsn := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s connect_timeout=60 ", t.Host, t.Port, t.User, t.Password, t.Database)
	if t.TLS {
		return dsn + "sslmode=verify-full sslrootcert=" + ca
	}
	return dsn + "sslmode=disable"
}

// Lands judges the servers that executed a statement: several where transactions are pooled, one elsewhere.
func (t Target) Lands(pids ...int) {
	servers := make(map[int]bool)
	for _, pid := range pids {
		servers[pid] = true
	}
	if len(servers) > 1 != (t.Mode == "transaction") {
		panic(fmt.Errorf("executed on %d server(s)", len(servers)))
	}
}

// A List of checks in the order in which they are made.
type List struct{ all []check }

type check struct {
	name string
	body func()
}

// Add appends a check. Its body panics if something is wrong.
func (l *List) Add(name string, body func()) { l.all = append(l.all, check{name, body}) }

// Run makes all checks and prints one line of JSON for each.
func (l *List) Run() {
	for _, c := range l.all {
		detail := ""
		func() {
			defer func() {
				if p := recover(); p != nil {
					detail = fmt.Sprint(p)
				}
			}()
			c.body()
		}()
		line, err := json.Marshal(map[string]any{"check": c.name, "ok": detail == "", "detail": detail})
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

// Must panics with an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Got returns v unless there is an error.
func Got[T any](v T, err error) T {
	Must(err)
	return v
}

// Same panics unless got is want. Large values are told in short.
func Same(got, want any) {
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Errorf("got %.200v, want %.200v", got, want))
	}
}

// Until polls for what has no event to wait for.
func Until(condition func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !condition(); <-tick.C {
		if time.Now().After(end) {
			panic("not within a minute")
		}
	}
}
