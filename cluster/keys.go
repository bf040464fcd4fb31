// The cluster's key file, and the keys that are derived from it.

package cluster

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"

	"github.com/postern/postern/files"
)

const (
	maxKeyFile = 64 << 10
	maxKeys    = 16
	keyBytes   = 32
)

// Keys are what the key file had when it was last read; safe for concurrent use.
type Keys struct {
	now atomic.Pointer[keySet]

	mu   sync.Mutex // guards the ring's changes
	ring *memberlist.Keyring
}

// keySet is what a key file says. The keys never change; what is derived from them is kept.
type keySet struct {
	all     [][keyBytes]byte
	derived sync.Map // purpose to [][32]byte
}

// ReadKeys reads a key file: 32 bytes in base64 in each line. The first key is used, all are accepted. Empty lines and lines that start
// with # do not count. Errors repeat nothing of the file.
func ReadKeys(path string) (*Keys, error) {
	set, err := readKeySet(path)
	if err != nil {
		return nil, err
	}
	k := &Keys{ring: new(memberlist.Keyring)}
	k.use(set)
	return k, nil
}

func readKeySet(path string) (*keySet, error) {
	text, err := files.Read(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("key file of the cluster: %w", err)
	}
	set, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("key file of the cluster: %s: %w", path, err)
	}
	return set, nil
}

func parseKeys(text []byte) (*keySet, error) {
	set := &keySet{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d: must be %d bytes in base64 (openssl rand -base64 %d makes them)", n, keyBytes, keyBytes)
		}
		if slices.Contains(set.all, [keyBytes]byte(key)) {
			return nil, fmt.Errorf("line %d: the key is there already", n)
		}
		set.all = append(set.all, [keyBytes]byte(key))
	}
	switch {
	case len(set.all) == 0:
		return nil, errors.New("has no key")
	case len(set.all) > maxKeys:
		return nil, fmt.Errorf("has more than %d keys", maxKeys)
	}
	return set, nil
}

// reread takes over what the key file says now, and reports whether that is something else. A file that cannot be used changes nothing.
func (k *Keys) reread(path string) (changed bool, err error) {
	set, err := readKeySet(path)
	if err != nil || slices.Equal(set.all, k.now.Load().all) {
		return false, err
	}
	k.use(set)
	return true, nil
}

// derive makes a key of its own for each purpose, so that none tells anything of another.
func (s *keySet) derive(purpose string) [][32]byte {
	if known, ok := s.derived.Load(purpose); ok {
		return known.([][32]byte)
	}
	var all [][32]byte
	for _, key := range s.all {
		out, err := hkdf.Key(sha256.New, key[:], nil, "postern cluster: "+purpose, 32)
		if err != nil { // only if too much is asked for
			panic("BUG: " + err.Error())
		}
		all = append(all, [32]byte(out))
	}
	s.derived.Store(purpose, all)
	return all
}

// digest says which key is the first one, and nothing else of it.
func (s *keySet) digest() string {
	out := s.derive("digest")[0]
	return hex.EncodeToString(out[:6])
}

// use puts a set in force, on the gossip's ring as well. The ring has the keys in the order of the file, and those that go at its end: what
// goes from there is taken off without touching what others are reading.
func (k *Keys) use(set *keySet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := set.derive("gossip")
	for _, key := range slices.Backward(now) {
		if err := errors.Join(k.ring.AddKey(key[:]), k.ring.UseKey(key[:])); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	for ring := k.ring.GetKeys(); len(ring) > len(now); ring = k.ring.GetKeys() {
		if err := k.ring.RemoveKey(ring[len(ring)-1]); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	k.now.Store(set)
}

// Key is the key that this node uses for a purpose, such as "cancel". It is derived from the first one of the key file.
func (c *Cluster) Key(purpose string) [32]byte { return c.keys.now.Load().derive(purpose)[0] }

// Keys are all keys that others may use for a purpose right now: while the key file is being changed node by node there are several. The
// result is shared and must not be changed. Purposes are few and fixed.
func (c *Cluster) Keys(purpose string) [][32]byte { return c.keys.now.Load().derive(purpose) }

// ReloadKeys takes over the key file. One that cannot be used changes nothing.
func (c *Cluster) ReloadKeys() error {
	changed, err := c.keys.reread(c.opts.KeyFile)
	if err != nil {
		c.log.Error("the key file of the cluster is not taken over: the keys of before stay", "error", err)
		return err
	}
	if changed {
		now := c.keys.now.Load()
		c.log.Info("the key file of the cluster was read again", "keys", len(now.all), "first_key", now.digest())
	}
	return nil
}
