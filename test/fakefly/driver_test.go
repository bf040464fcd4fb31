// The driver of machines/fly over a real socket, with a real PostgreSQL behind the fake API.

package fakefly_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/machines/fly"
	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

func TestARealPostgresSleepsAndWakes(t *testing.T) {
	pg := harness.Postgres(t, local.Options{})
	if err := pg.Exec(t.Context(), "postgres", "create table public.kept as select 7 as n; grant select on public.kept to "+harness.App); err != nil {
		t.Fatal(err)
	}
	if err := pg.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	api := fakefly.New(t, fakefly.Options{Resume: 50 * time.Millisecond, Suspend: 100 * time.Millisecond})
	fake := api.AddMachine("acme-db", "9080e6f1", fakefly.Postgres(pg))
	c, err := fly.NewClient(fly.Options{BaseURL: api.URL, TokenFile: api.TokenFile()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := fly.NewMachine(c, fly.MachineOptions{App: "acme-db", ID: "9080e6f1", Port: fake.Port()})
	if err != nil {
		t.Fatal(err)
	}
	wake := func() (machines.Status, machines.Endpoint) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := m.Wake(ctx)
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Endpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s, e
	}
	visit := func(e machines.Endpoint) *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), "postgres://"+harness.App+":"+harness.AppPassword+"@"+e.String()+"/postgres?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // one of an old generation answers nobody
			_ = conn.Close(ctx)
		})
		if err := query(conn, harness.Patience); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	suspend := func(e machines.Endpoint) {
		t.Helper()
		if err := m.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if conn, err := net.Dial("tcp", e.String()); err == nil {
			conn.Close()
			t.Error("a suspended machine listens")
		}
	}
	first, here := wake()
	old := visit(here)
	pid := pg.PID()
	suspend(here)

	second, here := wake()
	if second.Generation.Same(first.Generation) || pg.PID() != pid {
		t.Errorf("%v after %v", second, first)
	}
	if err := query(old, 2*time.Second); err == nil { // it is given little time, because none would be enough
		t.Error("a connection of an old generation works")
	}
	visit(here)

	fake.Cold()
	fake.Move()
	suspend(here)
	third, there := wake()
	if third.Generation.Same(second.Generation) || there == here || pg.PID() == pid {
		t.Errorf("%v at %v after %v at %v", third, there, second, here)
	}
	visit(there)

	api.SetToken("fm2_another", true)
	api.Inject(fakefly.Fault{Action: fakefly.Suspend, Times: 1, Lost: fakefly.LostAfter})
	suspend(there)
	api.Inject(fakefly.Fault{Action: fakefly.Start, Times: 1, Lost: fakefly.LostAfter})
	_, there = wake()
	visit(there)
	fake.Destroy()
	if _, err := m.State(t.Context()); machines.KindOf(err) != machines.Gone {
		t.Error(err)
	}
	if n := api.Count(fakefly.Start, ""); n != 4 {
		t.Errorf("%d starts", n)
	}
}

// query must be answered within a limit.
func query(conn *pgx.Conn, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var n int
	if err := conn.QueryRow(ctx, "select n from kept").Scan(&n); err != nil {
		return err
	}
	if n != 7 {
		return errors.New("another database")
	}
	return nil
}
