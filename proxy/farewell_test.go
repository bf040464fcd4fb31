// The last words to clients that goroutines serve.

package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// The last words are read, and that no more comes is known, before the connection is closed.
func TestFarewell(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		heard := make(chan string, 1)
		go func() {
			defer close(heard)
			c, err := net.Dial("tcp4", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			if secure {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
			_, _ = c.Write(make([]byte, 5000)) // which nobody reads before the end
			words, err := io.ReadAll(c)
			if err != nil {
				t.Errorf("TLS %t: %v", secure, err)
			}
			heard <- string(words)
		}()
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		tcp, session := conn.(*net.TCPConn), (*tls.Conn)(nil)
		if secure {
			session = tls.Server(tcp, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
			conn = session
		}
		if err := farewell(tcp, session, func() error { _, err := conn.Write([]byte("goodbye")); return err }); err != nil {
			t.Fatal(err)
		}
		if words := <-heard; words != "goodbye" {
			t.Errorf("TLS %t: the client has read %q", secure, words)
		}
		linger(tcp)

		silent := errors.New("not said")
		if err := farewell(tcp, session, func() error { return silent }); err != silent {
			t.Errorf("TLS %t: %v", secure, err)
		}
	}
}
