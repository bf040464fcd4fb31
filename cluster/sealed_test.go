// Tests of what is let through to memberlist.

package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// packet is a packet as who has the key would seal it.
func (n *node) packet(plain []byte) []byte {
	return append([]byte(labelHeader), n.sealed(1, plain, func(int) []byte { return nil })...)
}

// message is likewise what is in a stream.
func (n *node) message(plain []byte) []byte {
	return n.sealed(1, plain, func(size int) []byte { return binary.BigEndian.AppendUint32([]byte{sealedStream}, uint32(size)) })
}

func compound(parts ...[]byte) []byte {
	b := []byte{typeCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

// Messages that no node sends.
var (
	compressed = []byte("\x09\x82\xa4Algo\x00\xa3Buf\xc4\x01x")
	ofUsers    = []byte("\x08hello")
	ping       = []byte("\x00\x81\xa5SeqNo\x07")
)

// TestSoundPackets are those of types that nodes send, alone or several in one.
func TestSoundPackets(t *testing.T) {
	t.Parallel()
	n := open(t, "a", newStore(), keyFile(t, newKey()))
	defer func() { _ = n.Close() }()
	checked := func(b []byte) []byte { return append([]byte{typeChecksum, 1, 2, 3, 4}, b...) }
	for what, c := range map[string]struct {
		plain []byte
		sound bool
	}{
		"a ping":                          {ping, true},
		"two":                             {compound(ping, ping), true},
		"with a checksum":                 {checked(ping), true},
		"two with a checksum":             {checked(compound(ping, ping)), true},
		"compressed":                      {compressed, false},
		"compressed, with a checksum":     {checked(compressed), false},
		"compressed among others":         {compound(ping, compressed), false},
		"the same with a checksum":        {checked(compound(ping, compressed)), false},
		"several in several":              {compound(ping, compound(compressed)), false},
		"a user's":                        {ofUsers, false},
		"a user's among others":           {compound(ofUsers), false},
		"a state":                         {[]byte("\x06\x80"), false},
		"a checksum of nothing":           {checked(nil), false},
		"nothing among others":            {compound(ping, nil), false},
		"of several nothing":              {[]byte{typeCompound}, false},
		"of several not all":              {compound(ping, ping)[:10], false},
		"of several not all lengths":      {[]byte{typeCompound, 2, 0, 1}, false},
		"a checksum in another":           {checked(checked(ping)), false},
		"a checksum among others":         {compound(checked(ping)), false},
		"what is sealed, in what is that": {[]byte{sealedStream, 0, 0, 0, 0}, false},
	} {
		if err := judgePacket(n.packet(c.plain), n.keys.ring); (err == nil) != c.sound || err != nil && !errors.Is(err, errSaid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	p := n.packet(ping)
	for what, c := range map[string]struct {
		packet []byte
		want   error
	}{
		"no label":      {p[len(labelHeader):], errForm},
		"nothing":       {nil, errForm},
		"more behind":   {append(bytes.Clone(p), 0), errNoKey},
		"a byte less":   {p[:len(p)-1], errNoKey},
		"another label": {bytes.Replace(p, []byte(label), []byte("pastern"), 1), errForm},
	} {
		if err := judgePacket(c.packet, n.keys.ring); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSoundStreams are those of types that nodes send. A state of members claims what there may be.
func TestSoundStreams(t *testing.T) {
	t.Parallel()
	n := open(t, "a", newStore(), keyFile(t, newKey()))
	defer func() { _ = n.Close() }()
	for what, c := range map[string]struct {
		plain string
		sound bool
	}{
		"a ping":                 {"\x00\x81\xa5SeqNo\x07", true},
		"an error":               {"\x0d\x81\xa5Error\xa1x", true},
		"a state":                {"\x06\x83\xa5Nodes\x02\xacUserStateLen\x00\xa4Join\xc2", true},
		"another order":          {"\x06\x83\xa4Join\xc3\xa5Nodes\xcc\xff\xacUserStateLen\x00", true},
		"as many as may be":      {"\x06\x83\xa5Nodes\xd1\x04\x00\xacUserStateLen\x00\xa4Join\xc2", true},
		"one more":               {"\x06\x83\xa5Nodes\xd1\x04\x01\xacUserStateLen\x00\xa4Join\xc2", false},
		"one more, without sign": {"\x06\x83\xa5Nodes\xcd\x04\x01\xacUserStateLen\x00\xa4Join\xc2", false},
		"too many":               {"\x06\x83\xa5Nodes\xce\x00\x10\x00\x00\xacUserStateLen\x00\xa4Join\xc2", false},
		"less than none":         {"\x06\x83\xa5Nodes\xff\xacUserStateLen\x00\xa4Join\xc2", false},
		"the last one counts":    {"\x06\x83\xa5Nodes\x02\xa4Join\xc2\xa5Nodes\xce\x00\x10\x00\x00", false},
		"a user's state":         {"\x06\x83\xa5Nodes\x02\xacUserStateLen\x01\xa4Join\xc2x", false},
		"a long one":             {"\x06\x83\xa5Nodes\x02\xacUserStateLen\xce\x01\x00\x00\x00\xa4Join\xc2", false},
		"a list":                 {"\x06\x93\xcd\xff\xff\x00\xc2", false},
		"four":                   {"\x06\x84\xa5Nodes\x02\xacUserStateLen\x00\xa4Join\xc2\xa1x\x00", false},
		"cut off":                {"\x06\x83\xa5Nodes", false},
		"cut off at the end":     {"\x06\x83\xa5Nodes\x02\xacUserStateLen\x00\xa4Join", false},
		"only its type":          {"\x06", false},
		"compressed":             {string(compressed), false},
		"a user's":               {string(ofUsers), false},
	} {
		for labelled, before := range map[bool]string{true: labelHeader, false: ""} {
			m := append([]byte(before), n.message([]byte(c.plain))...)
			got, err := readSealed(bytes.NewReader(append(m, "more"...)), labelled, n.keys.ring)
			if (err == nil) != c.sound || err == nil && !bytes.Equal(got, m) || err != nil && !errors.Is(err, errSaid) {
				t.Errorf("%s: %q, %v", what, got, err)
			}
		}
	}
}

// TestBigStates cost who has the key more than they cost the node: what is small when it is sent does not get big, whoever has dialed.
func TestBigStates(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a := open(t, "a", s, keys, func(o *Options) { o.Join = []string{ln.Addr().String()} }).run(t)
	b := start(t, "b", s, keys)
	together(t, a, b)
	before := a.gossip.refused.Load()
	udp, err := net.Dial("udp", a.Here().Gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	_, _ = udp.Write(a.packet(compressed))
	eventually(t, "the packet is refused", func() bool { return a.gossip.refused.Load() > before })
	answer := func(conn net.Conn, m []byte) {
		t.Helper()
		before := a.gossip.refused.Load()
		_, _ = conn.Write(m)
		eventually(t, "it is refused", func() bool { return a.gossip.refused.Load() > before })
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	many := []byte("\x06\x83\xa5Nodes\xce\x00\x10\x00\x00\xacUserStateLen\x00\xa4Join\xc2")
	for _, plain := range [][]byte{compressed, many} {
		conn, err := net.Dial("tcp", a.Here().Gossip.String())
		if err != nil {
			t.Fatal(err)
		}
		answer(conn, append([]byte(labelHeader), a.message(plain)...))
		if conn, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		answer(conn, a.message(plain))
	}
	together(t, a, b)
}

// TestManyStreamsOfOne stranger leave room for other strangers: a node that is new is one.
func TestManyStreamsOfOne(t *testing.T) {
	t.Parallel()
	a := start(t, "a", newStore(), keyFile(t, newKey()))
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	for range maxFromOne + 1 {
		conn, err := from.DialContext(t.Context(), "tcp", a.Here().Gossip.String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	eventually(t, "one is turned away", func() bool { return a.gossip.refused.Load() == 1 })
	eventually(t, "the others end with their time", func() bool {
		a.gossip.mu.Lock()
		defer a.gossip.mu.Unlock()
		return len(a.gossip.from) == 0 && len(a.gossip.room) == 0
	})
}
