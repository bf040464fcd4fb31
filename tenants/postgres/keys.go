// The key file, and sealing: AES-256-GCM, bound to the place where the sealed value stands.

package postgres

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/postern/postern/files"
)

const (
	maxKeyFile = 64 << 10
	keyBytes   = 32 // AES-256
	sealedForm = 1  // the first byte of what is sealed
)

var keyID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Keys seal and open secrets. They are what the key file had when it was last read; safe for concurrent use.
type Keys struct{ now atomic.Pointer[keySet] }

// keySet is what a key file says. It never changes.
type keySet struct {
	ids     []string // in their order: the first one seals
	all     map[string]cipher.AEAD
	digests map[string][32]byte // of the keys
}

// ReadKeys reads a key file: a line for each key, its id and 32 bytes in base64. The first one seals; all open. Empty lines and
// lines that start with # do not count. Errors repeat nothing of the file.
func ReadKeys(path string) (*Keys, error) {
	set, err := readKeySet(path)
	if err != nil {
		return nil, err
	}
	return newKeys(set), nil
}

func newKeys(set *keySet) *Keys {
	k := &Keys{}
	k.now.Store(set)
	return k
}

// Reread takes over what the key file says now, and reports whether that is something else. A file that cannot be used changes
// nothing.
func (k *Keys) Reread(path string) (changed bool, err error) {
	set, err := readKeySet(path)
	if err != nil {
		return false, err
	}
	old := k.now.Load()
	for id, digest := range set.digests {
		if was, ok := old.digests[id]; ok && was != digest {
			return false, fmt.Errorf("key file %s: %s is another key than before: a new key needs a new id", path, id)
		}
	}
	k.now.Store(set)
	return !slices.Equal(set.ids, old.ids), nil
}

// IDs are the ids of the keys, the one that seals first.
func (k *Keys) IDs() []string { return k.now.Load().ids }

// sealingWith is the same keys, of which another one seals.
func (k *Keys) sealingWith(id string) *Keys {
	set := *k.now.Load()
	set.ids = append([]string{id}, slices.DeleteFunc(slices.Clone(set.ids), func(other string) bool { return other == id })...)
	return newKeys(&set)
}

func readKeySet(path string) (*keySet, error) {
	text, err := files.Read(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	set, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return set, nil
}

func parseKeys(text []byte) (*keySet, error) {
	k := &keySet{all: make(map[string]cipher.AEAD), digests: make(map[string][32]byte)}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 || !keyID.MatchString(fields[0]) {
			return nil, fmt.Errorf("line %d: must be the id of a key (letters, digits, _ and -) and the key", n)
		}
		key, err := base64.StdEncoding.DecodeString(fields[1])
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d: the key must be %d bytes in base64", n, keyBytes)
		}
		if k.all[fields[0]] != nil {
			return nil, fmt.Errorf("line %d: the id is there already", n)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if k.all[fields[0]], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
		k.digests[fields[0]] = sha256.Sum256(key)
		k.ids = append(k.ids, fields[0])
	}
	if len(k.ids) == 0 {
		return nil, errors.New("has no key")
	}
	return k, nil
}

// MakeKeyFile writes a key file with one new key, unless there is a file already. It reports whether it has made one.
func MakeKeyFile(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = fmt.Fprintf(f, "# Opens the secrets of the store of tenants. Keep a copy where the database is not.\n%s\n", newKeyLine("k1"))
	return true, errors.Join(err, f.Sync(), f.Close())
}

// newKeyLine is a line of a key file with a new key.
func newKeyLine(id string) string {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	return id + " " + base64.StdEncoding.EncodeToString(key)
}

// place is where a sealed value stands: put anywhere else, it does not open.
type place struct {
	table, field string
	row          []string
}

// bind is the data that the seal is bound to: each part with its length, so that no two places look alike.
func (p place) bind(id string) (b []byte) {
	for _, part := range append([]string{"postern", p.table, p.field, id}, p.row...) {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	return b
}

// seal closes a text. The result tells which key opens it.
func (k *Keys) seal(at place, text []byte) []byte {
	set := k.now.Load()
	id := set.ids[0]
	return set.all[id].Seal(sealHead(id), nil, text, at.bind(id))
}

// sealHead is how everything begins that a key has sealed.
func sealHead(id string) []byte { return append([]byte{sealedForm, byte(len(id))}, id...) }

// sealedBy is the id of the key that has sealed something; "": it is no sealed value.
func sealedBy(sealed []byte) string {
	if len(sealed) < 2 || sealed[0] != sealedForm || len(sealed) < 2+int(sealed[1]) {
		return ""
	}
	if id := string(sealed[2 : 2+sealed[1]]); keyID.MatchString(id) {
		return id
	}
	return ""
}

var errSealed = errors.New("a sealed value does not open: it was changed, belongs somewhere else, or was sealed with another key of the same id")

// open is the reverse of seal.
func (k *Keys) open(at place, sealed []byte) ([]byte, error) {
	id := sealedBy(sealed)
	if id == "" {
		return nil, errors.New("is no sealed value")
	}
	key := k.now.Load().all[id]
	if key == nil {
		return nil, fmt.Errorf("the key file has no key %s", id)
	}
	text, err := key.Open(nil, nil, sealed[2+len(id):], at.bind(id))
	if err != nil {
		return nil, errSealed
	}
	return text, nil
}
