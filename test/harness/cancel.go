// CancelRequests byte by byte, for what drivers do not offer: to another address, with any key, and to hear what comes of it.

package harness

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// cancelCode is where a startup packet has its version (PostgreSQL 18 documentation, section 54.7).
const cancelCode = 80877102

// SendCancel sends a CancelRequest and returns when its connection has been closed, without a word as it has to be.
func SendCancel(address string, pid uint32, secret []byte) error {
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	b = binary.BigEndian.AppendUint32(b, cancelCode)
	b = append(binary.BigEndian.AppendUint32(b, pid), secret...)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	if answer, err := io.ReadAll(conn); len(answer) != 0 {
		return fmt.Errorf("answered %q, %v", answer, err)
	}
	return nil
}
