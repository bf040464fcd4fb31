// What the package is for, in a few lines that run.

package proxyproto_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern/postern/proxy/proxyproto"
)

// A balancer at 172.16.0.2 says that 203.0.113.7 is calling. What follows the header is left to the next reader.
func ExampleRead() {
	socket := netip.MustParseAddrPort("172.16.0.2:50000")
	trusted := proxyproto.NewTrusted([]netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")})
	fmt.Println("believed:", trusted.Contains(socket.Addr()))

	br := bufio.NewReader(strings.NewReader("PROXY TCP4 203.0.113.7 198.51.100.1 40000 6543\r\nhello"))
	peer, err := proxyproto.Read(br, socket)
	fmt.Println(peer.Client, err)
	rest, _ := br.Peek(5)
	fmt.Printf("%s\n", rest)

	// A client that sends none is no client.
	_, err = proxyproto.Read(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\n")), socket)
	var e *proxyproto.Error
	fmt.Println(errors.As(err, &e), e.Reason)
	// Output:
	// believed: true
	// 203.0.113.7:40000 <nil>
	// hello
	// true missing
}
