// What Linux says of what a TCP connection has sent.

package loop

import (
	"time"

	"golang.org/x/sys/unix"
)

func outgoingOf(fd int) (outgoing, bool) {
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return outgoing{}, false
	}
	return outgoing{unacked: i.Unacked, unsent: i.Notsent_bytes, probes: uint32(i.Probes),
		lastAck: time.Duration(i.Last_ack_recv) * time.Millisecond}, true
}
