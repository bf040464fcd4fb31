// Names that cannot be looked up, late, or mean another host than before (row C28 of the catalogue of faults).

package backend

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// nameserver answers every question for an address with what it was told to say.
type nameserver struct {
	conn  net.PacketConn
	asked atomic.Int64

	mu     sync.Mutex
	silent bool
	ip     net.IP // no IPv4 address: there is no such name
	held   []question
}

type question struct {
	from net.Addr
	data []byte
}

func newNameserver(t *testing.T) *nameserver {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameserver{conn: conn}
	var running sync.WaitGroup
	running.Go(s.run)
	t.Cleanup(func() {
		s.says(nil) // whoever still asks need not wait
		conn.Close()
		running.Wait()
	})
	return s
}

// says has questions answered, also those that are held.
func (s *nameserver) says(ip net.IP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent, s.ip = false, ip
	for _, q := range s.held {
		s.reply(q)
	}
	s.held = nil
}

// holds has questions wait.
func (s *nameserver) holds() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

func (s *nameserver) run() {
	buf := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		s.asked.Add(1)
		q := question{from, append([]byte(nil), buf[:n]...)}
		s.mu.Lock()
		if s.silent {
			s.held = append(s.held, q)
		} else {
			s.reply(q)
		}
		s.mu.Unlock()
	}
}

func (s *nameserver) reply(q question) {
	const header, typeA, found, noSuchName = 12, 1, 0x8180, 0x8183
	end := header
	for end < len(q.data) && q.data[end] != 0 {
		end += int(q.data[end]) + 1
	}
	end += 5 // the root label, the type and the class
	if end > len(q.data) {
		return
	}
	reply := q.data[:end]
	clear(reply[4:header])
	reply[5] = 1 // one question
	binary.BigEndian.PutUint16(reply[2:], noSuchName)
	if ip := s.ip.To4(); ip != nil {
		binary.BigEndian.PutUint16(reply[2:], found)
		if binary.BigEndian.Uint16(reply[end-4:]) == typeA {
			reply[7] = 1 // one answer: the name again, by its place, and an address that may not be kept
			reply = append(reply, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4)
			reply = append(reply, ip...)
		}
	}
	_, _ = s.conn.WriteTo(reply, q.from)
}

// named is a target by name, looked up here.
func (s *nameserver) named(target Target) Target {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", s.conn.LocalAddr().String())
	}}
	target.Host = "db.test."
	target.Dial = (&net.Dialer{Resolver: resolver}).DialContext
	return target
}

func TestNames(t *testing.T) {
	names := newNameserver(t)
	greets := serve(t, func(c net.Conn) { startup(c); _, _ = c.Write(fatal("57P03", "here")) })
	target := names.named(greets)
	here := func(t *testing.T) {
		t.Helper()
		var server *ServerError
		if _, err := Dial(within(t, patience), target); !errors.As(err, &server) || server.Response.Message != "here" {
			t.Errorf("err = %v, want the server's", err)
		}
	}

	t.Run("no such name", func(t *testing.T) {
		names.says(nil)
		_, err := Dial(within(t, patience), target)
		var dns *net.DNSError
		if !errors.As(err, &dns) || !dns.IsNotFound || !Retryable(err) {
			t.Errorf("err = %v, want a retryable DNSError", err)
		}
	})
	t.Run("it appears", func(t *testing.T) {
		names.says(net.IPv4(127, 0, 0, 1))
		here(t)
	})
	t.Run("it means another host", func(t *testing.T) {
		names.says(net.IPv4(127, 0, 0, 2)) // where nobody listens
		if _, err := Dial(within(t, patience), target); err == nil || !Retryable(err) {
			t.Errorf("err = %v, want that the new host is asked and refuses", err)
		}
		names.says(net.IPv4(127, 0, 0, 1))
		here(t)
	})
	t.Run("no answer", func(t *testing.T) {
		names.holds()
		asked := names.asked.Load()
		begin := time.Now()
		_, err := Dial(within(t, 100*time.Millisecond), target)
		if err == nil || !Retryable(err) {
			t.Errorf("err = %v, want a retryable one", err)
		}
		if took := time.Since(begin); took > patience/2 {
			t.Errorf("it took %v", took)
		}
		if names.asked.Load() == asked {
			t.Error("nobody was asked")
		}
	})
}
